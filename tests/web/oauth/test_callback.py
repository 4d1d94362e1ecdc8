"""What a provider may send back, honest or not, and what of it the portal takes. The provider
records and obeys."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from portal.store.database import Database
from portal.store.models import UserCredential
from portal.store.oauth_tables import ServerAuthorization
from tests.conftest import Client, Write
from tests.support.browsing import text_of
from tests.support.connecting import at_provider, come_back, connect, depart
from tests.support.factories import make_server
from tests.support.html import filled, parse
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth.serving import Answer

SignedIn = Callable[[str], Client]
As = Callable[[str | None], Client]
SENDS_ISS = "authorization_response_iss_parameter_supported"


def discovered(write: Write, upstream: RecordingServer, **fields: Any) -> str:
    """A server that says itself where to sign in."""
    with write() as session:
        return make_server(
            session, "rec", url=upstream.url, auth_type="oauth2", allow_all_keys=True, **fields
        )


def id_token(**claims: Any) -> str:
    """An id_token that nobody signed; it is only read to show an account."""
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def test_what_is_sent_out_and_in(
    signed_in: SignedIn, write: Write, recording_as: RecordingServer
) -> None:
    """R-OAUTH-19, R-OAUTH-20: our own PKCE S256, state, resource in both requests, our one redirect
    URI."""
    assert recording_as.resource_metadata is not None
    recording_as.resource_metadata["scopes_supported"] = ["read", "write"]
    server_id = discovered(write, recording_as)
    connect(signed_in("mel"), server_id)
    out = recording_as.last("authorize").query
    code = recording_as.last("token").form
    assert out["response_type"] == "code"
    assert out["redirect_uri"] == code["redirect_uri"] == "http://127.0.0.1:8000/oauth/callback"
    assert out["resource"] == code["resource"] == recording_as.url
    assert out["scope"] == "read write"
    assert out["code_challenge_method"] == "S256"
    digest = hashlib.sha256(code["code_verifier"].encode()).digest()
    assert out["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert len(code["code_verifier"]) >= 43
    assert len(out["state"]) >= 22
    registered = recording_as.last("register").json
    assert registered["redirect_uris"] == ["http://127.0.0.1:8000/oauth/callback"]
    assert registered["application_type"] == "web"


def test_typed_urls_and_a_typed_client_need_no_discovery(
    signed_in: SignedIn, write: Write, recording_as: RecordingServer
) -> None:
    """OAU-03: the query of the typed URL stays; the stored client and its secret are used; scopes
    as configured."""
    recording_as.metadata = recording_as.resource_metadata = recording_as.challenge = None
    server_id = discovered(
        write,
        recording_as,
        authorization_url=f"{recording_as.endpoint('authorize')}?tenant=system",
        token_url=recording_as.endpoint("token"),
        credentials={"client_id": "typed", "client_secret": "SECRET-typed", "scopes": ["a", "b"]},
    )
    address = depart(signed_in("mel"), server_id)
    assert address.count("?") == 1
    query = parse_qs(urlsplit(address).query)
    assert (query["tenant"], query["client_id"], query["scope"]) == (["system"], ["typed"], ["a b"])
    connect(signed_in("mel"), server_id)
    assert recording_as.last("token").form["client_secret"] == "SECRET-typed"
    assert recording_as.seen("register") == []


@pytest.mark.parametrize(
    ("promised", "sent", "state"),
    [
        (True, "own", "Connected to rec"),
        (True, "other", "Response from a different provider"),
        (True, None, "Response from a different provider"),
        (None, "own", "Connected to rec"),
        (None, "other", "Response from a different provider"),
        (None, None, "Connected to rec"),
        (None, "slash", "Response from a different provider"),
    ],
)
@pytest.mark.parametrize("error", [None, "access_denied"])
def test_the_issuer_in_the_answer(
    signed_in: SignedIn,
    write: Write,
    recording_as: RecordingServer,
    promised: bool | None,
    sent: str | None,
    state: str,
    error: str | None,
) -> None:
    """R-OAUTH-21: the four rows of RFC 9207; on a mismatch neither code nor error is looked at."""
    issuers = {
        "own": recording_as.issuer,
        "other": "https://evil.example",
        "slash": f"{recording_as.issuer}/",
    }
    assert recording_as.metadata is not None
    recording_as.metadata |= {SENDS_ISS: promised} if promised is not None else {}
    recording_as.response_iss = issuers[sent] if sent else None
    recording_as.authorize_error = error
    page = connect(signed_in("mel"), discovered(write, recording_as))
    is_taken = state == "Connected to rec"
    assert page.h1.text == ("Access declined" if is_taken and error else state)
    assert len(recording_as.seen("token")) == (1 if is_taken and not error else 0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("access_denied", "Nothing was stored"),
        ("invalid_scope", "correct the server’s scopes"),
        ("redirect_uri_mismatch", "/oauth/callback"),
        ("server_error", "Try again later"),
        ("something_new", "something_new"),
        ("<script>alert(1)</script>", "The provider refused"),
        ("x" * 5000, "The provider refused"),
        ("unauthorized_client", "/oauth/callback"),
    ],
)
def test_an_error_of_the_provider_in_plain_words(
    signed_in: SignedIn, write: Write, recording_as: RecordingServer, error: str, said: str
) -> None:
    recording_as.authorize_error = error
    page = connect(signed_in("mel"), discovered(write, recording_as))
    assert said in page.main.text
    assert "<script>alert" not in str(page)
    assert "Try again" in page.main.text


def test_an_admin_is_led_from_a_failure_to_the_oauth_check(
    signed_in: SignedIn, write: Write, recording_as: RecordingServer
) -> None:
    recording_as.authorize_error = "server_error"
    page = connect(signed_in("ada"), discovered(write, recording_as))
    assert page.find("a", href="/servers/id-rec/oauth-check", string="Check OAuth")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(400, {"error": "invalid_grant"}), "invalid_grant"),
        (Answer(401, {"error": "invalid_client"}), "client ID"),
        (Answer(503), "Connection failed"),
        (Answer.html(), "did not respond"),
        (Answer.garbage(), "did not respond"),
        (Answer.oversized(2), "did not respond"),
        (Answer.redirect("http://127.0.0.1:9/"), "did not respond"),
        (Answer(200, {"access_token": "a b"}), "an invalid token"),
        (Answer(200, {"access_token": ""}), "an invalid token"),
        (Answer(200, {"access_token": "x\r\nX-Evil: 1"}), "an invalid token"),
        (Answer(200, []), "did not respond"),
        (Answer(200, {"access_token": ["x"]}), "an invalid token"),
        (Answer(200, {"error": "SECRET"}), "Connection failed"),
    ],
)
def test_a_code_that_brings_no_token(
    signed_in: SignedIn,
    write: Write,
    recording_as: RecordingServer,
    database: Database,
    answer: Answer,
    said: str,
) -> None:
    """Whatever the token endpoint answers: a page that says what to do, nothing stored, never a
    500."""
    recording_as.answer("token", answer)
    mel = signed_in("mel")
    server_id = discovered(write, recording_as)
    response = come_back(mel, at_provider(depart(mel, server_id)))
    assert response.status_code == 200
    assert said in response.get_data(as_text=True)
    with database.session() as session:
        assert session.query(UserCredential).count() == 0


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        ({"org": "acme"}, None),
        ({"org": "other"}, "org"),
        ({"team.id": "7", "admin": "true"}, None),
        ({"team.id": "8"}, "team.id"),
        ({"nothing": "x"}, "nothing"),
        ({"org": "acme", "admin": False}, "admin"),
    ],
)
def test_token_validation(
    signed_in: SignedIn,
    write: Write,
    recording_as: RecordingServer,
    rules: dict[str, Any],
    rule: str | None,
) -> None:
    """The Admin's rules on the answer: a key, a dotted path, compared as text; the page says which,
    and no value."""
    recording_as.token_fields = {"org": "acme", "team": {"id": 7}, "admin": True}
    page = connect(signed_in("mel"), discovered(write, recording_as, token_validation=rules))
    assert page.h1.text == ("Account not allowed" if rule else "Connected to rec")
    if rule:
        assert page.main.find("code", string=rule)
        assert "acme" not in page.main.text


def test_the_account_is_shown_and_another_one_is_noticed(
    signed_in: SignedIn, write: Write, recording_as: RecordingServer
) -> None:
    server_id = discovered(write, recording_as)
    mel = signed_in("mel")
    recording_as.token_fields = {"id_token": id_token(sub="1", email="mel@corp.example")}
    assert "mel@corp.example" in connect(mel, server_id).main.text
    assert "mel@corp.example" in parse(mel.get(f"/credentials/{server_id}")).main.text
    recording_as.token_fields = {"id_token": id_token(email="other@corp.example")}
    assert "you were connected as mel@corp.example" in connect(mel, server_id).main.text
    for odd in (
        "x.y.z",
        7,
        id_token(email=["x"]),
        id_token(email="a\nb"),
        "a.b",
        id_token(email="x" * 500),
    ):
        recording_as.token_fields = {"id_token": odd}
        assert "Connected" in connect(mel, server_id).h1.text


def test_scopes_that_were_not_given_are_named(
    signed_in: SignedIn, write: Write, recording_as: RecordingServer
) -> None:
    recording_as.token_fields = {"scope": "read"}
    server_id = discovered(
        write, recording_as, credentials={"client_id": "x", "scopes": ["read", "write"]}
    )
    page = connect(signed_in("mel"), server_id)
    assert "did not grant all requested permissions. Missing: write." in text_of(page)


def test_a_server_that_wants_more_rights_at_once_is_not_said_to_work(
    signed_in: SignedIn, write: Write, recording_as: RecordingServer
) -> None:
    """Its refusal is no reason to renew or to drop the token; the next way out asks for what it
    named, too."""
    server_id = discovered(write, recording_as)
    wants = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="tools:list"'}
    mel = signed_in("mel")
    address = depart(mel, server_id)
    recording_as.answer("mcp", Answer(403, json={}, headers=wants))
    page = parse(come_back(mel, at_provider(address)))
    assert "Connection successful" not in page.text
    assert "the server returned an error" in page.text
    assert not page.find("a", string="Check OAuth"), "that is for Admins"
    assert "More permissions required" in parse(mel.get("/servers")).text
    assert [asked.form["grant_type"] for asked in recording_as.seen("token")] == [
        "authorization_code"
    ]
    assert "tools:list" in parse_qs(urlsplit(depart(mel, server_id)).query)["scope"][0].split()


def test_a_server_that_moves_meanwhile_gets_nothing(
    signed_in: SignedIn, client: As, write: Write, recording_as: RecordingServer
) -> None:
    """R-OAUTH-23: what was begun for one address is not completed for another."""
    server_id = discovered(write, recording_as)
    mel = signed_in("mel")
    path = at_provider(depart(mel, server_id))
    moved = {"server_id": server_id, "url": "http://127.0.0.1:9/mcp", "keep_credentials": False}
    assert client("ada").put("/v1/mcp/server", moved).status_code == 202
    assert mel.get(path).status_code == 400, "its flows were ended"
    assert recording_as.seen("token") == []


@pytest.mark.parametrize(
    "change",
    [
        {
            "authorization_url": "https://other.example/authorize",
            "token_url": "https://other.example/token",
        },
        {"oauth2_flow": "client_credentials"},
        {"auth_type": "bearer_token"},
        {"url": "http://127.0.0.1:9/else"},
    ],
)
def test_tokens_are_forgotten_when_what_they_are_for_changes(
    signed_in: SignedIn,
    client: As,
    write: Write,
    recording_as: RecordingServer,
    database: Database,
    change: dict[str, Any],
) -> None:
    """`1-system.md`, 3: with them what was discovered and registered. A change of words costs
    nobody anything."""
    server_id = discovered(write, recording_as)
    connect(signed_in("mel"), server_id)
    same = {"server_id": server_id, "description": "new words", "url": recording_as.url}
    assert client("ada").put("/v1/mcp/server", same).status_code == 202
    with database.session() as session:
        assert session.query(UserCredential).count() == 1
    changed = {"server_id": server_id, "keep_credentials": False, **change}
    assert client("ada").put("/v1/mcp/server", changed).status_code == 202
    with database.session() as session:
        assert session.query(UserCredential).count() == 0
        assert session.query(ServerAuthorization).count() == 0


def test_another_issuer_stops_until_an_admin_has_looked(
    signed_in: SignedIn, write: Write, recording_as: RecordingServer, database: Database
) -> None:
    """R-OAUTH-22: nobody is sent to an issuer that the server names all of a sudden, nor is a
    client's secret."""
    server_id = discovered(write, recording_as)
    mel = signed_in("mel")
    connect(mel, server_id)
    with write() as session:
        known = session.get(ServerAuthorization, server_id)
        assert known is not None
        known.issuer, known.discovered_at = (
            "https://before.example",
            known.discovered_at.replace(year=2020),
        )
    form = parse(mel.get(f"/credentials/{server_id}/connect")).find(
        "form", action=f"/credentials/{server_id}/connect"
    )
    page = parse(mel.post(f"/credentials/{server_id}/connect", data=filled(form)), 409)
    assert "now uses another sign-in provider" in page.main.text
    ada = signed_in("ada")
    tab = parse(ada.get(f"/servers/{server_id}/credentials"))
    assert "https://before.example" in tab.main.text
    form = tab.find("form", action=f"/servers/{server_id}/sign-in/forget")
    assert ada.post(f"/servers/{server_id}/sign-in/forget", data=filled(form)).status_code == 303
    assert "Connected" in connect(mel, server_id).h1.text


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("metadata", "was not found"),
        ("registration_endpoint", "has to register it there"),
        ("issuer", "was not found"),
        ("http", "was not found"),
    ],
)
def test_a_way_out_that_cannot_be_found_says_what_an_admin_does(
    signed_in: SignedIn, write: Write, recording_as: RecordingServer, fault: str, said: str
) -> None:
    assert recording_as.metadata is not None
    if fault == "metadata":
        recording_as.metadata = None
    elif fault == "registration_endpoint":
        del recording_as.metadata["registration_endpoint"]
    elif fault == "issuer":
        recording_as.metadata["issuer"] = "https://evil.example"
    else:
        recording_as.metadata["authorization_endpoint"] = "http://evil.example/authorize"
    server_id = discovered(write, recording_as)
    for name in ("mel", "ada"):
        person = signed_in(name)
        form = parse(person.get(f"/credentials/{server_id}/connect")).find(
            "form", action=f"/credentials/{server_id}/connect"
        )
        answer = person.post(f"/credentials/{server_id}/connect", data=filled(form))
        assert answer.status_code in (400, 502)
        assert said in parse(answer, answer.status_code).main.text


@pytest.mark.parametrize(
    "scheme", ["javascript:alert(1)//", "http://evil.example/", "ftp://x.example/"]
)
def test_a_typed_address_that_is_no_https_is_no_link(
    signed_in: SignedIn, client: As, write: Write, recording_as: RecordingServer, scheme: str
) -> None:
    """R-OAUTH-52."""
    fields = {
        "server_name": "odd",
        "url": recording_as.url,
        "transport": "http",
        "auth_type": "oauth2",
        "allow_all_keys": True,
        "authorization_url": scheme,
        "token_url": recording_as.endpoint("token"),
        "credentials": {"client_id": "x"},
    }
    made = client("ada").post("/v1/mcp/server", fields)
    if made.status_code != 201:
        assert made.status_code in (400, 422)
        return
    mel = signed_in("mel")
    server_id = made.get_json()["server_id"]
    form = parse(mel.get(f"/credentials/{server_id}/connect")).find(
        "form", action=f"/credentials/{server_id}/connect"
    )
    answer = mel.post(f"/credentials/{server_id}/connect", data=filled(form))
    assert "is not https" in parse(answer, 400).main.text
    assert scheme not in answer.get_data(as_text=True)


def test_a_server_without_sign_in_has_no_such_page(
    signed_in: SignedIn, write: Write, echo_server: str
) -> None:
    with write() as session:
        server_id = make_server(session, "echo", url=echo_server, allow_all_keys=True)
    assert signed_in("mel").get(f"/credentials/{server_id}/connect").status_code == 400
    assert signed_in("mel").get("/credentials/id-nowhere/connect").status_code == 404
