"""Users over the API, and what holds for users, teams, keys and access groups alike."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import CREW, NOTES, Client
from tests.support.factories import PASSWORD

As = Callable[[str | None], Client]
NOTHING = {
    "mcp_servers": [],
    "mcp_access_groups": [],
    "mcp_tool_permissions": {},
    "mcp_toolsets": [],
}
LISTS = ("/v1/users", "/v1/teams", "/v1/keys", "/v1/access-groups")
BODIES: dict[str, dict[str, Any]] = {
    "/v1/users": {"user_id": "new", "email": "new@example.com", "role": "internal_user"},
    "/v1/teams": {"team_id": "new", "team_alias": "new"},
    "/v1/keys": {"key_alias": "new", "user_id": "mel"},
    "/v1/access-groups": {"name": "new"},
}


def detail_of(answer: Any) -> tuple[int, str, str | None]:
    return (
        answer.status_code,
        answer.get_json()["detail"]["error"],
        answer.get_json()["detail"]["field"],
    )


@pytest.mark.parametrize("path", [*LISTS, "/v1/settings"])
def test_admin_view_reads_and_nobody_else(client: As, path: str) -> None:
    found = {
        name: client(name).get(path).status_code
        for name in ("ada", "vera", "mel", "vic", "otto", "kit")
    }
    assert found == {"ada": 200, "vera": 200, "mel": 403, "vic": 403, "otto": 403, "kit": 403}
    assert client(None).get(path).status_code == 401


@pytest.mark.parametrize("path", LISTS)
def test_only_an_admin_writes(client: As, path: str) -> None:
    for name in ("vera", "mel", "kit"):
        asking = client(name)
        for body in (BODIES[path], {"team_alias": 1, "name": 1, "email": 1, "key_alias": 1}):
            assert asking.post(path, body).status_code == 403
            assert asking.patch(f"{path}/nowhere", body).status_code == 403
        assert asking.delete(f"{path}/nowhere").status_code == 403
    assert client("vera").patch("/v1/settings", {}).status_code == 403


@pytest.mark.parametrize("path", LISTS)
def test_a_thing_is_made_read_changed_and_removed(client: As, path: str) -> None:
    made = client("ada").post(path, BODIES[path])
    assert made.status_code == 201
    row = made.get_json()
    key = {"/v1/users": "user_id", "/v1/teams": "team_id", "/v1/keys": "key_id"}.get(
        path, "access_group_id"
    )
    one = f"{path}/{row[key]}"
    assert client("vera").get(one).get_json() == {k: v for k, v in row.items() if k != "key"}
    assert row[key] in [r[key] for r in client("ada").get(path).get_json()["items"]]
    assert client("ada").patch(one, {}).get_json() == client("ada").get(one).get_json()
    gone = client("ada").delete(one)
    assert (gone.status_code, gone.get_data()) == (204, b"")
    if path != "/v1/keys":
        assert client("ada").get(one).status_code == 404
    assert (
        client("ada").get(f"{path}/nowhere").status_code
        == client("ada").delete(f"{path}/nowhere").status_code
        == 404
    )


def test_a_user_has_this_shape_and_never_a_password(client: As) -> None:
    body = {
        **BODIES["/v1/users"],
        "password": PASSWORD,
        "object_permission": {"mcp_servers": ["notes"]},
    }
    answer = client("ada").post("/v1/users", body)
    assert answer.get_json() == {
        "user_id": "new",
        "email": "new@example.com",
        "display_name": None,
        "role": "internal_user",
        "is_active": True,
        "object_permission": {**NOTHING, "mcp_servers": [NOTES]},
    }
    assert "SECRET" not in answer.get_data(as_text=True)


def test_a_person_who_is_deactivated_is_out_at_once(client: As) -> None:
    assert (
        client("ada").patch("/v1/users/mel", {"is_active": False}).get_json()["is_active"] is False
    )
    assert client("mel").get("/v1/me").status_code == client("kit").get("/v1/me").status_code == 401


def test_grants_are_replaced_by_what_is_sent_and_kept_where_nothing_is(client: As) -> None:
    path = "/v1/users/otto"
    given = {"object_permission": {"mcp_servers": [NOTES]}}
    assert client("ada").patch(path, given).get_json()["object_permission"]["mcp_servers"] == [
        NOTES
    ]
    kept = client("ada").patch(path, {"display_name": "O"}).get_json()
    assert (kept["object_permission"]["mcp_servers"], kept["display_name"]) == ([NOTES], "O")
    assert (
        client("ada").patch(path, {"object_permission": None}).get_json()["object_permission"]
        == NOTHING
    )


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/users", {"user_id": "mel", "role": "internal_user"}, "409 conflict user_id"),
        ("/v1/users", {"email": "MEL@example.com"}, "409 conflict email"),
        ("/v1/users", {"role": "king"}, "422 invalid role"),
        ("/v1/users", {"password": "short"}, "422 invalid password"),
        ("/v1/users", {"user_id": "a/b"}, "422 invalid user_id"),
        ("/v1/users", {"is_active": None}, "422 invalid is_active"),
        ("/v1/teams", {"team_alias": "crew"}, "409 conflict team_alias"),
        ("/v1/teams", {"team_id": CREW, "team_alias": "x"}, "409 conflict team_id"),
        ("/v1/teams", {}, "422 invalid team_alias"),
        ("/v1/teams", {"team_alias": " "}, "422 invalid team_alias"),
        (
            "/v1/teams",
            {"team_alias": "x", "members_with_roles": [{"user_id": "no"}]},
            "400 invalid_request user_id",
        ),
        (
            "/v1/teams",
            {"team_alias": "x", "members_with_roles": [{"user_id": "mel", "role": "king"}]},
            "422 invalid role",
        ),
        (
            "/v1/teams",
            {"team_alias": "x", "access_group_ids": ["nowhere"]},
            "400 invalid_request access_group_ids",
        ),
        (
            "/v1/teams",
            {"team_alias": "x", "object_permission": {"mcp_servers": ["no"]}},
            "400 invalid_request object_permission.mcp_servers",
        ),
        ("/v1/keys", {}, "400 invalid_request user_id"),
        ("/v1/keys", {"user_id": "nobody"}, "400 invalid_request user_id"),
        ("/v1/keys", {"team_id": "nowhere"}, "400 invalid_request team_id"),
        (
            "/v1/keys",
            {"user_id": "mel", "allowed_routes": ["/servers"]},
            "422 invalid allowed_routes",
        ),
        (
            "/v1/keys",
            {"user_id": "mel", "expires_at": "2020-01-01T00:00:00Z"},
            "400 invalid_request expires_at",
        ),
        ("/v1/keys", {"user_id": "mel", "expires_at": 1}, "422 invalid expires_at"),
        (
            "/v1/keys",
            {"user_id": "mel", "expires_at": "9999-12-31T23:59:59-23:00"},
            "422 invalid expires_at",
        ),
        ("/v1/access-groups", {}, "422 invalid name"),
        ("/v1/access-groups", {"name": " "}, "422 invalid name"),
        (
            "/v1/access-groups",
            {"name": "x", "mcp_server_ids": ["nowhere"]},
            "400 invalid_request mcp_server_ids",
        ),
    ],
)
def test_what_cannot_be_is_refused_naming_the_field(
    client: As, path: str, body: dict[str, Any], expected: str
) -> None:
    before = client("ada").get(path).get_json()
    status, error, field = expected.split()
    assert detail_of(client("ada").post(path, body)) == (int(status), error, field)
    assert client("ada").get(path).get_json() == before


def test_the_last_admin_stays(client: As) -> None:
    for change in ({"role": "internal_user"}, {"is_active": False}):
        assert client("ada").patch("/v1/users/ada", change).status_code == 400
    assert client("ada").delete("/v1/users/ada").status_code == 400
    client("ada").patch("/v1/users/otto", {"role": "proxy_admin"})
    assert client("ada").patch("/v1/users/ada", {"role": "internal_user"}).status_code == 200
    assert client("ada").get("/v1/users").status_code == 403
