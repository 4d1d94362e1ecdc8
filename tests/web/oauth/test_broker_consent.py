"""The broker for MCP clients: the consent page, and the way back to the client (security.md,
2.6)."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.services import instance_settings
from portal.services.access import keys, teams, users
from portal.store.models import AuditEvent, UserCredential
from portal.store.oauth_tables import Consent, OAuthFlow
from tests.conftest import CREW, Client, Write
from tests.support.factories import PASSWORD, make_key
from tests.support.html import parse
from tests.support.oauth.asking import (
    ASKED,
    BACK,
    BASE,
    PUBLIC,
    STORED,
    asked_on,
    authorize,
    browser_of,
    came_back,
    decided,
    departed,
    landed_in,
    onward,
    query_of,
    redeem,
)
from tests.support.oauth.recording import RecordingServer
from tests.support.security.callers import token_in

As = Callable[[str | None], Client]
SignedIn = Callable[[str], Client]


# The consent page


def test_the_consent_page_says_who_asks_and_where_it_leads(
    signed_in: SignedIn, client: As, add: Callable[..., str]
) -> None:
    add(credentials={**STORED, "scopes": ["read:all"]})
    made = client(None).post(
        "/guarded/register", {"client_name": "Ev\u202eil  \x07App", "redirect_uris": [BACK]}
    )
    ada = signed_in("ada")
    answer = authorize(ada, client_id=made.get_json()["client_id"])
    page = asked_on(ada._client, answer.location)
    text = parse(page).get_text(" ", strip=True)
    for said in (
        "Ev il App",
        "Not verified",
        "localhost:3000",
        BACK,
        "read:all",
        "ada@example.com",
        "guarded",
    ):
        assert said in text, said
    assert "Continue only if you started this" in text
    assert "stored-id" not in page.get_data(as_text=True)
    assert "form-action 'self' http://localhost:3000;" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


def test_consent_is_given_once_in_that_browser_by_that_person_with_a_token(
    signed_in: SignedIn, app: Flask, add: Callable[..., str]
) -> None:
    add()
    ada = signed_in("ada")
    vera = signed_in("vera")
    where = authorize(ada).location
    token = token_in(asked_on(ada._client, where))
    assert ada.ask("POST", where, data={"decision": "allow"}).status_code == 400
    assert vera.get(where).status_code == 400
    assert app.test_client().get(where).status_code == 400
    cookie = ada._client.get_cookie("portal-oauth")
    assert cookie is not None
    vera._client.set_cookie("portal-oauth", cookie.value)
    assert vera.get(where).status_code == 400
    assert (
        ada.ask("POST", where, data={"decision": "allow", "csrf_token": token}).status_code == 200
    )
    assert (
        ada.ask("POST", where, data={"decision": "allow", "csrf_token": token}).status_code == 400
    )
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
    assert (sent["error"], sent["state"], sent["iss"]) == (
        "access_denied",
        "client-state",
        f"{PUBLIC}/guarded",
    )
    with write() as session:
        assert session.scalar(select(OAuthFlow).where(OAuthFlow.kind == "broker")) is None
        assert session.scalar(select(Consent)) is None
        assert (
            session.scalar(select(AuditEvent).where(AuditEvent.action == "app not allowed"))
            is not None
        )


def test_a_consent_is_remembered_for_just_that_and_never_for_clients_that_registered_themselves(
    signed_in: SignedIn, client: As, write: Write, add: Callable[..., str]
) -> None:
    add()
    far = "https://app.example.com/cb"
    with write() as session:
        instance_settings.update_preferences(
            session, OPERATOR, {"trusted_redirect_origins": ["app.example.com"]}
        )
    ada = signed_in("ada")
    own = {"Sec-Fetch-Site": "none"}

    def led_to_consent(headers: dict[str, str] = own, **changed: str) -> bool:
        answer = ada.get(
            f"{BASE}/authorize",
            query_string={**ASKED, "redirect_uri": far, **changed},
            headers=headers,
        )
        return bool(answer.location.startswith("/oauth/consent/"))

    assert led_to_consent()
    decided(ada._client, authorize(ada, redirect_uri=far).location)
    assert not led_to_consent()
    assert led_to_consent({})
    assert led_to_consent({"Sec-Fetch-Site": "cross-site"})
    assert led_to_consent(scope="more")
    assert led_to_consent(client_id="https://another.example/client.json")
    assert led_to_consent(redirect_uri="https://app.example.com/other")
    decided(ada._client, authorize(ada).location)
    assert led_to_consent(redirect_uri=BACK), (
        "on the person's own computer anything can claim to be the app"
    )
    made = client(None).post("/guarded/register", {"redirect_uris": [far]}).get_json()["client_id"]
    decided(ada._client, authorize(ada, redirect_uri=far, client_id=made).location)
    assert led_to_consent(client_id=made)
    profile = ada.get("/profile")
    assert "app.example.com" in profile.get_data(as_text=True)


def test_a_consent_is_taken_back_on_the_profile(
    signed_in: SignedIn, write: Write, add: Callable[..., str]
) -> None:
    add()
    ada = signed_in("ada")
    vera = signed_in("vera")
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
        assert (
            session.scalar(select(AuditEvent).where(AuditEvent.action == "app removed")) is not None
        )


# The way back


def test_oau_50_51_the_code_goes_to_the_client_with_its_own_state_and_query(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    answer = authorize(client("ada"), redirect_uri=f"{BACK}?session=abc")
    path = came_back(answer.location)
    browser = browser_of(client("ada"))
    landed = landed_in(browser, path)
    assert landed.status_code == 303
    sent = query_of(landed.location)
    assert landed.location.startswith(f"{BACK}?session=abc&")
    assert sent.pop("code").startswith("code-")
    assert sent == {"session": "abc", "state": "client-state", "iss": f"{PUBLIC}/guarded"}
    assert landed.headers["Referrer-Policy"] == "no-referrer"
    assert query_of(path)["state"] not in landed.location
    assert app.test_client().get(path).status_code == 400, "a state counts once"


def test_the_old_callback_answers_the_same(client: As, add: Callable[..., str]) -> None:
    add()
    path = came_back(authorize(client("ada")).location)
    assert (
        landed_in(
            browser_of(client("ada")), path.replace("/oauth/callback", "/callback")
        ).status_code
        == 303
    )


def test_oau_83_an_error_goes_to_the_client_with_its_own_state(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    state = departed(client("ada"))["state"]
    asked = {"error": "access_denied", "error_description": "No <b>way</b>", "state": state}
    landed = app.test_client().get("/oauth/callback", query_string=asked)
    assert (landed.status_code, landed.location.split("?")[0]) == (302, BACK)
    assert query_of(landed.location) == {
        "error": "access_denied",
        "error_description": "No <b>way</b>",
        "state": "client-state",
        "iss": f"{PUBLIC}/guarded",
    }
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


def test_a_persons_flow_ends_in_their_browser_only(
    signed_in: SignedIn, app: Flask, add: Callable[..., str]
) -> None:
    """R-OAUTH-17, -18, -30: the cookie, and the person who allowed it."""
    add()
    ada = signed_in("ada")
    vera = signed_in("vera")
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
    [
        ("right", True, 302),
        (None, False, 302),
        (None, True, 400),
        ("https://evil.example", False, 400),
    ],
)
def test_r_oauth_21_the_issuer_in_the_answer_is_checked(
    client: As,
    app: Flask,
    add: Callable[..., str],
    recording_as: RecordingServer,
    sent: str | None,
    promised: bool,
    status: int,
) -> None:
    assert recording_as.metadata is not None
    recording_as.metadata["authorization_response_iss_parameter_supported"] = promised
    recording_as.response_iss = recording_as.issuer if sent == "right" else sent
    add(authorization_url=None, token_url=None)
    landed = app.test_client().get(came_back(authorize(client("ada")).location))
    assert landed.status_code == status
    assert ("Location" in landed.headers) is (status == 302)
    assert "code=" not in landed.headers.get("Location", "")


# Begun with an API key


def test_what_began_with_a_key_goes_on_only_once_its_owner_agreed_in_their_browser(
    client: As,
    signed_in: SignedIn,
    app: Flask,
    write: Write,
    add: Callable[..., str],
    recording_as: RecordingServer,
) -> None:
    """The attack: somebody begins with their own key and sends the link to another person, who
    signs in upstream."""
    add(allow_all_keys=True)
    path = came_back(authorize(client("mel")).location)  # the victim signed in at the provider
    ada = signed_in("ada")._client
    where = ada.get(path).location
    assert where.startswith("/oauth/consent/")
    for answer in (
        ada.get(where),
        ada.post(where, data={"decision": "allow", "csrf_token": _token_of(ada)}),
    ):
        assert answer.status_code == 403
        said = parse(answer, 403).get_text(" ", strip=True)
        for words in ("another user", "ada@example.com", "sign out", "close this page"):
            assert words in said, words
        assert "mel" not in said.lower()
    assert signed_in("mel").get(where).status_code == 400, (
        "the owner in another browser, with the victim's link"
    )
    with write() as session:
        assert session.scalar(select(OAuthFlow).where(OAuthFlow.kind == "broker_code")) is None
        assert session.scalar(select(UserCredential)) is None
    assert recording_as.seen("token") == []


def test_nobody_signed_in_signs_in_first_and_comes_back_to_the_question(
    client: As, app: Flask, add: Callable[..., str]
) -> None:
    add(allow_all_keys=True)
    browser = app.test_client()
    where = browser.get(came_back(authorize(client("mel")).location)).location
    asked = browser.get(where)
    assert (asked.status_code, query_of(asked.location)) == (303, {"next": where})
    fields = {
        "email": "mel@example.com",
        "password": PASSWORD,
        "csrf_token": token_in(browser.get(asked.location)),
    }
    back = browser.post(asked.location, data=fields)
    assert (back.status_code, back.location) == (303, where)
    page = parse(asked_on(browser, where)).get_text(" ", strip=True)
    for words in ("client.example", "guarded", "mel@example.com", "one of your API keys"):
        assert words in page, words
    landed = decided(browser, where)
    assert redeem(client("mel"), query_of(landed.location)["code"]).status_code == 200


def test_what_began_with_a_key_is_refused_as_any_other(client: As, add: Callable[..., str]) -> None:
    add()
    landed = landed_in(
        browser_of(client("ada")), came_back(authorize(client("ada")).location), "deny"
    )
    sent = query_of(landed.location)
    assert (landed.status_code, sent["error"], sent["state"]) == (
        303,
        "access_denied",
        "client-state",
    )


@pytest.mark.parametrize("ended", ["revoked", "left", "deactivated"])
def test_what_began_with_a_key_ends_with_the_key(
    client: As, write: Write, add: Callable[..., str], ended: str
) -> None:
    add(allow_all_keys=True)
    browser = browser_of(client("mel"))
    asking = client("mel")
    key_id = asking.get("/v1/me").get_json()["key"]["key_id"]
    where = browser.get(came_back(authorize(asking).location)).location
    token = token_in(asked_on(browser, where))
    with write() as session:
        if ended == "revoked":
            keys.revoke_key(session, OPERATOR, key_id)
        elif ended == "left":
            teams.remove_member(session, OPERATOR, CREW, "mel")
        else:
            users.change_user(session, OPERATOR, "mel", {"is_active": False}, None)
    answer = browser.post(where, data={"decision": "allow", "csrf_token": token})
    assert answer.status_code == 400
    assert "code=" not in answer.headers.get("Location", "")
    with write() as session:
        assert session.scalar(select(OAuthFlow).where(OAuthFlow.kind == "broker_code")) is None


def test_a_key_of_nobody_begins_no_sign_in(
    client: As, write: Write, add: Callable[..., str]
) -> None:
    add(allow_all_keys=True)
    with write() as session:
        nobodys = make_key(session, team_id=CREW)
    answer = authorize(client(nobodys))
    detail = answer.get_json()["detail"]
    assert (answer.status_code, detail["error"]) == (400, "no_person")
    assert "has no owner" in detail["message"]


def _token_of(browser: FlaskClient) -> str:
    return token_in(browser.get("/profile"))
