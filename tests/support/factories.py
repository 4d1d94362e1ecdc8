"""Things to test with, made by the portal's own use cases as the operator: plain functions, no
library.

Every made-up secret holds the word SECRET, so that a test can look for it where none may be.
"""

from typing import Any

from sqlalchemy.orm import Session

from portal.domain.principals import OPERATOR, Role
from portal.domain.servers import AuthType, OAuthGrantType, Transport
from portal.domain.upstream import ToolDefinition
from portal.services.access import access_groups, keys, teams, users
from portal.services.access.keys import KeyDraft
from portal.services.servers import crud, tool_snapshots
from portal.services.servers.grants import ObjectPermission
from portal.store.models import Server

NOBODY_LISTENS = "http://127.0.0.1:9"
PASSWORD = "correct horse SECRET staple"


def make_server(session: Session, name: str, **fields: Any) -> str:
    """Add an http server at an address where nobody listens, under the id `id-{name}`; answer that
    id."""
    defaults = {
        "server_id": f"id-{name}",
        "server_name": name,
        "transport": "http",
        "url": f"{NOBODY_LISTENS}/{name}",
    }
    given = {**defaults, **fields}
    for field, words in (
        ("transport", Transport),
        ("auth_type", AuthType),
        ("oauth2_flow", OAuthGrantType),
    ):
        if field in given:
            given[field] = words(given[field])
    return crud.create_server(session, OPERATOR, given).server_id  # type: ignore[arg-type]


def see_tools(session: Session, server_id: str, *names: str) -> None:
    """Note that a server has tools of these names, as after a look at it."""
    subject = tool_snapshots.subject_of(session.get_one(Server, server_id))
    tools = [ToolDefinition({"name": name, "inputSchema": {"type": "object"}}) for name in names]
    entries = tool_snapshots.entries_of(tools)
    tool_snapshots.compare_tools(session, OPERATOR, subject, entries, by_admin=True)


def make_user(
    session: Session, name: str, role: Role = Role.MEMBER, *, servers: tuple[str, ...] = ()
) -> str:
    """Add a person called `name`, with direct grants; answer their id, which is the name."""
    fields = {
        "user_id": name,
        "email": f"{name}@example.com",
        "display_name": name.capitalize(),
        "role": role.value,
        "password": PASSWORD,
    }
    return users.create_user(
        session, OPERATOR, fields, ObjectPermission(mcp_servers=servers)
    ).user_id


def make_team(
    session: Session,
    name: str,
    *,
    members: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
    **permission: Any,
) -> str:
    """Add a team with members, `access_group_ids` and an object permission; answer its id,
    `team-{name}`."""
    fields = {"team_id": f"team-{name}", "team_alias": name}
    roles = [(member, "user") for member in members]
    return teams.create_team(
        session, OPERATOR, fields, ObjectPermission(**permission), groups, roles
    ).team_id


def make_group(session: Session, name: str, servers: tuple[str, ...] = ()) -> str:
    """Add an access group; answer its id."""
    return access_groups.create_group(session, OPERATOR, name, None, servers).access_group_id


def make_key(
    session: Session,
    *,
    user_id: str | None = None,
    team_id: str | None = None,
    secret: str | None = None,
    routes: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
    **permission: Any,
) -> str:
    """Issue an API key with an object permission; answer its secret."""
    draft = KeyDraft(
        user_id=user_id,
        team_id=team_id,
        allowed_routes=routes,
        access_group_ids=groups,
        object_permission=ObjectPermission(**permission),
    )
    return keys.issue_key(session, OPERATOR, draft, secret=secret).key
