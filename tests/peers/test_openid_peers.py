"""The OpenID peers do what they say: they are only worth something as witnesses when they are
themselves tried."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from playwright.sync_api import Page

from tests.support.oauth.browsing import HttpBrowser
from tests.support.oauth.forging import ID_TOKEN_FAULTS, ForgingProvider
from tests.support.oauth_peers import OidcProvider

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


def sign_in(
    provider: Identity, login: str | None = None, browser: HttpBrowser | None = None
) -> dict[str, Any]:
    """Sign in as a relying party does with Authlib; return the token answer."""
    session = session_for(provider)
    document = discover(provider)
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
    """Return the claims of an id_token; raises JoseError where it is not what this provider should
    have signed."""
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


def test_the_openid_provider_signs_in_by_its_form(
    oidc_provider: Callable[..., OidcProvider],
) -> None:
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
    provider.set_account(
        "bob", email="robert@example.com", groups=["mcp-admins"], department="sales", sub="b-1"
    )
    claims = verified(provider, sign_in(provider)["id_token"])
    assert (claims["sub"], claims["groups"], claims["department"]) == (
        "b-1",
        ["mcp-admins"],
        "sales",
    )


def test_the_openid_provider_refuses_strangers_replays_and_missing_verifiers(
    oidc_provider: Callable[..., OidcProvider],
) -> None:
    provider = oidc_provider(redirect_uris=[PORTAL])
    document = discover(provider)
    browser = HttpBrowser()
    session = session_for(provider)
    url, _ = session.create_authorization_url(
        document["authorization_endpoint"], code_verifier=VERIFIER
    )
    form = browser.visit(url, until=PORTAL)
    assert (
        "No account mallory" in browser.submit(form, "Sign in", until=PORTAL, login="mallory").text
    )
    back = browser.submit(form, "Sign in", until=PORTAL, login="eve").query
    exchange = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": PORTAL}
    secret = (provider.client_id, provider.client_secret)
    answers = [
        httpx2.post(document["token_endpoint"], data=exchange | verifier, auth=secret)
        for verifier in ({}, {"code_verifier": VERIFIER}, {"code_verifier": VERIFIER})
    ]
    assert [answer.status_code for answer in answers] == [400, 200, 400]
    without = session.create_authorization_url(document["authorization_endpoint"])[0]
    assert browser.visit(without, until=PORTAL).query["error"] == "invalid_request", (
        "PKCE is required"
    )


def test_a_person_can_cancel_at_the_openid_provider(
    oidc_provider: Callable[..., OidcProvider],
) -> None:
    provider = oidc_provider(redirect_uris=[PORTAL])
    browser = HttpBrowser()
    url, _ = session_for(provider).create_authorization_url(
        discover(provider)["authorization_endpoint"], code_verifier=VERIFIER
    )
    assert (
        browser.submit(browser.visit(url), "Cancel", until=PORTAL).query["error"] == "access_denied"
    )


def test_the_openid_provider_signs_out_on_request(
    oidc_provider: Callable[..., OidcProvider],
) -> None:
    bye = "http://127.0.0.1:4000/login"
    provider = oidc_provider(
        redirect_uris=[PORTAL], post_logout_redirect_uris=[bye], host="localhost"
    )
    browser = HttpBrowser()
    id_token = sign_in(provider, "ada", browser)["id_token"]
    assert sign_in(provider, browser=browser), "still signed in there, nobody is asked"
    ending = discover(provider)["end_session_endpoint"]
    leaving = f"{ending}?id_token_hint={id_token}&post_logout_redirect_uri={bye}"
    page = browser.submit(browser.visit(leaving), "Sign out", until=bye)
    assert page.url == bye
    assert sign_in(provider, "ada", browser), "the form is back"


def test_a_short_lived_id_token_and_no_sign_out_as_asked(
    oidc_provider: Callable[..., OidcProvider],
) -> None:
    provider = oidc_provider(
        redirect_uris=[PORTAL],
        login="ada",
        id_token_seconds=5,
        end_session=False,
        claims_in_id_token=False,
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
    provider = oidc_provider(redirect_uris=[PORTAL])
    page = browser_page_factory()
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
def test_a_forged_redirect(
    forging_provider: ForgingProvider, fault: str, name: str, value: str | None
) -> None:
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
    assert (
        httpx2.post(f"{forging_provider.issuer}/token")
        .headers["content-type"]
        .startswith("text/html")
    )
    forging_provider.fault = "id_token_missing"
    assert "id_token" not in sign_in(forging_provider)
