"""A key never hands out more than it has: what limits it limits what it may change (`1-system.md`,
4 and 6)."""

from collections.abc import Callable
from typing import Any

import pytest

from portal.domain.principals import OPERATOR
from portal.services.access import keys
from tests.conftest import NOTES, Client, Write
from tests.support.factories import make_group, make_key, make_server

As = Callable[[str | None], Client]
WRITES = (
    ("POST", "/v1/keys", {"user_id": "ada"}),
    ("PATCH", "/v1/keys/{key}", {"allowed_routes": [], "object_permission": {}}),
    ("DELETE", "/v1/keys/{key}", None),
    (
        "POST",
        "/v1/users",
        {"email": "wider@example.com", "password": "a long SECRET word", "role": "proxy_admin"},
    ),
    ("PATCH", "/v1/users/mel", {"role": "proxy_admin"}),
    ("DELETE", "/v1/users/mel", None),
    ("POST", "/v1/teams", {"team_alias": "wider"}),
    ("PATCH", "/v1/teams/team-crew", {"object_permission": {"mcp_servers": ["id-other"]}}),
    ("POST", "/v1/teams/team-crew/members", {"user_id": "ada"}),
    ("POST", "/v1/access-groups", {"name": "wider"}),
    ("POST", "/v1/mcp/toolset", {"toolset_name": "wider"}),
    ("PATCH", "/v1/settings", {"user_mcp_management_mode": "view_all"}),
    ("POST", "/v1/mcp/make_public", {"mcp_server_ids": [NOTES]}),
)
BOUND: tuple[dict[str, Any], ...] = (
    {
        "routes": (
            "/v1/keys",
            "/v1/users",
            "/v1/teams",
            "/v1/access-groups",
            "/v1/mcp",
            "/v1/settings",
        )
    },
    {"mcp_servers": (NOTES,)},
    {"mcp_tool_permissions": {NOTES: ("add",)}},
    {"mcp_access_groups": ("some",)},
    {"groups": ("some",)},
)


@pytest.mark.parametrize("bound", BOUND, ids=lambda bound: next(iter(bound)))
def test_an_admins_key_with_limits_hands_out_nothing(
    client: As, write: Write, bound: dict[str, Any]
) -> None:
    """It would write itself, or a key or person beside it, more than it has; without limits it is
    its owner."""
    with write() as session:
        make_server(session, "other")
        make_group(session, "some", (NOTES,))
        limited = make_key(session, user_id="ada", **bound)
        issued = keys.list_keys(session, OPERATOR, limit=200).items
    key_id = next(
        key.key_id for key in issued if key.user_id == "ada" and key.key_prefix == limited[:10]
    )
    for method, path, body in WRITES:
        answer = client(limited).ask(method, path.format(key=key_id), json=body)
        assert (answer.status_code, answer.get_json()["detail"]["error"]) == (403, "forbidden"), (
            path
        )
    assert client("ada").get(f"/v1/keys/{key_id}").get_json()["revoked_at"] is None
    assert client("ada").post("/v1/teams", {"team_alias": "wider"}).status_code == 201


def test_a_limit_that_names_nothing_any_more_still_binds(client: As, write: Write) -> None:
    with write() as session:
        gone = make_server(session, "gone")
        limited = make_key(session, user_id="ada", mcp_servers=(gone,))
    assert client("ada").delete(f"/v1/mcp/server/{gone}").status_code == 202
    assert client(limited).post("/v1/teams", {"team_alias": "wider"}).status_code == 403
