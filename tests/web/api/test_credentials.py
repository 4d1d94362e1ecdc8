"""Each person's values of a server's variables (behaviours ENV)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from portal.domain.principals import OPERATOR
from portal.services.instance_settings import update_preferences
from portal.services.operations.bootstrap import apply_config
from portal.store.database import Database
from portal.store.models import UserVariable
from tests.conftest import CREW, Client, Write
from tests.support.factories import make_key, make_server

As = Callable[[str | None], Client]
PATH = "/v1/mcp/server/id-mail/user-env-vars"
STATUS = "/v1/mcp/user-env-vars/status"
HEADERS = {"Authorization": "Bearer ${TOKEN}", "X-Room": "${ROOM}${ROOM} ${1abc} ${a-b} ${SHARED}"}
VARIABLES: list[dict[str, Any]] = [
    {"name": "TOKEN", "scope": "user", "description": "your token"},
    {"name": "ROOM", "scope": "user"},
    {"name": "UNUSED", "scope": "user"},
    {"name": "SHARED", "scope": "user"},
    {"name": "SHARED", "value": "SECRET"},
]


@pytest.fixture(autouse=True)
def _mail(write: Write) -> None:
    with write() as session:
        make_server(
            session, "mail", static_headers=HEADERS, env_vars=VARIABLES, allow_all_keys=True
        )


def required_of(asking: Client, path: str = PATH) -> dict[str, bool]:
    answer = asking.get(path)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return {entry["name"]: entry["is_set"] for entry in answer.get_json()["required"]}


def test_env_01_06_09_what_headers_refer_to_and_no_global_covers_is_required(client: As) -> None:
    assert client("mel").get(PATH).get_json() == {
        "server_id": "id-mail",
        "server_name": "mail",
        "alias": "mail",
        "required": [
            {"name": "TOKEN", "description": "your token", "is_set": False},
            {"name": "ROOM", "description": None, "is_set": False},
        ],
        "missing_count": 2,
        "setup_url": "http://127.0.0.1:8000/credentials/id-mail",
    }


def test_env_03_all_filled_is_nothing_missing_and_no_value_is_answered(client: As) -> None:
    answer = client("mel").post(PATH, {"values": {"TOKEN": "SECRET-1", "ROOM": "SECRET-2"}})
    assert answer.get_json()["missing_count"] == 0
    assert required_of(client("mel")) == {"TOKEN": True, "ROOM": True}
    assert required_of(client("otto")) == {"TOKEN": False, "ROOM": False}
    assert "SECRET" not in answer.get_data(as_text=True)


def test_env_05_a_server_that_needs_nothing_has_no_setup_url(client: As) -> None:
    found = client("mel").get("/v1/mcp/server/id-notes/user-env-vars").get_json()
    assert (found["required"], found["missing_count"], found["setup_url"]) == ([], 0, None)


def test_an_empty_global_counts_as_absent(client: As) -> None:
    variables = [*VARIABLES[:4], {"name": "SHARED", "value": ""}]
    sent = {"server_id": "id-mail", "env_vars": variables, "clear_secrets": ["env_vars.SHARED"]}
    assert client("ada").put("/v1/mcp/server", sent).status_code == 202
    assert "SHARED" in required_of(client("mel"))


def test_env_08_the_id_in_the_setup_url_is_percent_encoded(client: As, write: Write) -> None:
    with write() as session:
        make_server(
            session, "odd", server_id="a&b=c#d?e", static_headers=HEADERS, env_vars=VARIABLES
        )
    found = client("ada").get("/v1/mcp/server/odd/user-env-vars").get_json()
    assert found["setup_url"] == "http://127.0.0.1:8000/credentials/a%26b%3Dc%23d%3Fe"


def test_env_10_nameless_entries_are_passed_over_and_a_missing_scope_is_global(client: As) -> None:
    variables = [
        None,
        {"value": "x"},
        {"name": "", "value": "x"},
        {"name": "ROOM", "value": "SECRET"},
        VARIABLES[0],
    ]
    row = client("ada").put("/v1/mcp/server", {"server_id": "id-mail", "env_vars": variables})
    assert [(v["name"], v["scope"]) for v in row.get_json()["env_vars"]] == [
        ("ROOM", "global"),
        ("TOKEN", "user"),
    ]
    assert set(required_of(client("mel"))) == {"TOKEN"}


@pytest.mark.parametrize("kept", ["", None])
def test_env_12_a_post_merges_and_an_empty_value_keeps(
    client: As, kept: str | None, write: Write
) -> None:
    client("mel").post(PATH, {"values": {"TOKEN": "SECRET-1"}})
    answer = client("mel").post(PATH, {"values": {"ROOM": "SECRET-2", "TOKEN": kept}})
    assert {v["name"]: v["is_set"] for v in answer.get_json()["required"]} == {
        "TOKEN": True,
        "ROOM": True,
    }
    assert client("mel").post(PATH, {"values": {}}).get_json()["missing_count"] == 0


def test_names_that_were_not_declared_are_dropped(client: As, write: Write) -> None:
    assert (
        client("mel").post(PATH, {"values": {"PATH": "SECRET", "TOKEN": "SECRET"}}).status_code
        == 200
    )
    with write() as session:
        assert {v.name for v in session.query(UserVariable)} == {"TOKEN"}


@pytest.mark.parametrize("change", [[], [{"name": "TOKEN", "value": "SECRET"}]])
def test_env_13_values_of_names_no_longer_the_persons_go_at_the_next_merge(
    client: As, write: Write, change: list[dict[str, str]]
) -> None:
    client("mel").post(PATH, {"values": {"TOKEN": "SECRET-1", "ROOM": "SECRET-2"}})
    variables = [*change, VARIABLES[1]]
    assert (
        client("ada")
        .put("/v1/mcp/server", {"server_id": "id-mail", "env_vars": variables})
        .status_code
        == 202
    )
    client("mel").post(PATH, {"values": {"ROOM": "SECRET-3"}})
    with write() as session:
        assert {v.name for v in session.query(UserVariable)} == {"ROOM"}


def test_env_14_two_saves_at_once_both_survive(client: As) -> None:
    for _ in range(5):
        client("mel").delete(PATH)
        with ThreadPoolExecutor(2) as pool:
            saves = [{"TOKEN": "SECRET-1"}, {"ROOM": "SECRET-2"}]
            answers = list(
                pool.map(
                    lambda values: client("mel").post(PATH, {"values": values}).status_code, saves
                )
            )
        assert answers == [200, 200]
        assert required_of(client("mel")) == {"TOKEN": True, "ROOM": True}


def test_the_same_value_saved_twice_at_once_is_no_error(client: As) -> None:
    with ThreadPoolExecutor(4) as pool:
        body = {"values": {"TOKEN": "SECRET-1"}}
        answers = list(pool.map(lambda _: client("mel").post(PATH, body).status_code, range(4)))
    assert answers == [200] * 4


def test_env_15_deleting_unsets_all_and_deleting_nothing_is_fine(client: As) -> None:
    client("mel").post(PATH, {"values": {"TOKEN": "SECRET-1"}})
    for _ in range(2):
        answer = client("mel").delete(PATH)
        assert (answer.status_code, answer.get_json()["missing_count"]) == (200, 2)
    assert required_of(client("mel")) == {"TOKEN": False, "ROOM": False}


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_env_16_a_database_that_fails_is_503_and_no_success(
    client: As, database: Database, method: str
) -> None:
    def lose_the_connection(
        _connection: object, _cursor: object, statement: str, *_rest: object
    ) -> None:
        if "user_variables" in statement:
            raise OperationalError(statement, None, ConnectionResetError("SECRET"))

    event.listen(database.engine, "before_cursor_execute", lose_the_connection)
    answer = client("mel").ask(method, PATH, json={"values": {"TOKEN": "SECRET"}})
    event.remove(database.engine, "before_cursor_execute", lose_the_connection)
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (503, "unavailable")
    assert answer.headers["Retry-After"]


def test_env_17_a_key_of_nobody_has_no_values(client: As, write: Write) -> None:
    with write() as session:
        key = make_key(session, team_id=CREW)
    for method in ("GET", "POST", "DELETE"):
        assert client(key).ask(method, PATH, json={"values": {}}).status_code == 400
    assert client(key).get(STATUS).get_json() == []


def test_env_18_and_20_an_admin_is_not_filtered_and_learns_what_is_not_there(client: As) -> None:
    assert client("ada").get("/v1/mcp/server/nowhere/user-env-vars").status_code == 404
    assert client("ada").get(PATH).status_code == client("otto").get(PATH).status_code == 200
    assert client("otto").get("/v1/mcp/server/id-notes/user-env-vars").status_code == 403


def test_env_21_the_status_lists_what_the_caller_sees_and_what_needs_something(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "hidden", static_headers=HEADERS, env_vars=VARIABLES)
    found = client("mel").get(STATUS).get_json()
    assert [entry["server_id"] for entry in found] == ["id-mail"]
    assert found[0] == client("mel").get(PATH).get_json()
    assert [entry["server_id"] for entry in client("ada").get(STATUS).get_json()] == [
        "id-hidden",
        "id-mail",
    ]


@pytest.mark.parametrize("name", ["ada", "otto"])
def test_env_22_with_view_all_the_status_covers_what_the_list_shows(
    client: As, write: Write, name: str
) -> None:
    with write() as session:
        make_server(session, "hidden", static_headers=HEADERS, env_vars=VARIABLES)
        update_preferences(session, OPERATOR, {"user_mcp_management_mode": "view_all"})
    assert [entry["server_id"] for entry in client(name).get(STATUS).get_json()] == [
        "id-hidden",
        "id-mail",
    ]
    assert (
        client(name)
        .post("/v1/mcp/server/id-hidden/user-env-vars", {"values": {"ROOM": "x"}})
        .status_code
        == 200
    )


def test_env_23_config_servers_take_values_too(client: As, write: Write) -> None:
    entry = {
        "url": "https://c.example",
        "static_headers": HEADERS,
        "env_vars": VARIABLES,
        "allow_all_keys": True,
    }
    with write() as session:
        assert apply_config(session, OPERATOR, {"mcp_servers": {"conf": entry}}) == []
    answer = client("otto").post(
        "/v1/mcp/server/conf/user-env-vars", {"values": {"TOKEN": "SECRET"}}
    )
    assert (answer.status_code, answer.get_json()["missing_count"]) == (200, 1)


def test_env_24_a_call_without_the_values_says_what_is_missing_and_where_to_set_it(
    client: As, echo_server: str
) -> None:
    moved = {"server_id": "id-mail", "url": echo_server, "keep_credentials": True}
    assert client("ada").put("/v1/mcp/server", moved).status_code == 202
    call = {"server_id": "id-mail", "name": "show_headers"}
    client("mel").post(PATH, {"values": {"ROOM": "7"}})
    refused = client("mel").post("/v1/mcp/tools/call", call)
    detail = refused.get_json()["detail"]
    assert (refused.status_code, detail["error"], detail["server_id"]) == (
        412,
        "missing_user_env_vars",
        "id-mail",
    )
    assert (detail["names"], detail["setup_url"]) == (
        ["TOKEN"],
        "http://127.0.0.1:8000/credentials/id-mail",
    )
    assert "mail" in detail["message"]
    assert "TOKEN" in detail["message"]
    client("mel").post(PATH, {"values": {"TOKEN": "SECRET-1"}})
    sent = client("mel").post("/v1/mcp/tools/call", call).get_json()["structuredContent"]
    assert (sent["authorization"], sent["x-room"]) == (
        "Bearer SECRET-1",
        "77 ${1abc} ${a-b} SECRET",
    )


def test_env_27_values_whose_key_is_lost_read_as_not_set(client: As, write: Write) -> None:
    client("mel").post(PATH, {"values": {"TOKEN": "SECRET-1"}})
    with write() as session:
        stored = session.query(UserVariable).one()
        stored.sealed = stored.sealed.replace(b"k1", b"k0", 1)
    assert required_of(client("mel")) == {"TOKEN": False, "ROOM": False}
    assert (
        client("mel").post(PATH, {"values": {"TOKEN": "SECRET-2"}}).get_json()["missing_count"] == 1
    )


@pytest.mark.parametrize("value", ["a\nb", "a\r\nX: y", "\x7f", " ", "x" * 8_193])
def test_a_value_that_fits_into_no_header_is_refused_and_not_echoed(client: As, value: str) -> None:
    answer = client("mel").post(PATH, {"values": {"TOKEN": value}})
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (400, "TOKEN")
    assert value.strip() not in answer.get_json()["detail"]["message"] or not value.strip()
    assert required_of(client("mel"))["TOKEN"] is False
