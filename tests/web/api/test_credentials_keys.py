"""Bring your own key (behaviours BYK-01 to 08, 25)."""

from collections.abc import Callable

import pytest

from portal.domain.principals import OPERATOR
from portal.services.instance_settings import update_preferences
from portal.services.operations.bootstrap import apply_config
from portal.store.models import UserCredential
from tests.conftest import CREW, Client, Write
from tests.support.factories import make_key, make_server

As = Callable[[str | None], Client]
PATH = "/v1/mcp/server/id-own/user-credential"


@pytest.fixture(autouse=True)
def _own(write: Write) -> None:
    with write() as session:
        make_server(session, "own", is_byok=True, auth_type="api_key", allow_all_keys=True)


def held_by(asking: Client) -> dict[str, bool | None]:
    return {
        row["server_id"]: row["has_user_credential"]
        for row in asking.get("/v1/mcp/server").get_json()
    }


def test_byk_01_and_07_a_key_is_stored_for_that_server_and_that_person(client: As) -> None:
    answer = client("mel").post(PATH, {"credential": "SECRET", "save": True})
    assert (answer.status_code, answer.get_json()) == (
        200,
        {"server_id": "id-own", "has_credential": True},
    )
    assert held_by(client("mel")) == {"id-own": True, "id-notes": None}
    assert held_by(client("ada"))["id-own"] is held_by(client("otto"))["id-own"] is False
    assert client("kit").get("/v1/mcp/server/own").get_json()["has_user_credential"] is True


def test_byk_02_without_save_nothing_is_stored(client: As, write: Write) -> None:
    answer = client("mel").post(PATH, {"credential": "SECRET", "save": False})
    assert answer.get_json() == {"server_id": "id-own", "has_credential": False}
    with write() as session:
        assert session.query(UserCredential).count() == 0


def test_byk_03_who_and_what_takes_no_key(client: As, write: Write) -> None:
    with write() as session:
        nobodys = make_key(session, team_id=CREW)
    body = {"credential": "SECRET"}
    other = client("mel").post("/v1/mcp/server/id-notes/user-credential", body)
    assert (other.status_code, other.get_json()["detail"]["error"]) == (400, "not_byok")
    assert client("mel").delete("/v1/mcp/server/id-notes/user-credential").status_code == 400
    assert client("ada").post("/v1/mcp/server/nowhere/user-credential", body).status_code == 404
    for method in ("POST", "DELETE"):
        assert client(nobodys).ask(method, PATH, json=body).status_code == 400


def test_byk_05_deleting_twice_is_the_same(client: As) -> None:
    client("mel").post(PATH, {"credential": "SECRET"})
    for _ in range(2):
        answer = client("mel").delete(PATH)
        assert (answer.status_code, answer.get_json()) == (
            200,
            {"server_id": "id-own", "has_credential": False},
        )
    assert held_by(client("mel"))["id-own"] is False


def test_byk_08_a_config_server_takes_keys_too(client: As, write: Write) -> None:
    entry = {
        "url": "https://c.example",
        "auth_type": "api_key",
        "is_byok": True,
        "allow_all_keys": True,
    }
    with write() as session:
        assert apply_config(session, OPERATOR, {"mcp_servers": {"conf": entry}}) == []
    answer = client("mel").post("/v1/mcp/server/conf/user-credential", {"credential": "SECRET"})
    assert (answer.status_code, answer.get_json()["has_credential"]) == (200, True)


def test_only_an_admin_removes_the_key_of_another(client: As) -> None:
    client("mel").post(PATH, {"credential": "SECRET"})
    for name in ("otto", "vera", "kit"):
        assert client(name).delete(f"{PATH}?user_id=ada").status_code == 403
    assert client("vera").delete(f"{PATH}?user_id=mel").status_code == 403
    assert held_by(client("mel"))["id-own"] is True
    assert client("ada").delete(f"{PATH}?user_id=mel").status_code == 200
    assert held_by(client("mel"))["id-own"] is False


def test_one_may_name_oneself(client: As) -> None:
    client("mel").post(PATH, {"credential": "SECRET"})
    assert client("mel").delete(f"{PATH}?user_id=mel").get_json()["has_credential"] is False


def test_what_one_only_sees_takes_no_key_whatever_the_body_says(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "seen", is_byok=True, auth_type="api_key")
        update_preferences(session, OPERATOR, {"user_mcp_management_mode": "view_all"})
    path = "/v1/mcp/server/id-seen"
    assert client("otto").get(path).status_code == 200
    for body in ({"credential": "SECRET"}, {"credential": 1}):
        assert client("otto").post(f"{path}/user-credential", body).status_code == 403


@pytest.mark.parametrize("key", ["", " ", "a\nb", "x" * 8_193])
def test_a_key_that_fits_into_no_header_is_refused(client: As, key: str) -> None:
    answer = client("mel").post(PATH, {"credential": key})
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (400, "credential")


def test_byk_25_a_call_without_a_key_is_401_and_says_where_to_store_one(client: As) -> None:
    answer = client("mel").post("/v1/mcp/tools/call", {"server_id": "id-own", "name": "add"})
    detail = answer.get_json()["detail"]
    assert (answer.status_code, detail["error"], detail["server_id"]) == (
        401,
        "byok_auth_required",
        "id-own",
    )
    assert detail["setup_url"] == "http://127.0.0.1:8000/credentials/id-own"
    assert "/.well-known/oauth-protected-resource" in answer.headers["WWW-Authenticate"]


def test_the_callers_own_key_is_what_is_sent(client: As, echo_server: str) -> None:
    change = {
        "server_id": "id-own",
        "url": echo_server,
        "credentials": {"auth_value": "SECRET-shared"},
    }
    assert client("ada").put("/v1/mcp/server", change).status_code == 202
    client("mel").post(PATH, {"credential": " SECRET-mel "})
    call = client("mel").post("/v1/mcp/tools/call", {"server_id": "own", "name": "show_headers"})
    assert call.get_json()["structuredContent"]["x-api-key"] == "SECRET-mel"
