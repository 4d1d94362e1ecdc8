"""The OAuth peers do what they say: they are only worth something as witnesses when they are themselves tried."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from playwright.sync_api import Page

from tests.oauth.browsing import HttpBrowser
from tests.oauth.clients import CLIENT_REDIRECT, ClientMemory, call_with_mcp_remote, call_with_sdk
from tests.oauth.forging import ID_TOKEN_FAULTS, ForgingProvider
from tests.oauth.recording import RecordingServer
from tests.oauth.serving import Answer
from tests.oauth_peers import OidcProvider, ProtectedServer, started_protected_mcp_server

PORTAL = "http://127.0.0.1:4000/login/corp/callback"
VERIFIER = "v" * 48
Identity = OidcProvider | ForgingProvider


def discover(provider: Identity) -> dict[str, Any]:
    answer = httpx2.get(f"{provider.issuer}/.well-known/openid-configuration")
    document: dict[str, Any] = answer.json()
    return document


def session_for(provider: Identity, **more: Any) -> OAuth2Session:
    return OAuth2Session(
        provider.client_id,
        provider.client_secret,
        scope="openid email profile",
        redirect_uri=PORTAL,
        code_challenge_method="S256",
        **more,
    )


def sign_in(provider: Identity, login: str | None = None, browser: HttpBrowser | None = None) -> dict[str, Any]:
    """Sign in as a relying party does with Authlib; return the token answer."""
    session, document = session_for(provider), discover(provider)
    url, state = session.create_authorization_url(
        document["authorization_endpoint"], code_verifier=VERIFIER, nonce="the-nonce"
    )
    browser = browser or HttpBrowser()
    page = browser.visit(url, until=PORTAL)
    if login is not None:
        page = browser.submit(page, "Sign in", until=PORTAL, login=login)
    assert page.query["state"] == state
    assert page.query["iss"] == provider.issuer
    token: dict[str, Any] = session.fetch_token(
        document["token_endpoint"], authorization_response=page.url, code_verifier=VERIFIER
    )
    return token


def verified(provider: Identity, id_token: str) -> dict[str, Any]:
    """Return the claims of an id_token; raises JoseError where it is not what this provider should have signed."""
    keys = KeySet.import_key_set(httpx2.get(discover(provider)["jwks_uri"]).json())
    claims = jwt.decode(id_token, keys, algorithms=["RS256"]).claims
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "value": provider.client_id},
        azp={"value": provider.client_id},
        nonce={"essential": True, "value": "the-nonce"},
        sub={"essential": True},
        exp={"essential": True},
    ).validate(claims)
    return claims


def follow(url: str) -> str:
    """Play the browser of a client whose person is asked nothing."""
    with HttpBrowser() as browser:
        return browser.visit(url, until=CLIENT_REDIRECT).url


def test_the_openid_provider_signs_in_by_its_form(oidc_provider: Callable[..., OidcProvider]) -> None:
    provider = oidc_provider(redirect_uris=[PORTAL])
    claims = verified(provider, sign_in(provider, "ada")["id_token"])
    assert claims["sub"] == "sub-of-ada"
    assert (claims["email"], claims["email_verified"]) == ("ada@example.com", True)
    assert claims["groups"] == ["mcp-admins", "staff"]


def test_the_openid_provider_reads_a_changed_account_at_the_next_sign_in(
    oidc_provider: Callable[..., OidcProvider],
) -> None:
    provider = oidc_provider(redirect_uris=[PORTAL], login="bob", more_claims=["department"])
    assert verified(provider, sign_in(provider)["id_token"])["groups"] == ["staff"]
    provider.set_account("bob", email="robert@example.com", groups=["mcp-admins"], department="sales", sub="b-1")
    claims = verified(provider, sign_in(provider)["id_token"])
    assert (claims["sub"], claims["groups"], claims["department"]) == ("b-1", ["mcp-admins"], "sales")


def test_the_openid_provider_refuses_strangers_replays_and_missing_verifiers(
    oidc_provider: Callable[..., OidcProvider],
) -> None:
    provider = oidc_provider(redirect_uris=[PORTAL])
    document, browser = discover(provider), HttpBrowser()
    session = session_for(provider)
    url, _ = session.create_authorization_url(document["authorization_endpoint"], code_verifier=VERIFIER)
    form = browser.visit(url, until=PORTAL)
    assert "No account mallory" in browser.submit(form, "Sign in", until=PORTAL, login="mallory").text
    back = browser.submit(form, "Sign in", until=PORTAL, login="eve").query
    exchange = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": PORTAL}
    secret = (provider.client_id, provider.client_secret)
    answers = [
        httpx2.post(document["token_endpoint"], data=exchange | verifier, auth=secret)
        for verifier in ({}, {"code_verifier": VERIFIER}, {"code_verifier": VERIFIER})
    ]
    assert [answer.status_code for answer in answers] == [400, 200, 400]


def test_a_person_can_cancel_at_the_openid_provider(oidc_provider: Callable[..., OidcProvider]) -> None:
    provider, browser = oidc_provider(redirect_uris=[PORTAL]), HttpBrowser()
    url, _ = session_for(provider).create_authorization_url(
        discover(provider)["authorization_endpoint"], code_verifier=VERIFIER
    )
    assert browser.submit(browser.visit(url), "Cancel", until=PORTAL).query["error"] == "access_denied"


def test_the_openid_provider_signs_out_on_request(oidc_provider: Callable[..., OidcProvider]) -> None:
    bye = "http://127.0.0.1:4000/login"
    provider = oidc_provider(redirect_uris=[PORTAL], post_logout_redirect_uris=[bye], host="localhost")
    browser = HttpBrowser()
    id_token = sign_in(provider, "ada", browser)["id_token"]
    assert sign_in(provider, browser=browser), "still signed in there, nobody is asked"
    leaving = f"{discover(provider)['end_session_endpoint']}?id_token_hint={id_token}&post_logout_redirect_uri={bye}"
    page = browser.submit(browser.visit(leaving), "Sign out", until=bye)
    assert page.url == bye
    assert sign_in(provider, "ada", browser), "the form is back"


def test_a_short_lived_id_token_and_no_sign_out_as_asked(oidc_provider: Callable[..., OidcProvider]) -> None:
    provider = oidc_provider(
        redirect_uris=[PORTAL], login="ada", id_token_seconds=5, end_session=False, claims_in_id_token=False
    )
    token = sign_in(provider)
    claims = verified(provider, token["id_token"])
    assert claims["exp"] - claims["iat"] == 5
    assert "email" not in claims
    document = discover(provider)
    assert "end_session_endpoint" not in document
    answer = httpx2.get(
        document["userinfo_endpoint"], headers={"Authorization": f"Bearer {token['access_token']}"}
    ).json()
    assert answer["email"] == "ada@example.com"


def test_the_openid_provider_is_usable_in_chromium(
    oidc_provider: Callable[..., OidcProvider], browser_page_factory: Callable[..., Page]
) -> None:
    provider, page = oidc_provider(redirect_uris=[PORTAL]), browser_page_factory()
    url, _ = session_for(provider).create_authorization_url(
        discover(provider)["authorization_endpoint"], code_verifier=VERIFIER
    )
    page.route("http://127.0.0.1:4000/**", lambda route: route.fulfill(body="arrived"))
    page.goto(url)
    page.get_by_label("Login").fill("ada")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{PORTAL}?*")
    assert "code=" in page.url


def test_the_forger_is_honest_by_default(forging_provider: ForgingProvider) -> None:
    token = sign_in(forging_provider)
    assert verified(forging_provider, token["id_token"])["email"] == "ada@example.com"
    assert forging_provider.seen("token")[0].form["code_verifier"] == VERIFIER


@pytest.mark.parametrize("fault", ID_TOKEN_FAULTS)
def test_a_forged_id_token_is_seen_through(forging_provider: ForgingProvider, fault: str) -> None:
    forging_provider.fault = fault
    token = sign_in(forging_provider)
    with pytest.raises((JoseError, ValueError)):
        verified(forging_provider, token["id_token"])


@pytest.mark.parametrize(
    ("fault", "name", "value"),
    [
        ("response_issuer", "iss", "https://evil.example"),
        ("response_issuer_missing", "iss", None),
        ("response_state", "state", "of-somebody-else"),
        ("access_denied", "error", "access_denied"),
    ],
)
def test_a_forged_redirect(forging_provider: ForgingProvider, fault: str, name: str, value: str | None) -> None:
    forging_provider.fault = fault
    url = f"{forging_provider.issuer}/authorize?state=s&redirect_uri={PORTAL}"
    assert HttpBrowser().visit(url, until=PORTAL).query.get(name) == value


def test_the_other_faults_of_the_forger(forging_provider: ForgingProvider) -> None:
    forging_provider.fault = "discovery_issuer"
    assert discover(forging_provider)["issuer"] == "https://evil.example"
    forging_provider.fault = "userinfo_subject"
    assert httpx2.get(f"{forging_provider.issuer}/userinfo").json()["sub"] == "sub-of-mallory"
    forging_provider.fault = "token_status"
    assert httpx2.post(f"{forging_provider.issuer}/token").status_code == 500
    forging_provider.fault = "token_html"
    assert httpx2.post(f"{forging_provider.issuer}/token").headers["content-type"].startswith("text/html")
    forging_provider.fault = "id_token_missing"
    assert "id_token" not in sign_in(forging_provider)


def test_the_sdk_client_gets_through_to_the_protected_server(protected_mcp_server: ProtectedServer) -> None:
    outcome = call_with_sdk(protected_mcp_server.url, follow)
    assert json.loads(outcome.text) == {"subject": "alice", "client_id": outcome.client.client_id, "scopes": ["mcp"]}
    counters = protected_mcp_server.counters()
    assert (counters.register, counters.authorize, counters.code_grants, counters.tool_calls) == (1, 1, 1, 1)
    assert (counters.live_access, counters.live_refresh, counters.clients) == (1, 1, 1)
    assert counters.unauthorized >= 1


def test_mcp_remote_gets_through_to_the_protected_server(protected_mcp_server: ProtectedServer) -> None:
    def follow_to_the_end(url: str) -> None:
        with HttpBrowser() as browser:
            assert browser.visit(f"{url}&user=bob").status == 200

    text = call_with_mcp_remote(protected_mcp_server.url, follow_to_the_end)
    assert json.loads(text)["subject"] == "bob"


def test_an_expired_token_is_refreshed_and_rotates(protected_mcp_server: ProtectedServer) -> None:
    memory = ClientMemory()
    first = call_with_sdk(protected_mcp_server.url, follow, memory=memory).tokens
    protected_mcp_server.expire_access_tokens()
    assert protected_mcp_server.counters().live_access == 0
    memory.expire()
    second = call_with_sdk(protected_mcp_server.url, follow, memory=memory).tokens
    assert first.access_token != second.access_token
    assert first.refresh_token != second.refresh_token
    counters = protected_mcp_server.counters()
    assert (counters.refresh_grants, counters.authorize, counters.live_access) == (1, 1, 1)


def test_a_token_expires_by_itself(protected_mcp_server: ProtectedServer) -> None:
    protected_mcp_server.configure(access_seconds=0.2)
    token = code_grant(protected_mcp_server)["access_token"]
    deadline = time.monotonic() + 5
    while protected_mcp_server.counters().live_access:
        assert time.monotonic() < deadline
    assert mcp_status(protected_mcp_server, token) == 401


def test_a_refresh_token_used_twice_ends_the_grant(protected_mcp_server: ProtectedServer) -> None:
    first = code_grant(protected_mcp_server)
    second = refresh(protected_mcp_server, first["refresh_token"])
    assert second.status_code == 200
    assert refresh(protected_mcp_server, first["refresh_token"]).json()["error"] == "invalid_grant"
    assert refresh(protected_mcp_server, second.json()["refresh_token"]).status_code == 400
    counters = protected_mcp_server.counters()
    assert (counters.refresh_grants, counters.reused_refresh, counters.refused_grants) == (1, 1, 2)
    assert counters.live_access == 0


def test_two_refreshes_at_one_moment_are_seen_as_two(protected_mcp_server: ProtectedServer) -> None:
    token = code_grant(protected_mcp_server)["refresh_token"]
    protected_mcp_server.configure(token_delay_seconds=0.3)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: refresh(protected_mcp_server, token), range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    assert protected_mcp_server.counters().reused_refresh == 1


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_revoking_either_token_ends_both(protected_mcp_server: ProtectedServer, kind: str) -> None:
    tokens = code_grant(protected_mcp_server)
    assert mcp_status(protected_mcp_server, tokens["access_token"]) == 200
    form = {"token": tokens[kind], "token_type_hint": kind, "client_id": "by-hand", "client_secret": "SECRET-by-hand"}
    assert httpx2.post(f"{protected_mcp_server.issuer}/revoke", data=form).status_code == 200
    assert mcp_status(protected_mcp_server, tokens["access_token"]) == 401
    counters = protected_mcp_server.counters()
    assert (counters.revocations, counters.revoked_grants) == (1, 1)
    assert (counters.live_access, counters.live_refresh) == (0, 0)


def test_the_further_scope_is_asked_for_and_then_enough(protected_mcp_server: ProtectedServer) -> None:
    memory = ClientMemory()
    call_with_sdk(protected_mcp_server.url, follow, memory=memory)
    outcome = call_with_sdk(protected_mcp_server.url, follow, memory=memory, tool="admin_note")
    assert outcome.text == "for administrators"
    assert protected_mcp_server.counters().insufficient_scope == 1
    assert set((outcome.tokens.scope or "").split()) == {"mcp", "admin"}


def test_the_challenge_names_the_further_scope(protected_mcp_server: ProtectedServer) -> None:
    token = code_grant(protected_mcp_server)["access_token"]
    answer = call_tool(protected_mcp_server, token, "admin_note")
    assert answer.status_code == 403
    assert 'error="insufficient_scope", scope="mcp admin"' in answer.headers["www-authenticate"]


def test_a_token_for_another_resource_is_refused(protected_mcp_server: ProtectedServer) -> None:
    token = code_grant(protected_mcp_server, resource="http://127.0.0.1:1/mcp")["access_token"]
    assert mcp_status(protected_mcp_server, token) == 401


def test_registration_refresh_tokens_and_issuer_are_switches(protected_mcp_server: ProtectedServer) -> None:
    protected_mcp_server.configure(registration=False, refresh_tokens=False, response_iss=True, client_documents=True)
    document = httpx2.get(f"{protected_mcp_server.issuer}/.well-known/oauth-authorization-server").json()
    assert "registration_endpoint" not in document
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["client_id_metadata_document_supported"] is True
    assert httpx2.post(f"{protected_mcp_server.issuer}/register", json={}).status_code == 404
    assert "refresh_token" not in code_grant(protected_mcp_server)
    back = HttpBrowser().visit(authorize_url(protected_mcp_server), until=CLIENT_REDIRECT)
    assert back.query["iss"] == protected_mcp_server.issuer


def test_a_client_may_be_known_by_its_document(
    protected_mcp_server: ProtectedServer, recording_as: RecordingServer
) -> None:
    protected_mcp_server.configure(client_documents=True)
    client_id = f"{recording_as.issuer}/client.json"
    document = {"client_id": client_id, "redirect_uris": [CLIENT_REDIRECT], "token_endpoint_auth_method": "none"}
    recording_as.answer("other", Answer(json=document))
    tokens = code_grant(protected_mcp_server, client_id=client_id, client_secret="")
    assert mcp_status(protected_mcp_server, tokens["access_token"]) == 200
    assert protected_mcp_server.counters().client_documents == 1


def test_consent_by_form_in_chromium(
    protected_mcp_server: ProtectedServer, browser_page_factory: Callable[..., Page]
) -> None:
    protected_mcp_server.configure(consent="form", user="carol")
    page = browser_page_factory()
    page.route(f"{CLIENT_REDIRECT}*", lambda route: route.fulfill(body="arrived"))

    def browse(url: str) -> str:
        with HttpBrowser() as browser:
            return browser.submit(browser.visit(url), "Allow", until=CLIENT_REDIRECT).url

    assert json.loads(call_with_sdk(protected_mcp_server.url, browse).text)["subject"] == "carol"
    add_client(protected_mcp_server)
    page.goto(authorize_url(protected_mcp_server))
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url(f"{CLIENT_REDIRECT}?*")
    assert "error=access_denied" in page.url


def test_a_reset_forgets_and_another_server_is_another(protected_mcp_server: ProtectedServer) -> None:
    token = code_grant(protected_mcp_server)["access_token"]
    with started_protected_mcp_server() as second:
        assert second.counters().code_grants == 0
        assert mcp_status(second, token) == 401
    protected_mcp_server.reset()
    assert protected_mcp_server.counters().clients == 0
    assert mcp_status(protected_mcp_server, token) == 401


def test_an_unknown_setting_is_refused(protected_mcp_server: ProtectedServer) -> None:
    with pytest.raises(httpx2.HTTPStatusError):
        protected_mcp_server.configure(colour="blue")


def test_the_sdk_client_gets_through_to_the_recording_server(recording_as: RecordingServer) -> None:
    outcome = call_with_sdk(recording_as.url, follow, mode="legacy")
    assert outcome.text == "the bearer of at-2"
    assert recording_as.last("register").json["redirect_uris"] == [CLIENT_REDIRECT]
    assert recording_as.last("authorize").query["resource"] == recording_as.url
    assert recording_as.last("token").form["code"].startswith("code-")
    assert recording_as.seen("mcp")[0].headers.get("authorization") is None


def test_what_the_recording_server_is_told_to_answer(recording_as: RecordingServer) -> None:
    token = recording_as.endpoint("token")
    recording_as.answer("token", Answer(503, json={"error": "temporarily_unavailable"}), times=1)
    assert [httpx2.post(token).status_code for _ in range(2)] == [503, 200]
    recording_as.answer("token", Answer.html())
    assert httpx2.post(token).text.startswith("<!doctype html>")
    recording_as.answer("token", Answer.garbage())
    with pytest.raises(ValueError, match=r"codec|JSON|Expecting"):
        httpx2.post(token).json()
    recording_as.answer("token", Answer.oversized(1))
    assert len(httpx2.post(token).content) > 1 << 20
    recording_as.answer("token", Answer.redirect("http://127.0.0.1:1/elsewhere", 307))
    assert httpx2.post(token).headers["location"] == "http://127.0.0.1:1/elsewhere"
    recording_as.answer("token", Answer(delay_seconds=60))
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(token, timeout=0.3)
    recording_as.answer("token", None)
    recording_as.token_fields = {"expires_in": None, "refresh_token": None, "scope": "mail"}
    assert httpx2.post(token).json() == {"access_token": "at-2", "token_type": "Bearer", "scope": "mail"}


def test_the_recording_server_describes_itself_as_told(recording_as: RecordingServer) -> None:
    assert httpx2.get(recording_as.endpoint("metadata")).json()["issuer"] == recording_as.issuer
    recording_as.metadata = None
    assert httpx2.get(recording_as.endpoint("metadata")).status_code == 404
    recording_as.registration_secret = False
    assert "client_secret" not in httpx2.post(recording_as.endpoint("register"), json={}).json()
    recording_as.response_iss, recording_as.authorize_error = "https://evil.example", "access_denied"
    url = f"{recording_as.endpoint('authorize')}?redirect_uri={CLIENT_REDIRECT}&state=s"
    back = HttpBrowser().visit(url, until=CLIENT_REDIRECT)
    assert back.query == {"error": "access_denied", "state": "s", "iss": "https://evil.example"}
    recording_as.challenge = None
    assert "www-authenticate" not in httpx2.post(recording_as.url, json={}).headers


def authorize_url(server: ProtectedServer, resource: str | None = None, client_id: str = "by-hand") -> str:
    """Return an authorization request of a client; its challenge is that of `VERIFIER`."""
    session = OAuth2Session(client_id, redirect_uri=CLIENT_REDIRECT, scope="mcp", code_challenge_method="S256")
    url, _ = session.create_authorization_url(
        f"{server.issuer}/authorize", code_verifier=VERIFIER, resource=resource or server.url
    )
    return str(url)


def add_client(server: ProtectedServer) -> None:
    server.add_client("by-hand", "SECRET-by-hand", redirect_uris=[CLIENT_REDIRECT])


def code_grant(
    server: ProtectedServer,
    *,
    resource: str | None = None,
    client_id: str = "by-hand",
    client_secret: str = "SECRET-by-hand",
) -> dict[str, Any]:
    """Go through a whole code grant by plain HTTP; return the token answer."""
    if client_id == "by-hand":
        add_client(server)
    back = HttpBrowser().visit(authorize_url(server, resource, client_id), until=CLIENT_REDIRECT)
    form = {"grant_type": "authorization_code", "code": back.query["code"], "redirect_uri": CLIENT_REDIRECT}
    form |= {"client_id": client_id, "client_secret": client_secret, "code_verifier": VERIFIER}
    answer = httpx2.post(f"{server.issuer}/token", data=form)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


def refresh(server: ProtectedServer, token: str) -> httpx2.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return httpx2.post(
        f"{server.issuer}/token", data=form | {"client_id": "by-hand", "client_secret": "SECRET-by-hand"}
    )


def call_tool(server: ProtectedServer, token: str, tool: str) -> httpx2.Response:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return httpx2.post(server.url, json=asked, headers=headers)


def mcp_status(server: ProtectedServer, token: str) -> int:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "tests", "version": "0"}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return httpx2.post(server.url, json=asked, headers=headers).status_code
