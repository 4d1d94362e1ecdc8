"""A key brought in the flow of an MCP client (behaviours BYK-12 to 27, CKY-05), with a client of
our own making."""

import base64
import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from portal.services.secrets.user_values import opened_key
from portal.store.models import ApiKey, AuditEvent, Server, UserCredential, now
from portal.store.oauth_tables import OAuthFlow
from tests.conftest import NOTES, Client, Write
from tests.support.browsing import text_of
from tests.support.factories import PASSWORD, make_server
from tests.support.html import filled, parse

As = Callable[[str | None], Client]
PUBLIC = "http://127.0.0.1:8000"
BACK = "http://127.0.0.1:3030/callback"
VERIFIER = "a-verifier-of-forty-three-characters-or-more-0"
KEY = "SECRET-key-of-mel"
OWN = "id-own"


def challenge(verifier: str = VERIFIER) -> str:
    return (
        base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    )


def request(**changes: str | None) -> str:
    """An authorization request, with changes; None leaves a parameter out."""
    query = {
        "response_type": "code",
        "redirect_uri": BACK,
        "code_challenge": challenge(),
        "code_challenge_method": "S256",
        "state": "the-state",
        "client_id": "https://claude.example/client.json",
        "server_id": OWN,
    } | changes
    return "/oauth/authorize?" + urlencode(
        {name: value for name, value in query.items() if value is not None}
    )


def form_of(browser: Client, path: str | None = None) -> Any:
    return parse(browser.get(path or request())).find("form", action="/oauth/authorize")


def heading(browser: Client, path: str) -> str:
    page: Any = parse(browser.get(path))
    return str(page.h1.text)


def answer(
    browser: Client, path: str | None = None, decision: str = "allow", **fields: Any
) -> TestResponse:
    """Open the page and press a button."""
    form = form_of(browser, path)
    return browser.ask(
        "POST", "/oauth/authorize", data={**filled(form, **fields), "decision": decision}
    )


def brought_back(response: TestResponse, status: int = 302) -> dict[str, str]:
    assert response.status_code == status, response.get_data(as_text=True)[:500]
    return {
        name: values[0]
        for name, values in parse_qs(urlsplit(response.headers["Location"]).query).items()
    }


def code_for(browser: Client, **changes: str | None) -> str:
    return brought_back(answer(browser, request(**changes), key=KEY))["code"]


def redeem(
    client: Client, the_code: str, *, at: str | None = "/oauth/token", **changes: str | None
) -> TestResponse:
    form = {
        "grant_type": "authorization_code",
        "code": the_code,
        "redirect_uri": BACK,
        "client_id": "https://claude.example/client.json",
        "code_verifier": VERIFIER,
    } | changes
    return client.ask(
        "POST", at or "", data={name: value for name, value in form.items() if value is not None}
    )


@pytest.fixture(autouse=True)
def _own(write: Write) -> None:
    with write() as session:
        make_server(
            session,
            "own",
            is_byok=True,
            auth_type="api_key",
            allow_all_keys=True,
            byok_description=["Read your notes", "Write <b>new</b> ones"],
            byok_api_key_help_url="https://own.example/keys",
        )
        make_server(session, "secluded", is_byok=True, auth_type="api_key")


@pytest.fixture
def mel(signed_in: Callable[[str], Client]) -> Client:
    return signed_in("mel")


@pytest.fixture
def held(write: Write) -> Callable[[str], str | None]:
    """The key of a person for the server, as it would be sent."""

    def look(user_id: str) -> str | None:
        with write() as session:
            row = session.get(Server, OWN)
            assert row is not None
            return opened_key(session, row, user_id)

    return look


def test_byk_12_the_page_says_who_asks_for_what_and_where_it_returns(mel: Client) -> None:
    response = mel.get(request())
    page: Any = parse(response)
    text = page.main.text
    for words in (
        "https://claude.example/client.json",
        "Not verified",
        "Read your notes",
        "Write <b>new</b> ones",
        BACK,
        "mel@example.com",
    ):
        assert words in text
    assert page.find("a", href="https://own.example/keys")
    form = page.find("form", action="/oauth/authorize")
    shown = {name: values[0] for name, values in filled(form).items()}
    assert {
        name: shown[name]
        for name in ("redirect_uri", "state", "code_challenge", "client_id", "server_id")
    } == {
        "redirect_uri": BACK,
        "state": "the-state",
        "code_challenge": challenge(),
        "client_id": "https://claude.example/client.json",
        "server_id": OWN,
    }
    assert [b["value"] for b in form.find_all("button", attrs={"name": "decision"})] == [
        "allow",
        "cancel",
    ]
    key = form.find("input", attrs={"name": "key"})
    assert (key["type"], key["autocomplete"], key.get("value")) == ("password", "off", None)
    policy = response.headers["Content-Security-Policy"]
    assert "form-action 'self' http://127.0.0.1:3030;" in policy, (
        "or Chromium stops the way back (ui.md, O2)"
    )
    assert "frame-ancestors 'none'" in policy
    assert (response.headers["Cache-Control"], response.headers["Referrer-Policy"]) == (
        "no-store",
        "no-referrer",
    )


def test_sign_in_comes_first_and_leads_back_to_the_same_request(app: Any, client: As) -> None:
    stranger = Client(app.test_client(), {})
    away = stranger.get(request())
    assert away.status_code == 303
    form = parse(stranger.get(away.headers["Location"])).find("form", action="/login")
    back = stranger.ask(
        "POST", "/login", data=filled(form, email="mel@example.com", password=PASSWORD)
    )
    assert back.headers["Location"] == request()
    assert heading(stranger, back.headers["Location"]) == "Enter your key for own"


def test_cky_05_and_byk_15_and_19_the_code_is_the_persons_and_stores_their_key(
    mel: Client, client: As, held: Callable[[str], str | None], write: Write
) -> None:
    back = answer(mel, key=f" {KEY} ")
    assert back.headers["Location"].startswith(f"{BACK}?code=")
    found = brought_back(back)
    assert (found["state"], found["iss"]) == ("the-state", f"{PUBLIC}/own")
    assert held("mel") is None, "nothing is stored before the client proves who it is"
    stranger = client(None)
    response = redeem(stranger, found["code"])
    body = response.get_json()
    assert (response.status_code, body["token_type"], body["expires_in"]) == (200, "bearer", 3600)
    assert (response.headers["Cache-Control"], response.headers["Pragma"]) == (
        "no-store",
        "no-cache",
    )
    assert set(body) == {"access_token", "token_type", "expires_in"}
    assert held("mel") == KEY
    assert held("ada") is None
    assert redeem(stranger, found["code"]).get_json()["error"] == "invalid_grant", (
        "a code is used once"
    )
    with write() as session:
        flows = session.scalars(select(OAuthFlow)).all()
        assert {flow.sealed for flow in flows} == {b""}, "nothing sealed is kept afterwards"
        assert KEY not in str([event.details for event in session.scalars(select(AuditEvent))])


def test_the_token_lists_and_calls_the_tools_of_that_server_for_an_hour_and_nothing_else(
    mel: Client, client: As, write: Write
) -> None:
    token = redeem(client(None), code_for(mel)).get_json()["access_token"]
    program = client(token)
    assert program.get("/v1/mcp/tools").status_code == 200
    call = {"server_id": OWN, "name": "add", "arguments": {}}
    assert program.post("/v1/mcp/tools/call", call).status_code == 502, (
        "it is let through; nobody listens there"
    )
    assert program.post("/v1/mcp/tools/call", {**call, "server_id": NOTES}).status_code == 403
    for path in (
        "/v1/mcp/server",
        f"/v1/mcp/server/{OWN}",
        "/v1/me",
        "/v1/mcp/user-env-vars/status",
        "/v1/keys",
    ):
        assert program.get(path).status_code == 403, path
    page = mel.get("/keys").get_data(as_text=True)
    assert "Sign-in of https://claude.example/client.json" in page
    assert token not in page
    with write() as session:
        key = session.scalars(
            select(ApiKey).where(
                ApiKey.key_alias == "Sign-in of https://claude.example/client.json"
            )
        ).one()
        assert key.expires_at is not None
        assert timedelta(minutes=59) < key.expires_at - now() <= timedelta(hours=1)
        assert key.user_id == "mel"
        key.expires_at = now()
    assert program.get("/v1/mcp/tools").status_code == 401


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.2:4040/",
        "http://[::1]:5050/cb",
        "http://[0:0:0:0:0:0:0:1]:5050/cb",
        "http://localhost:6/x?a=b",
    ],
)
def test_byk_15_every_form_of_loopback(mel: Client, client: As, uri: str) -> None:
    response = answer(mel, request(redirect_uri=uri), key=KEY)
    found = brought_back(response)
    assert response.headers["Location"].startswith(uri)
    policy = mel.get(request(redirect_uri=uri)).headers["Content-Security-Policy"]
    target = "http:" if "[" in uri else "{0.scheme}://{0.netloc}".format(urlsplit(uri))
    assert f"form-action 'self' {target};" in policy
    assert redeem(client(None), found["code"], redirect_uri=uri).status_code == 200


def test_cancel_tells_the_client_and_stores_nothing(mel: Client, write: Write) -> None:
    found = brought_back(answer(mel, decision="cancel", key=KEY))
    assert found == {"error": "access_denied", "state": "the-state", "iss": f"{PUBLIC}/own"}
    with write() as session:
        assert session.query(UserCredential).count() == 0


def test_a_key_that_cannot_be_sent_is_refused_on_its_field_and_can_be_mended(
    mel: Client, client: As
) -> None:
    form = form_of(mel)
    for wrong in ("", "   ", "SECRET\nwith a line", "x" * 8_193):
        again = mel.ask(
            "POST", "/oauth/authorize", data={**filled(form, key=wrong), "decision": "allow"}
        )
        page: Any = parse(again, 422)
        assert page.find(attrs={"data-error-summary": True})
        assert page.find("input", attrs={"name": "key"})["aria-invalid"] == "true"
        assert (
            "form-action 'self' http://127.0.0.1:3030" in again.headers["Content-Security-Policy"]
        )
    mended = mel.ask(
        "POST", "/oauth/authorize", data={**filled(form, key=KEY), "decision": "allow"}
    )
    assert redeem(client(None), brought_back(mended)["code"]).status_code == 200


def test_who_has_stored_a_key_need_not_type_it_again(
    mel: Client, client: As, held: Callable[[str], str | None]
) -> None:
    client("mel").post(f"/v1/mcp/server/{OWN}/user-credential", {"credential": KEY})
    assert "Leave this field empty to keep it." in text_of(parse(mel.get(request())))
    found = brought_back(answer(mel, key=""))
    assert redeem(client(None), found["code"]).status_code == 200
    assert held("mel") == KEY


def test_only_the_sealed_parameters_count(mel: Client, client: As) -> None:
    """What stands in the page beside the ticket may be changed by whoever: it is not read."""
    changed = {
        "redirect_uri": "https://evil.example/",
        "code_challenge": challenge("x" * 43),
        "server_id": "id-notes",
        "state": "other",
        "client_id": "other",
        "key": KEY,
    }
    response = answer(mel, **changed)
    assert response.headers["Location"].startswith(f"{BACK}?")
    assert brought_back(response)["state"] == "the-state"
    assert redeem(client(None), brought_back(response)["code"]).status_code == 200


def test_the_answer_needs_the_token_of_the_form_the_browser_and_the_person(
    mel: Client, signed_in: Callable[[str], Client]
) -> None:
    form = filled(form_of(mel), key=KEY)
    sent = {**form, "decision": "allow"}
    assert (
        mel.ask("POST", "/oauth/authorize", data={**sent, "csrf_token": "forged"}).status_code
        == 400
    )
    for other in ("otto", "mel"):
        stranger = signed_in(other)
        own = stranger.with_csrf()
        assert own.ask("POST", "/oauth/authorize", data=sent).status_code == 400, "another browser"
    assert mel.ask("POST", "/oauth/authorize", data=sent).status_code == 302
    assert mel.ask("POST", "/oauth/authorize", data=sent).status_code == 400, (
        "a question is answered once"
    )


def test_litellms_addresses_work_too(mel: Client, client: As) -> None:
    path = request()
    old = client(None).get("/v1/mcp" + path)
    assert (old.status_code, old.headers["Location"]) == (302, path)
    code = code_for(mel)
    assert redeem(client(None), code, at="/v1/mcp/oauth/token").status_code == 200


def test_a_resource_names_the_server(
    mel: Client, client: As, held: Callable[[str], str | None]
) -> None:
    """A client that found the metadata by itself knows the server's endpoint (RFC 8707), and not
    our ids: it signs in to the gateway, with the key as a step on the way."""
    at = mel.get(request(server_id=None, resource=f"{PUBLIC}/own/mcp"))
    assert at.status_code == 303
    path = at.headers["Location"]
    page: Any = parse(mel.get(path))
    assert page.h1.text == "Allow this app to use own?"
    assert "Read your notes" in page.main.text
    sent = {**filled(page.find("form", action=path), key=KEY), "decision": "allow"}
    found = brought_back(mel.ask("POST", path, data=sent), 303)
    assert found["iss"] == PUBLIC
    assert held("mel") == KEY
    given = redeem(client(None), found["code"]).get_json()
    assert (given["token_type"], given["expires_in"]) == ("Bearer", 3600)


def test_byk_27_the_metadata_name_both_endpoints_and_s256(mel: Client, client: As) -> None:
    document = client(None).get("/.well-known/oauth-authorization-server/own").get_json()
    assert document["authorization_endpoint"] == f"{PUBLIC}/own/authorize"
    assert document["token_endpoint"] == f"{PUBLIC}/own/token"
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert brought_back(answer(mel, key=KEY))["iss"] == document["issuer"]


def test_byk_25_and_27_a_refused_call_leads_a_client_to_the_page_by_metadata_alone(
    mel: Client, client: As
) -> None:
    """401, resource metadata, authorization server metadata, authorize, token: as RFC 9728 and 8414
    chain them."""
    call = {"server_id": OWN, "name": "add", "arguments": {}}
    refused = client("mel").post("/v1/mcp/tools/call", call)
    assert (refused.status_code, refused.get_json()["detail"]["error"]) == (
        401,
        "byok_auth_required",
    )
    told = refused.headers["WWW-Authenticate"].partition('resource_metadata="')[2].rstrip('"')
    resource = client(None).get(told.removeprefix(PUBLIC)).get_json()
    assert len(resource["authorization_servers"]) == 1
    issuer = resource["authorization_servers"][0]
    where = f"/.well-known/oauth-authorization-server{issuer.removeprefix(PUBLIC)}"
    document = client(None).get(where).get_json()
    assert document["issuer"] == issuer
    path = request(server_id=None, resource=resource["resource"]).replace(
        "/oauth/authorize", document["authorization_endpoint"].removeprefix(PUBLIC)
    )
    path = mel.get(path).headers["Location"]
    form = parse(mel.get(path)).find("form", action=path)
    sent = {**filled(form, key=KEY), "decision": "allow"}
    found = brought_back(mel.ask("POST", path, data=sent), 303)
    assert found["iss"] == document["issuer"]
    at = document["token_endpoint"].removeprefix(PUBLIC)
    assert redeem(client(None), found["code"], at=at).status_code == 200
    assert client("mel").post("/v1/mcp/tools/call", call).status_code == 502, (
        "it goes through; nobody listens there"
    )


def test_ada_sees_no_more_of_it_than_others(signed_in: Callable[[str], Client]) -> None:
    found = heading(signed_in("ada"), request(server_id="id-secluded"))
    assert found == "Enter your key for secluded", "an Admin may use every server"
