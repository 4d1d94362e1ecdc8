"""Adding, changing and removing servers (behaviours CUD, and the rules of `1-system.md`, 3)."""

from collections.abc import Callable
from typing import Any

import pytest

from portal.domain.principals import OPERATOR
from portal.services.operations.bootstrap import apply_config
from portal.store.models import (
    AccessGroupServer,
    Grant,
    HealthRecord,
    ServerSecret,
    ServerVariable,
    UserCredential,
    UserVariable,
)
from tests.conftest import NOTES, Client, Write
from tests.support.factories import make_server
from tests.web.api.test_servers_access import TWO_OF_CONFIG

As = Callable[[str | None], Client]
PATH = "/v1/mcp/server"
PLAIN: dict[str, Any] = {
    "server_name": "plain",
    "transport": "http",
    "url": "https://plain.example/mcp",
}


def error_of(answer: Any) -> tuple[int, str, str | None]:
    detail = answer.get_json()["detail"]
    assert set(detail) >= {"error", "message", "field"}
    return answer.status_code, detail["error"], detail["field"]


def secrets_of(write: Write, server_id: str, field: str) -> set[str]:
    with write() as session:
        return {
            s.name for s in session.query(ServerSecret).filter_by(server_id=server_id, field=field)
        }


@pytest.mark.parametrize("name", ["vera", "mel", "vic", "otto", "kit"])
def test_cud_01_only_an_admin_adds_a_server(client: As, name: str) -> None:
    answer = client(name).post(PATH, PLAIN)
    assert error_of(answer)[:2] == (403, "forbidden")
    assert "PROXY_ADMIN" in answer.get_json()["detail"]["message"]
    assert len(client("ada").get(PATH).get_json()) == 1


@pytest.mark.parametrize(
    ("method", "path"), [("POST", PATH), ("PUT", PATH), ("POST", "/v1/mcp/make_public")]
)
def test_a_refusal_comes_before_a_malformed_body(client: As, method: str, path: str) -> None:
    for options in (
        {"data": "{", "content_type": "application/json"},
        {"data": "x"},
        {"json": {"url": 1}},
    ):
        assert client("mel").ask(method, path, **options).status_code == 403
        assert client(None).ask(method, path, **options).status_code == 401


def test_cud_02_a_new_server_is_answered_and_listed_at_once(client: As) -> None:
    answer = client("ada").post(
        PATH, {"alias": "plain", "transport": "http", "url": "https://plain.example/mcp"}
    )
    row = answer.get_json()
    assert (answer.status_code, row["alias"], row["approval_status"], row["version"]) == (
        201,
        "plain",
        "active",
        1,
    )
    assert (row["created_by"], row["submitted_by"], row["status"]) == ("ada", None, "unknown")
    assert row["server_id"] in [r["server_id"] for r in client("ada").get(PATH).get_json()]


def test_cud_13_only_what_is_sent_changes(client: As) -> None:
    client("ada").put(PATH, {"server_id": NOTES, "description": "before", "allowed_tools": ["a"]})
    headers = ["X-Custom-Header", "X-Another-Header"]
    answer = client("ada").put(
        PATH, {"server_id": NOTES, "extra_headers": headers, "alias": "renamed"}
    )
    row = answer.get_json()
    assert (answer.status_code, row["extra_headers"], row["alias"]) == (202, headers, "renamed")
    assert (row["description"], row["allowed_tools"], row["server_name"]) == (
        "before",
        ["a"],
        "notes",
    )
    assert client("ada").get(f"{PATH}/{NOTES}").get_json()["extra_headers"] == headers


def test_cud_14_only_an_admin_changes_and_the_refusal_names_the_route(client: As) -> None:
    for name in ("vera", "mel", "kit"):
        answer = client(name).put(PATH, {"server_id": NOTES, "description": "x"})
        assert error_of(answer)[:2] == (403, "forbidden")
        assert "PUT /v1/mcp/server" in answer.get_json()["detail"]["message"]
    assert client("ada").get(PATH).get_json()[0]["description"] is None


def test_cud_15_an_unknown_server_is_404_naming_the_id(client: As) -> None:
    answer = client("ada").put(PATH, {"server_id": "nowhere", "description": "x"})
    assert error_of(answer)[:2] == (404, "not_found")
    assert (
        answer.get_json()["detail"]["message"] == "MCP Server not found, passed server_id=nowhere"
    )


def test_a_malformed_body_comes_before_a_server_that_is_not_there(client: As) -> None:
    assert client("ada").put(PATH, {"server_id": "nowhere", "url": 1}).status_code == 422
    assert client("ada").post(f"{PATH}/nowhere/user-env-vars", {"values": 1}).status_code == 422
    assert client("ada").post(f"{PATH}/nowhere/user-credential", {}).status_code == 422


def test_cud_17_a_deleted_server_is_gone_with_all_that_hung_on_it(client: As, write: Write) -> None:
    with write() as session:
        variables = [{"name": "OWN", "scope": "user"}]
        make_server(
            session,
            "doomed",
            is_byok=True,
            auth_type="api_key",
            static_headers={"X": "${OWN}"},
            env_vars=variables,
            mcp_access_groups=["tools"],
            allow_all_keys=True,
        )
    path = f"{PATH}/id-doomed"
    assert (
        client("mel").post(f"{path}/user-credential", {"credential": "SECRET"}).status_code == 200
    )
    assert (
        client("mel").post(f"{path}/user-env-vars", {"values": {"OWN": "SECRET"}}).status_code
        == 200
    )
    assert client("mel").get(path).status_code == 200
    assert client("mel").delete(path).status_code == 403
    answer = client("ada").delete(path)
    assert (answer.status_code, answer.get_data()) == (202, b"")
    assert client("ada").get(path).status_code == client("ada").delete(path).status_code == 404
    assert "id-doomed" not in client("ada").get(PATH).get_data(as_text=True)
    with write() as session:
        for table in (
            ServerSecret,
            ServerVariable,
            UserCredential,
            UserVariable,
            AccessGroupServer,
            Grant,
            HealthRecord,
        ):
            assert session.query(table).filter_by(server_id="id-doomed").count() == 0, (
                table.__tablename__
            )


def test_config_servers_are_changed_by_nobody(client: As, write: Write) -> None:
    with write() as session:
        apply_config(session, OPERATOR, TWO_OF_CONFIG)
    server_id = client("ada").get(f"{PATH}/alpha").get_json()["server_id"]
    assert client("ada").put(PATH, {"server_id": server_id, "description": "x"}).status_code == 403
    assert client("ada").delete(f"{PATH}/{server_id}").status_code == 403


def test_cud_30_null_clears_and_absence_does_not(client: As) -> None:
    client("ada").put(
        PATH, {"server_id": NOTES, "allowed_tools": ["a"], "description": "d", "timeout": 9}
    )
    row = client("ada").put(PATH, {"server_id": NOTES, "description": None}).get_json()
    assert (row["allowed_tools"], row["description"], row["timeout"]) == (["a"], None, 9)
    row = (
        client("ada")
        .put(PATH, {"server_id": NOTES, "allowed_tools": None, "timeout": None})
        .get_json()
    )
    assert (row["allowed_tools"], row["timeout"]) == ([], None)


def test_cud_31_a_new_name_fills_the_alias_and_no_name_leaves_it(client: As) -> None:
    row = client("ada").put(PATH, {"server_id": NOTES, "server_name": "new name"}).get_json()
    assert (row["server_name"], row["alias"]) == ("new_name", "new_name")
    assert (
        client("ada").put(PATH, {"server_id": NOTES, "description": "x"}).get_json()["alias"]
        == "new_name"
    )


def test_cud_06_an_alias_left_out_is_the_name_with_its_spaces_closed(client: As) -> None:
    body = {"server_name": "my server", "transport": "http", "url": "https://m.example/mcp"}
    row = client("ada").post(PATH, body).get_json()
    assert (row["server_name"], row["alias"]) == ("my_server", "my_server")


def test_cud_34_a_change_names_its_author_and_leaves_the_first(client: As) -> None:
    row = client("ada").put(PATH, {"server_id": NOTES, "description": "x"}).get_json()
    assert (row["created_by"], row["updated_by"], row["version"]) == ("operator", "ada", 2)


def test_cud_35_defaults(client: As) -> None:
    row = client("ada").post(PATH, {"alias": "p", "url": "https://p.example/sse"}).get_json()
    assert (row["transport"], row["is_byok"], row["allow_all_keys"]) == ("sse", False, False)
    assert (row["available_on_public_internet"], row["delegate_auth_to_upstream"]) == (True, False)


def test_cud_44_credentials_merge_key_by_key_while_the_auth_type_stays(
    client: As, write: Write
) -> None:
    body = {
        **PLAIN,
        "server_id": "p",
        "auth_type": "oauth2",
        "credentials": {"client_id": "a", "client_secret": "b"},
    }
    assert client("ada").post(PATH, body).status_code == 201
    client("ada").put(
        PATH, {"server_id": "p", "credentials": {"client_secret": "c", "scopes": ["s"]}}
    )
    assert secrets_of(write, "p", "credentials") == {"client_id", "client_secret", "scopes"}
    client("ada").put(PATH, {"server_id": "p", "auth_type": "oauth2"})
    assert secrets_of(write, "p", "credentials") == {"client_id", "client_secret", "scopes"}
    client("ada").put(PATH, {"server_id": "p", "credentials": {"scopes": None}})
    assert secrets_of(write, "p", "credentials") == {"client_id", "client_secret"}
    client("ada").put(
        PATH, {"server_id": "p", "auth_type": "bearer_token", "credentials": {"auth_value": "t"}}
    )
    assert secrets_of(write, "p", "credentials") == {"auth_value"}
    client("ada").put(PATH, {"server_id": "p", "auth_type": None})
    assert secrets_of(write, "p", "credentials") == set()


def test_credentials_are_sent_upstream_as_they_were_written(client: As, echo_server: str) -> None:
    body = {
        "server_id": "e",
        "alias": "e",
        "transport": "http",
        "url": echo_server,
        "auth_type": "bearer_token",
        "credentials": {"auth_value": "SECRET-1"},
        "static_headers": {"X-Shared": "${G}!"},
        "env_vars": [{"name": "G", "value": "SECRET-2"}],
    }
    assert client("ada").post(PATH, body).status_code == 201
    call = (
        client("ada")
        .post("/v1/mcp/tools/call", {"server_id": "e", "name": "show_headers"})
        .get_json()
    )
    assert call["structuredContent"]["authorization"] == "Bearer SECRET-1"
    assert call["structuredContent"]["x-shared"] == "SECRET-2!"


@pytest.mark.parametrize(
    "moved", [{"url": "https://other.example/mcp"}, {"token_url": "https://evil.example/token"}]
)
def test_a_stored_secret_is_never_sent_to_a_new_host_unasked(
    client: As, write: Write, moved: dict[str, str]
) -> None:
    body = {
        **PLAIN, "server_id": "p", "auth_type": "oauth2", "token_url": "https://plain.example/token",
        "credentials": {"client_id": "a", "client_secret": "SECRET"},
    }  # fmt: skip
    assert client("ada").post(PATH, body).status_code == 201
    answer = client("ada").put(PATH, {"server_id": "p", **moved})
    assert error_of(answer)[:2] == (409, "credentials_would_move")
    assert client("ada").get(f"{PATH}/p").get_json()["url"] == PLAIN["url"]
    assert (
        client("ada")
        .put(PATH, {"server_id": "p", "url": "https://plain.example/elsewhere"})
        .status_code
        == 202
    )
    assert (
        client("ada").put(PATH, {"server_id": "p", **moved, "keep_credentials": True}).status_code
        == 202
    )
    assert secrets_of(write, "p", "credentials") == {"client_id", "client_secret"}


def test_new_credentials_go_to_a_new_host_once_it_is_said_what_becomes_of_the_others(
    client: As, write: Write
) -> None:
    body = {
        **PLAIN,
        "server_id": "p",
        "auth_type": "oauth2",
        "credentials": {"client_id": "a", "client_secret": "b"},
    }
    client("ada").post(PATH, body)
    change = {"server_id": "p", "url": "https://other.example", "credentials": {"client_id": "c"}}
    refused = client("ada").put(PATH, change)
    assert error_of(refused)[:2] == (409, "credentials_would_move")
    assert [s["secret"] for s in refused.get_json()["detail"]["secrets"]] == [
        "credentials.client_secret"
    ]
    assert client("ada").put(PATH, {**change, "keep_credentials": False}).status_code == 202
    assert secrets_of(write, "p", "credentials") == {"client_id"}


def test_an_old_version_is_refused_telling_the_current_one(client: As) -> None:
    assert (
        client("ada")
        .put(PATH, {"server_id": NOTES, "version": 1, "description": "x"})
        .get_json()["version"]
        == 2
    )
    answer = client("ada").put(PATH, {"server_id": NOTES, "version": 1, "description": "y"})
    assert error_of(answer)[:2] == (409, "stale_version")
    assert answer.get_json()["detail"]["current_version"] == 2


def test_a_refused_change_leaves_nothing_behind(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "other")
    change = {
        "server_id": NOTES,
        "description": "half",
        "mcp_access_groups": ["half"],
        "alias": "other",
    }
    assert client("ada").put(PATH, change).status_code == 409
    row = client("ada").get(f"{PATH}/{NOTES}").get_json()
    assert (row["description"], row["mcp_access_groups"], row["version"]) == (None, [], 1)
    assert client("ada").get("/v1/mcp/access_groups").get_json() == {"access_groups": []}
