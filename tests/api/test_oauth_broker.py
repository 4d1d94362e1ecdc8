"""The broker for MCP clients over HTTP, by the numbers of `spec/behaviours.md` (OAU) and `security.md`, 2.6."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.services import preferences, servers, teams
from portal.store.models import AuditEvent, Server, UserCredential
from portal.store.oauth_tables import Consent, OAuthFlow
from tests.conftest import CREW, Client, Write
from tests.factories import make_group, make_server
from tests.oauth.browsing import HttpBrowser
from tests.oauth.recording import RecordingServer
from tests.oauth.serving import Answer
from tests.security.callers import token_in
from tests.web.html import parse

As = Callable[[str | None], Client]
SignedIn = Callable[[str], Client]
PUBLIC = "http://127.0.0.1:8000"
CALLBACK = f"{PUBLIC}/oauth/callback"
BACK = "http://localhost:3000/cb"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
BASE = "/v1/mcp/server/oauth/id-guarded"
ASKED = {
    "redirect_uri": BACK, "state": "client-state", "code_challenge": CHALLENGE, "code_challenge_method": "S256",
    "response_type": "code", "client_id": "some-client",
}  # fmt: skip
STORED = {"client_id": "stored-id", "client_secret": "SECRET-stored"}


@pytest.fixture
def add(write: Write, recording_as: RecordingServer) -> Callable[..., str]:
    """`add(**fields)`: the server `guarded` before the recording authorization server, its URLs typed."""

    def adding(name: str = "guarded", **fields: Any) -> str:
        given = {
            "url": recording_as.url, "auth_type": "oauth2", "authorization_url": recording_as.endpoint("authorize"),
            "token_url": recording_as.endpoint("token"), "credentials": STORED, **fields,
        }  # fmt: skip
        with write() as session:
            return make_server(session, name, **{k: v for k, v in given.items() if v is not None})

    return adding


def query_of(address: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlsplit(address).query, keep_blank_values=True).items()}


def authorize(asking: Client, base: str = BASE, **changed: str | None) -> Any:
    asked = {name: value for name, value in {**ASKED, **changed}.items() if value is not None}
    return asking.get(f"{base}/authorize", query_string=asked)


def departed(asking: Client, base: str = BASE, **changed: str | None) -> dict[str, str]:
    """The query with which the upstream is asked."""
    answer = authorize(asking, base, **changed)
    assert answer.status_code == 307, answer.get_data(as_text=True)
    return query_of(answer.location)


def came_back(address: str) -> str:
    """What the upstream, which asks nothing, sends the browser back to: a path of ours."""
    with HttpBrowser() as outside:
        return outside.visit(address, until=CALLBACK).url.removeprefix(PUBLIC)


def code_for(asking: Client, app: Flask, base: str = BASE, **changed: str | None) -> str:
    """A code that came through the portal for a caller with an API key."""
    answer = authorize(asking, base, **changed)
    assert answer.status_code == 307, answer.get_data(as_text=True)
    landed = app.test_client().get(came_back(answer.location))
    assert landed.status_code == 302, landed.get_data(as_text=True)
    return query_of(landed.location)["code"]


def redeem(asking: Client, code: str, base: str = BASE, **changed: str | None) -> Any:
    form = {
        "grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "client_id": "some-client",
        "redirect_uri": BACK, **changed,
    }  # fmt: skip
    return asking.ask("POST", f"{base}/token", data={name: value for name, value in form.items() if value is not None})


def asked_on(browser: FlaskClient, location: str) -> Any:
    """The consent page that an authorize led to."""
    assert location.startswith("/oauth/consent/"), location
    page = browser.get(location)
    assert page.status_code == 200, page.get_data(as_text=True)
    return page


def decided(browser: FlaskClient, location: str, decision: str = "allow") -> Any:
    page = asked_on(browser, location)
    return browser.post(location, data={"csrf_token": token_in(page), "decision": decision})


def onward(answer: Any) -> str:
    """Where the page after the consent leads to."""
    link = parse(answer).select_one("a.primary")
    assert link is not None, answer.get_data(as_text=True)
    return str(link["href"])


# Authorize


def test_oau_01_an_admins_request_goes_to_the_upstream_with_all_it_carries(
    client: As, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    answer = authorize(client("ada"), scope="a b")
    assert answer.status_code == 307
    assert answer.location.startswith(recording_as.endpoint("authorize") + "?")
    sent = query_of(answer.location)
    state = sent.pop("state")
    assert sent == {
        "response_type": "code", "client_id": "stored-id", "redirect_uri": CALLBACK, "scope": "a b",
        "code_challenge": CHALLENGE, "code_challenge_method": "S256", "resource": recording_as.url,
    }  # fmt: skip
    assert len(state) >= 43
    assert "client-state" not in state


@pytest.mark.parametrize(
    ("changed", "configured", "expected"),
    [
        ({"response_type": None}, {}, {"response_type": "code"}),  # OAU-02
        ({}, {"scopes": ["one", "two"]}, {"scope": "one two"}),  # OAU-05
        ({"scope": "three"}, {"scopes": ["one", "two"]}, {"scope": "three"}),  # OAU-06
        ({"client_id": None}, {}, {"client_id": "stored-id"}),
    ],
)
def test_oau_02_05_06_what_is_left_out_is_filled_in(
    client: As, add: Callable[..., str], changed: dict[str, str | None], configured: dict[str, Any],
    expected: dict[str, str],
) -> None:  # fmt: skip
    add(credentials={**STORED, **configured})
    assert departed(client("ada"), **changed).items() >= expected.items()


def test_oau_03_the_query_of_the_authorization_url_is_kept(
    client: As, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add(authorization_url=recording_as.endpoint("authorize") + "?tenant=system&scope=old")
    answer = authorize(client("ada"), scope="new")
    assert answer.location.count("?") == 1
    assert query_of(answer.location).items() >= {"tenant": "system", "scope": "new"}.items()


def test_oau_09_no_client_id_anywhere_is_told_as_such(client: As, add: Callable[..., str]) -> None:
    add(credentials=None)
    answer = authorize(client("ada"), client_id=None)
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (400, "missing_client_id")
    answer = redeem(client("ada"), "code", client_id=None)
    assert (answer.status_code, answer.get_json()["error"]) == (400, "missing_client_id")
    assert answer.get_json()["detail"]["error"] == "missing_client_id"
    assert departed(client("ada"))["client_id"] == "some-client"


def test_oau_10_a_redirect_uri_and_a_grant_type_are_required(client: As, add: Callable[..., str]) -> None:
    add()
    answer = authorize(client("ada"), redirect_uri=None)
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, "redirect_uri")
    answer = redeem(client("ada"), "code", grant_type=None)
    assert (answer.status_code, answer.get_json()["error"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:3000/cb", "http://127.0.0.2:3000/cb", "http://[0:0:0:0:0:0:0:1]:3000/cb",  # OAU-12
        f"{PUBLIC}/ui/mcp/oauth/callback",  # OAU-13
        "https://app.example.com/cb", "https://app.example.com:443/cb", "https://a.suffix.example/cb",  # OAU-15, -72
        "https://other.example/cb", "cursor://anysphere.cursor-mcp/oauth/callback",  # OAU-76
    ],
)  # fmt: skip
def test_oau_12_13_15_72_76_where_clients_may_be(client: As, write: Write, add: Callable[..., str], uri: str) -> None:
    add()
    trusted = ["app.example.com", "*.suffix.example", "https://other.example/"]
    with write() as session:
        preferences.update_preferences(session, OPERATOR, {"trusted_redirect_origins": trusted})
    assert departed(client("ada"), redirect_uri=uri)["redirect_uri"] == CALLBACK


def test_oau_24_a_server_without_oauth_is_told_before_its_client(client: As) -> None:
    answer = authorize(client("ada"), "/v1/mcp/server/oauth/id-notes", client_id=None)
    assert answer.status_code == 400
    assert "does not use OAuth" in answer.get_json()["detail"]["message"]


def test_oau_25_26_no_authorization_url_tells_the_remedy_and_not_the_host(
    client: As, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    recording_as.metadata = recording_as.resource_metadata = None
    add(authorization_url=None, token_url=None)
    answer = authorize(client("ada"))
    detail = answer.get_json()["detail"]
    assert (answer.status_code, detail["error"]) == (400, "no_authorization_server")
    assert "authorization URL and token URL" in detail["message"]
    assert urlsplit(recording_as.url).netloc not in answer.get_data(as_text=True)
    answer = redeem(client("ada"), "code")
    assert (answer.status_code, answer.get_json()["error"]) == (400, "no_authorization_server")  # OAU-34


def test_the_upstream_is_discovered_and_the_portal_registers_itself_once(
    client: As, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add(authorization_url=None, token_url=None, credentials=None)
    first, second = departed(client("ada")), departed(client("ada"))
    assert first["client_id"] == second["client_id"]
    assert first["client_id"].startswith("registered-")
    assert first["resource"] == recording_as.url
    assert len(recording_as.seen("register")) == 1


# Who may


def test_oau_45_47_48_who_is_let_in(
    client: As, signed_in: SignedIn, write: Write, add: Callable[..., str], app: Flask
) -> None:
    add()
    for base in (BASE, "/v1/mcp/server/oauth/nowhere", "/v1/mcp/server/oauth/id-hidden"):
        for answer in (authorize(client("mel"), base), redeem(client("mel"), "x", base)):
            assert answer.status_code == 403
        assert client("mel").post(f"{base}/register", {}).status_code == 403
        for answer in (authorize(client(None), base), redeem(client(None), "x", base)):
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert client(None).post(f"{base}/register", {}).status_code == 401
    for answer in (
        authorize(client("ada"), "/v1/mcp/server/oauth/nowhere"),
        redeem(client("ada"), "x", "/v1/mcp/server/oauth/nowhere"),
        client("ada").post("/v1/mcp/server/oauth/nowhere/register", {}),
        authorize(client("vera"), "/v1/mcp/server/oauth/nowhere"),
    ):
        assert answer.status_code == 404
    with write() as session:
        group = make_group(session, "oauth", ("id-guarded",))
        teams.change_team(session, OPERATOR, CREW, {}, access_group_ids=[group])
    mel = signed_in("mel")
    answer = authorize(mel)
    assert (answer.status_code, answer.location[:15]) == (307, "/oauth/consent/")
    address = onward(decided(mel._client, answer.location))
    landed = mel.get(came_back(address))
    answer = redeem(mel.with_csrf(), query_of(landed.location)["code"])
    assert (answer.status_code, answer.get_json()["access_token"][:3]) == (200, "at-")
    assert departed(client("mel"))["client_id"] == "stored-id"


def test_a_bad_key_is_refused_whatever_cookie_comes_along(signed_in: SignedIn, add: Callable[..., str]) -> None:
    add()
    ada = signed_in("ada")
    for headers in ({"Authorization": "Bearer sk-wrong"}, {"X-API-Key": "sk-wrong"}, {"Authorization": "Basic YTpi"}):
        assert ada.get(f"{BASE}/authorize", query_string=ASKED, headers=headers).status_code == 401
        assert ada.post(f"{BASE}/token", headers=headers).get_json()["error"] == "invalid_client"


def test_cky_07_a_browser_without_a_session_signs_in_and_comes_back_to_the_same_request(
    app: Flask, add: Callable[..., str]
) -> None:
    add()
    answer = app.test_client().get(f"{BASE}/authorize", query_string=ASKED, headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 303
    parts = urlsplit(answer.location)
    assert parts.path == "/login"
    back = query_of(answer.location)["next"]
    assert urlsplit(back).path == f"{BASE}/authorize"
    assert query_of(back) == ASKED


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 307),
        ({"delegate_auth_to_upstream": False}, 401),
        ({"oauth2_flow": "client_credentials"}, 401),
        ({"auth_type": "oauth2_token_exchange"}, 401),
        ({"approval_status": "pending_review"}, 401),
        ({"allow_all_keys": True, "delegate_auth_to_upstream": False}, 401),
    ],
)
def test_rule_8_strangers_sign_in_only_where_the_server_leaves_it_to_its_upstream(
    client: As, write: Write, add: Callable[..., str], changed: dict[str, Any], status: int
) -> None:
    add(delegate_auth_to_upstream=True)
    with write() as session:
        row = session.get(Server, "id-guarded")
        for name, value in changed.items():
            setattr(row, name, value)
    assert authorize(client(None)).status_code == status
    assert redeem(client(None), "x").status_code == (400 if status == 307 else 401)
    refreshing = {"grant_type": "refresh_token", "refresh_token": "rt"}
    for form in (refreshing, {"grant_type": "client_credentials"}, {}):
        assert client(None).ask("POST", f"{BASE}/token", data=form).status_code == 401
    assert client(None).post(f"{BASE}/register", {}).status_code == 401


def test_the_address_rule_hides_a_server_from_strangers_outside(client: As, add: Callable[..., str]) -> None:
    add(delegate_auth_to_upstream=True, available_on_public_internet=False)
    outside = {"environ_base": {"REMOTE_ADDR": "203.0.113.9"}}
    assert authorize(client(None)).status_code == 307
    assert client(None).get(f"{BASE}/authorize", query_string=ASKED, **outside).status_code == 401
    here = client(None).get("/.well-known/oauth-protected-resource/guarded/mcp", **outside)
    nowhere = client(None).get("/.well-known/oauth-protected-resource/nowhere/mcp", **outside)
    assert (here.status_code, here.get_json()) == (404, nowhere.get_json())
    assert client(None).get("/.well-known/oauth-protected-resource/guarded/mcp").status_code == 200


# The consent page


def test_the_consent_page_says_who_asks_and_where_it_leads(
    signed_in: SignedIn, client: As, add: Callable[..., str]
) -> None:
    add(credentials={**STORED, "scopes": ["read:all"]})
    made = client(None).post("/guarded/register", {"client_name": "Ev\u202eil  \x07App", "redirect_uris": [BACK]})
    ada = signed_in("ada")
    answer = authorize(ada, client_id=made.get_json()["client_id"])
    page = asked_on(ada._client, answer.location)
    text = parse(page).get_text(" ", strip=True)
    for said in ("Ev il App", "Not verified", "localhost:3000", BACK, "read:all", "ada@example.com", "guarded"):
        assert said in text, said
    assert "Only go on if you started this yourself" in text
    assert "stored-id" not in page.get_data(as_text=True)
    assert "form-action 'self' http://localhost:3000;" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


def test_consent_is_given_once_in_that_browser_by_that_person_with_a_token(
    signed_in: SignedIn, app: Flask, add: Callable[..., str]
) -> None:
    add()
    ada, vera = signed_in("ada"), signed_in("vera")
    where = authorize(ada).location
    token = token_in(asked_on(ada._client, where))
    assert ada.ask("POST", where, data={"decision": "allow"}).status_code == 400
    assert vera.get(where).status_code == 400
    assert app.test_client().get(where).status_code == 400
    cookie = ada._client.get_cookie("portal-oauth")
    assert cookie is not None
    vera._client.set_cookie("portal-oauth", cookie.value)
    assert vera.get(where).status_code == 400
    assert ada.ask("POST", where, data={"decision": "allow", "csrf_token": token}).status_code == 200
    assert ada.ask("POST", where, data={"decision": "allow", "csrf_token": token}).status_code == 400
    assert ada.get(where).status_code == 400


def test_a_refusal_goes_to_the_client_as_access_denied(
    signed_in: SignedIn, write: Write, add: Callable[..., str]
) -> None:
    add()
    ada = signed_in("ada")
    answer = decided(ada._client, authorize(ada).location, "deny")
    assert answer.status_code == 303
    assert answer.location.startswith(BACK)
    sent = query_of(answer.location)
    assert (sent["error"], sent["state"], sent["iss"]) == ("access_denied", "client-state", f"{PUBLIC}/guarded")
    with write() as session:
        assert session.scalar(select(OAuthFlow).where(OAuthFlow.kind == "broker")) is None
        assert session.scalar(select(Consent)) is None
        assert session.scalar(select(AuditEvent).where(AuditEvent.action == "app not allowed")) is not None


def test_a_consent_is_remembered_for_just_that_and_never_for_clients_that_registered_themselves(
    signed_in: SignedIn, client: As, write: Write, add: Callable[..., str]
) -> None:
    add()
    far = "https://app.example.com/cb"
    with write() as session:
        preferences.update_preferences(session, OPERATOR, {"trusted_redirect_origins": ["app.example.com"]})
    ada = signed_in("ada")
    own = {"Sec-Fetch-Site": "none"}

    def led_to_consent(headers: dict[str, str] = own, **changed: str) -> bool:
        answer = ada.get(f"{BASE}/authorize", query_string={**ASKED, "redirect_uri": far, **changed}, headers=headers)
        return bool(answer.location.startswith("/oauth/consent/"))

    assert led_to_consent()
    decided(ada._client, authorize(ada, redirect_uri=far).location)
    assert not led_to_consent()
    assert led_to_consent({})
    assert led_to_consent({"Sec-Fetch-Site": "cross-site"})
    assert led_to_consent(scope="more")
    assert led_to_consent(client_id="another")
    assert led_to_consent(redirect_uri="https://app.example.com/other")
    decided(ada._client, authorize(ada).location)
    assert led_to_consent(redirect_uri=BACK), "on the person's own computer anything can claim to be the app"
    made = client(None).post("/guarded/register", {"redirect_uris": [far]}).get_json()["client_id"]
    decided(ada._client, authorize(ada, redirect_uri=far, client_id=made).location)
    assert led_to_consent(client_id=made)
    profile = ada.get("/profile")
    assert "app.example.com" in profile.get_data(as_text=True)


def test_a_consent_is_taken_back_on_the_profile(signed_in: SignedIn, write: Write, add: Callable[..., str]) -> None:
    add()
    ada, vera = signed_in("ada"), signed_in("vera")
    decided(ada._client, authorize(ada).location)
    profile = ada.get("/profile")
    button = parse(profile).select_one('form[action="/profile/apps/remove"] input[name="app"]')
    assert button is not None
    form = {"csrf_token": token_in(vera.get("/profile")), "app": str(button["value"])}
    vera.ask("POST", "/profile/apps/remove", data=form)
    with write() as session:
        assert session.scalar(select(Consent)) is not None
    form["csrf_token"] = token_in(profile)
    assert ada.ask("POST", "/profile/apps/remove", data=form).status_code == 303
    with write() as session:
        assert session.scalar(select(Consent)) is None
        assert session.scalar(select(AuditEvent).where(AuditEvent.action == "app removed")) is not None


# The way back


def test_oau_50_51_the_code_goes_to_the_client_with_its_own_state_and_query(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    answer = authorize(client("ada"), redirect_uri=f"{BACK}?session=abc")
    path = came_back(answer.location)
    landed = app.test_client().get(path)
    assert landed.status_code == 302
    sent = query_of(landed.location)
    assert landed.location.startswith(f"{BACK}?session=abc&")
    assert sent.pop("code").startswith("code-")
    assert sent == {"session": "abc", "state": "client-state", "iss": f"{PUBLIC}/guarded"}
    assert (landed.headers["Referrer-Policy"], landed.headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert query_of(path)["state"] not in landed.location
    assert app.test_client().get(path).status_code == 400, "a state counts once"


def test_the_old_callback_answers_the_same(client: As, app: Flask, add: Callable[..., str]) -> None:
    add()
    path = came_back(authorize(client("ada")).location)
    assert app.test_client().get(path.replace("/oauth/callback", "/callback")).status_code == 302


def test_oau_83_an_error_goes_to_the_client_with_its_own_state(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    state = departed(client("ada"))["state"]
    asked = {"error": "access_denied", "error_description": "No <b>way</b>", "state": state}
    landed = app.test_client().get("/oauth/callback", query_string=asked)
    assert (landed.status_code, landed.location.split("?")[0]) == (302, BACK)
    assert query_of(landed.location) == {
        "error": "access_denied", "error_description": "No <b>way</b>", "state": "client-state",
        "iss": f"{PUBLIC}/guarded",
    }  # fmt: skip
    assert state not in landed.location


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            {"error": "access_denied", "error_description": "<script>no"},
            ("access_denied", "&lt;script&gt;no"),
        ),  # OAU-81
        ({"error": "server_error", "state": "x" * 43}, ("server_error",)),  # OAU-85
        ({}, ("invalid_request", "code", "state")),  # OAU-86
        ({"code": "abc"}, ("invalid_request", "state")),
        ({"code": "abc", "state": "y" * 43}, ()),
        ({"code": "abc", "state": ""}, ("state",)),
    ],
)
def test_oau_53_81_85_86_what_belongs_to_no_flow_gets_a_page(
    app: Flask, query: dict[str, str], said: tuple[str, ...]
) -> None:
    for path in ("/callback", "/oauth/callback"):
        answer = app.test_client().get(path, query_string=query)
        assert (answer.status_code, answer.mimetype) == (400, "text/html")
        assert all(text in answer.get_data(as_text=True) for text in said)
        assert "Location" not in answer.headers
        assert "<script>no" not in answer.get_data(as_text=True)


def test_a_persons_flow_ends_in_their_browser_only(signed_in: SignedIn, app: Flask, add: Callable[..., str]) -> None:
    """R-OAUTH-17, -18, -30: the cookie, and the person who allowed it."""
    add()
    ada, vera = signed_in("ada"), signed_in("vera")
    path = came_back(onward(decided(ada._client, authorize(ada).location)))
    assert app.test_client().get(path).status_code == 400
    assert vera.get(path).status_code == 400
    cookie = ada._client.get_cookie("portal-oauth")
    assert cookie is not None
    vera._client.set_cookie("portal-oauth", cookie.value)
    assert vera.get(path).status_code == 400, "she has the cookie, but is not who allowed it"
    assert ada.get(path).status_code == 400, "and that attempt used it up"


@pytest.mark.parametrize(
    ("sent", "promised", "status"),
    [("right", True, 302), (None, False, 302), (None, True, 400), ("https://evil.example", False, 400)],
)
def test_r_oauth_21_the_issuer_in_the_answer_is_checked(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer, sent: str | None, promised: bool,
    status: int,
) -> None:  # fmt: skip
    assert recording_as.metadata is not None
    recording_as.metadata["authorization_response_iss_parameter_supported"] = promised
    recording_as.response_iss = recording_as.issuer if sent == "right" else sent
    add(authorization_url=None, token_url=None)
    landed = app.test_client().get(came_back(authorize(client("ada")).location))
    assert landed.status_code == status
    assert ("Location" in landed.headers) is (status == 302)


# Token


def test_oau_27_the_upstream_gets_the_code_and_the_stored_client(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    code = code_for(client("ada"), app, scope="a")
    recording_as.token_fields = {"id_token": "e30.e30.x", "scope": "a", "secret_of_theirs": "SECRET"}
    answer = redeem(client("ada"), code, client_secret="SECRET-of-the-caller")
    assert answer.status_code == 200
    assert answer.get_json() == {
        "access_token": "at-1", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt-1", "scope": "a",
    }  # fmt: skip
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    asked = recording_as.last("token").form
    assert asked.items() >= {
        "grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK,
        "client_id": "stored-id", "client_secret": "SECRET-stored", "resource": recording_as.url,
    }.items()  # fmt: skip
    assert "authorization" not in recording_as.last("token").headers


def test_a_code_is_good_once_and_only_for_who_asked_for_it(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    """R-OAUTH-11, -12, -14, -15."""
    add()
    code = code_for(client("ada"), app)
    for asking, changed in (
        (client("ada"), {"client_id": "another"}),
        (client("ada"), {"redirect_uri": "http://localhost:3000/other"}),
        (client("ada"), {"code_verifier": "w" * 64}),
        (client("vera"), {}),
        (client("ada"), {"code": "never-issued"}),
    ):
        answer = redeem(asking, **{"code": code, **changed})
        assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_grant"), changed
    assert recording_as.seen("token") == []
    assert redeem(client("ada"), code).status_code == 200
    assert redeem(client("ada"), code).get_json()["error"] == "invalid_grant"
    assert len(recording_as.seen("token")) == 1


def test_a_code_is_worth_nothing_for_another_server(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    add("second")
    code = code_for(client("ada"), app)
    answer = redeem(client("ada"), code, "/v1/mcp/server/oauth/id-second")
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_grant")


def test_oau_29_a_refresh_is_forwarded(client: As, add: Callable[..., str], recording_as: RecordingServer) -> None:
    add()
    form = {"grant_type": "refresh_token", "refresh_token": "rt-old", "scope": "a"}
    answer = client("ada").ask("POST", f"{BASE}/token", data=form)
    assert answer.status_code == 200
    assert (answer.get_json()["access_token"], answer.get_json()["refresh_token"]) == ("at-1", "rt-1")
    assert recording_as.last("token").form.items() >= {**form, "client_id": "stored-id"}.items()
    assert recording_as.last("token").form["resource"] == recording_as.url


@pytest.mark.parametrize(
    ("form", "error", "said"),
    [
        ({"grant_type": "authorization_code"}, "invalid_request", "code is required"),
        ({"grant_type": "refresh_token"}, "invalid_request", "refresh_token is required"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type", "Unsupported"),
        ({"grant_type": "password", "username": "a"}, "unsupported_grant_type", "Unsupported"),
        ({"grant_type": "authorization_code", "code": "x"}, "invalid_request", "code_verifier"),
    ],
)
def test_oau_30_what_is_missing_is_named(
    client: As, add: Callable[..., str], form: dict[str, str], error: str, said: str
) -> None:
    add()
    answer = client("ada").ask("POST", f"{BASE}/token", data=form)
    assert (answer.status_code, answer.get_json()["error"]) == (400, error)
    assert said in answer.get_json()["error_description"]
    assert "detail" not in answer.get_json()
    assert answer.headers["Cache-Control"] == "no-store"


def test_oau_32_no_expiry_is_invented(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    recording_as.token_fields = {"expires_in": None, "refresh_token": None, "token_type": "DPoP"}
    answer = redeem(client("ada"), code_for(client("ada"), app)).get_json()
    assert answer == {"access_token": "at-1", "token_type": "DPoP"}


@pytest.mark.parametrize(
    ("told", "status", "error"),
    [
        (Answer(400, json={"error": "invalid_grant"}), 400, "invalid_grant"),
        (Answer(400, json={"error": "invalid_scope"}), 400, "invalid_scope"),
        (Answer(401, json={"error": "invalid_client", "error_description": "SECRET-stored"}), 502, "upstream_failed"),
        (Answer(500, body=b"SECRET"), 502, "upstream_failed"),
        (Answer.html(), 502, "upstream_failed"),
        (Answer.garbage(), 502, "upstream_failed"),
        (Answer.oversized(), 502, "upstream_failed"),
        (Answer.redirect("http://127.0.0.1:9/"), 502, "upstream_failed"),
        (Answer(json={"token_type": "Bearer"}), 502, "upstream_failed"),
        (Answer(json={"access_token": "a b\r\nX-Evil: 1"}), 502, "upstream_failed"),
    ],
)
def test_oau_34_what_upstreams_answer_instead_of_a_token(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer, told: Answer, status: int,
    error: str,
) -> None:  # fmt: skip
    add()
    code = code_for(client("ada"), app)
    recording_as.answer("token", told)
    answer = redeem(client("ada"), code)
    assert (answer.status_code, answer.get_json()["error"]) == (status, error)
    assert "SECRET" not in answer.get_data(as_text=True)


def test_oau_34_nobody_listens_at_the_token_url(client: As, app: Flask, add: Callable[..., str]) -> None:
    add(token_url="http://127.0.0.1:9/token")
    code = code_for(client("ada"), app)
    assert redeem(client("ada"), code).status_code == 502


def test_the_servers_rules_are_held_before_anything_is_stored(
    client: As, app: Flask, write: Write, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add(token_validation={"team.id": "T1"})
    recording_as.token_fields = {"team": {"id": "T2"}}
    answer = redeem(client("ada"), code_for(client("ada"), app))
    body = answer.get_json()
    assert (answer.status_code, body["error"], body["field"]) == (403, "token_validation_failed", "team.id")
    assert "at-" not in answer.get_data(as_text=True)
    with write() as session:
        assert session.scalar(select(UserCredential)) is None
    recording_as.token_fields = {"team": {"id": "T1"}}
    assert redeem(client("ada"), code_for(client("ada"), app)).status_code == 200


def test_oau_35_the_token_is_stored_for_the_person_but_the_refresh_token_stays_with_the_client(
    client: As, app: Flask, write: Write, add: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add()
    assert redeem(client("ada"), code_for(client("ada"), app)).status_code == 200
    status = client("ada").get("/v1/mcp/server/id-guarded/oauth-user-credential/status").get_json()
    assert (status["has_credential"], status["is_expired"]) == (True, False)
    with write() as session:
        held = session.get(UserCredential, ("ada", "id-guarded", "oauth2"))
        assert held is not None
        assert not held.renewable


def test_oau_35_a_persons_own_connection_is_not_replaced_by_what_an_app_got(
    client: As, app: Flask, write: Write, add: Callable[..., str]
) -> None:
    add()
    own = {"access_token": "own", "refresh_token": "own-refresh", "expires_in": 3600}
    assert client("ada").post("/v1/mcp/server/id-guarded/oauth-user-credential", own).status_code == 200
    assert redeem(client("ada"), code_for(client("ada"), app)).status_code == 200
    with write() as session:
        held = session.get(UserCredential, ("ada", "id-guarded", "oauth2"))
        assert held is not None
        assert held.renewable


def test_a_server_that_changed_meanwhile_gets_no_old_code(
    client: As, app: Flask, write: Write, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    code = code_for(client("ada"), app)
    with write() as session:
        servers.delete_server(session, OPERATOR, "id-guarded")
    add()
    assert redeem(client("ada"), code).get_json()["error"] == "invalid_grant"
    assert recording_as.seen("token") == []
