"""The broker for MCP clients: its token endpoint (OAU by number, security.md, 2.6)."""

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.services.servers import crud
from portal.store.models import UserCredential
from tests.conftest import Client, Write
from tests.support.oauth.asking import (
    BASE,
    CALLBACK,
    VERIFIER,
    code_for,
    redeem,
)
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth.serving import Answer

As = Callable[[str | None], Client]
SignedIn = Callable[[str], Client]


def test_oau_27_the_upstream_gets_the_code_and_the_stored_client(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    code = code_for(client("ada"), scope="a")
    recording_as.token_fields = {
        "id_token": "e30.e30.x",
        "scope": "a",
        "secret_of_theirs": "SECRET",
    }
    answer = redeem(client("ada"), code, client_secret="SECRET-of-the-caller")
    assert answer.status_code == 200
    assert answer.get_json() == {
        "access_token": "at-1",
        "token_type": "Bearer",
        "expires_in": 3600,
        "refresh_token": "rt-1",
        "scope": "a",
    }
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    asked = recording_as.last("token").form
    assert (
        asked.items()
        >= {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": VERIFIER,
            "redirect_uri": CALLBACK,
            "client_id": "stored-id",
            "client_secret": "SECRET-stored",
            "resource": recording_as.url,
        }.items()
    )
    assert "authorization" not in recording_as.last("token").headers


def test_a_code_is_good_once_and_only_for_who_asked_for_it(
    client: As, app: Flask, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    """R-OAUTH-11, -12, -14, -15."""
    add()
    code = code_for(client("ada"))
    for asking, changed in (
        (client("ada"), {"client_id": "https://another.example/client.json"}),
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
    code = code_for(client("ada"))
    answer = redeem(client("ada"), code, "/v1/mcp/server/oauth/id-second")
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_grant")


def test_oau_29_a_refresh_is_forwarded(
    client: As, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    given = redeem(client("ada"), code_for(client("ada"))).get_json()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": given, "scope": "a"}
    answer = client("ada").ask("POST", f"{BASE}/token", data=form)
    assert answer.status_code == 200
    assert (answer.get_json()["access_token"], answer.get_json()["refresh_token"]) == (
        "at-2",
        "rt-2",
    )
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
    answer = redeem(client("ada"), code_for(client("ada"))).get_json()
    assert answer == {"access_token": "at-1", "token_type": "DPoP"}


@pytest.mark.parametrize(
    ("told", "status", "error"),
    [
        (Answer(400, json={"error": "invalid_grant"}), 400, "invalid_grant"),
        (Answer(400, json={"error": "invalid_scope"}), 400, "invalid_scope"),
        (
            Answer(401, json={"error": "invalid_client", "error_description": "SECRET-stored"}),
            502,
            "upstream_failed",
        ),
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
    client: As,
    app: Flask,
    add: Callable[..., str],
    recording_as: RecordingServer,
    told: Answer,
    status: int,
    error: str,
) -> None:
    add()
    code = code_for(client("ada"))
    recording_as.answer("token", told)
    answer = redeem(client("ada"), code)
    assert (answer.status_code, answer.get_json()["error"]) == (status, error)
    assert "SECRET" not in answer.get_data(as_text=True)


def test_oau_34_nobody_listens_at_the_token_url(
    client: As, app: Flask, add: Callable[..., str]
) -> None:
    add(token_url="http://127.0.0.1:9/token")
    code = code_for(client("ada"))
    assert redeem(client("ada"), code).status_code == 502


def test_the_servers_rules_are_held_before_anything_is_stored(
    client: As, app: Flask, write: Write, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add(token_validation={"team.id": "T1"})
    recording_as.token_fields = {"team": {"id": "T2"}}
    answer = redeem(client("ada"), code_for(client("ada")))
    body = answer.get_json()
    assert (answer.status_code, body["error"], body["field"]) == (
        403,
        "token_validation_failed",
        "team.id",
    )
    assert "at-" not in answer.get_data(as_text=True)
    with write() as session:
        assert session.scalar(select(UserCredential)) is None
    recording_as.token_fields = {"team": {"id": "T1"}}
    assert redeem(client("ada"), code_for(client("ada"))).status_code == 200


def test_oau_35_the_token_is_stored_for_the_person_but_the_refresh_token_stays_with_the_client(
    client: As, app: Flask, write: Write, add: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add()
    assert redeem(client("ada"), code_for(client("ada"))).status_code == 200
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
    assert (
        client("ada").post("/v1/mcp/server/id-guarded/oauth-user-credential", own).status_code
        == 200
    )
    assert redeem(client("ada"), code_for(client("ada"))).status_code == 200
    with write() as session:
        held = session.get(UserCredential, ("ada", "id-guarded", "oauth2"))
        assert held is not None
        assert held.renewable


def test_a_server_that_changed_meanwhile_gets_no_old_code(
    client: As, app: Flask, write: Write, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    code = code_for(client("ada"))
    with write() as session:
        crud.delete_server(session, OPERATOR, "id-guarded")
    add()
    assert redeem(client("ada"), code).get_json()["error"] == "invalid_grant"
    assert recording_as.seen("token") == []
