"""MCP servers: list, read, add, change, delete."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Integer, Select, String, bindparam, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, Horizon
from portal.domain.errors import Conflict, Forbidden, InvalidRequest, NotFound
from portal.domain.principals import Principal, Reach
from portal.domain.servers import (
    ServerFields,
    Transport,
    check_server_id,
    check_values,
)
from portal.services import audit
from portal.services.oauth_client import revocation
from portal.services.oauth_client.flows import forget_flows
from portal.services.servers import kept_secrets, queries
from portal.services.servers.audit_facts import audit_facts_of
from portal.services.servers.changes import (
    change_row,
    check_result,
    refuse_taken_names,
    require_commands,
    set_names,
    with_conflicts_named,
)
from portal.services.servers.destinations import Said
from portal.services.servers.grants import holdings
from portal.services.servers.secret_moves import Settled
from portal.services.servers.views import (
    ServerView,
    columns_of,
    list_objects,
    shown_fields,
    view_server,
)
from portal.store.database import read
from portal.store.models import (
    ApiKey,
    Grant,
    Server,
    Team,
    UserCredential,
    UserVariable,
    new_id,
    now,
)
from portal.store.oauth_tables import McpClient

MAX_PAGE = 200


@dataclass(frozen=True)
class ServerPage:
    """One page of the list. Each item has the fields of `ServerView`.

    `next_cursor` is None on the last page.
    """

    items: list[dict[str, Any]]
    next_cursor: tuple[str, str] | None


@dataclass(frozen=True)
class CutOff:
    """Who loses access when a server is deleted: names of teams and groups, and counts."""

    teams: tuple[str, ...]
    keys: int
    people_with_values: int
    access_groups: tuple[str, ...]


def list_servers(
    session: Session,
    principal: Principal,
    *,
    team_id: str | None = None,
    limit: int | None = None,
    after: tuple[str, str] | None = None,
) -> ServerPage:
    """Return the servers that the caller may see, by name: all, or a page of `limit` (1 to 200).

    With `team_id`, only servers granted to that team; allowed with admin view and for its members,
    never for restricted keys.
    """
    team_id = (team_id or "").strip()
    of_team = _asked_for(session, principal, team_id) if team_id else None
    most = MAX_PAGE if limit is None else min(limit, MAX_PAGE)
    statement = _listing(
        authz.horizon(principal),
        tuple(shown_fields(principal)),
        of_team,
        is_page=limit is not None,
        is_later=after is not None,
    )
    place = dict(zip(("after_key", "after_id"), after or (), strict=False))
    rows = read(session, statement, **({} if limit is None else {"most": most + 1}), **place).all()
    more = limit is not None and len(rows) > most
    rows = rows[:most] if more else rows
    cursor = (rows[-1].sort_key, rows[-1].server_id) if more else None
    return ServerPage(list_objects(session, principal, rows), cursor)


@lru_cache(maxsize=256)
def _listing(
    horizon: Horizon,
    shown: tuple[str, ...],
    of_team: Reach | None,
    *,
    is_page: bool,
    is_later: bool,
) -> Select[Any]:
    """Return the statement of a list, cached for callers who see the same servers and fields."""
    statement = select(*columns_of(shown)).where(authz.visible_within(horizon))
    if of_team is not None:
        statement = statement.where(authz.servers_of_team(of_team))
    if is_later:
        place = tuple_(bindparam("after_key", type_=String), bindparam("after_id", type_=String))
        statement = statement.where(tuple_(Server.sort_key, Server.server_id) > place)
    statement = statement.order_by(Server.sort_key, Server.server_id)
    return statement.limit(bindparam("most", type_=Integer)) if is_page else statement


def get_server(session: Session, principal: Principal, reference: str) -> ServerView:
    """Return a server by id, name or alias.

    Raises `NotFound` or, without admin view, `Forbidden`.
    """
    server = queries.find_server(session, principal, reference, Action.SERVER_READ)
    return view_server(session, principal, server.row)


def create_server(session: Session, principal: Principal, fields: ServerFields) -> ServerView:
    """Add a server, active immediately.

    Raises what the rules of `domain/servers.py` raise, and `Conflict` for a taken name.
    """
    authz.require(principal, Action.SERVER_CREATE)
    fields = kept_secrets.settled(session, principal, None, fields)
    check_values(fields)
    require_commands(principal, None, fields)
    server_id = fields.get("server_id") or new_id()
    check_server_id(server_id)
    author = principal.signature
    transport = fields.get("transport") or Transport.SSE
    row = Server(
        server_id=server_id, transport=transport.value, created_by=author, updated_by=author
    )
    set_names(row, fields)
    check_result(session, row, fields)
    if session.get(Server, server_id) is not None:
        raise InvalidRequest(
            f"MCP Server with id {server_id[:64]} already exists.",
            code="already_exists",
            field="server_id",
        )
    refuse_taken_names(session, row)
    with_conflicts_named(session, row, fields, Said())
    audit.record(
        session,
        principal,
        "server created",
        "server",
        server_id,
        name=_called(row),
        fields=_names(fields),
        changes=audit.changed(None, audit_facts_of(session, row)),
    )
    return view_server(session, principal, row)


def update_server(
    session: Session, principal: Principal, server_id: str, fields: ServerFields
) -> ServerView:
    """Change a server without returning what happened to stored secrets. See `change_server`."""
    return change_server(session, principal, server_id, fields)[0]


def change_server(
    session: Session, principal: Principal, server_id: str, fields: ServerFields
) -> tuple[ServerView, Settled]:
    """Change the given fields, and return the server and what happened to stored secrets.

    Raises `Conflict` with `stale_version` if the caller edited an old version, and with
    `credentials_would_move` if stored secrets would be sent to another host without permission.
    """
    if not authz.is_admin(principal):
        raise Forbidden("Only an Admin (PROXY_ADMIN) may call PUT /v1/mcp/server.")
    check_values(kept_secrets.without_masks(fields))
    row = queries.find_server(session, principal, server_id, Action.SERVER_UPDATE, lock=True).row
    fields = kept_secrets.settled(session, principal, row, fields)
    version = fields.get("version")
    if version is not None and version != row.version:
        raise Conflict(
            f"Someone else changed this server; it is now at version {row.version}. Reload it and"
            " try again.",
            code="stale_version",
            field="version",
            current_version=row.version,
        )
    before = audit_facts_of(session, row)
    settled = change_row(session, principal, row, fields)
    row.version += 1
    row.updated_by, row.updated_at = principal.signature, now()
    session.flush()
    audit.record(
        session,
        principal,
        "server changed",
        "server",
        row.server_id,
        name=_called(row),
        fields=_names(fields),
        changes=audit.changed(before, audit_facts_of(session, row)),
    )
    return view_server(session, principal, row), settled


def delete_server(session: Session, principal: Principal, server_id: str) -> str:
    """Delete a server with its grants, group entries and stored values, and return its name."""
    if not authz.is_admin(principal):
        raise Forbidden("Only an Admin (PROXY_ADMIN) may delete MCP servers.")
    row = queries.find_server(session, principal, server_id, Action.SERVER_DELETE, lock=True).row
    name = _called(row)
    changes = audit.changed(audit_facts_of(session, row), None)
    # Grants stay as rows without a server: they grant nothing, but still limit their holder.
    session.execute(
        update(Grant).where(Grant.server_id == row.server_id).values(server_id=None, tools=[])
    )
    to_revoke = revocation.note_for_revocation(session, UserCredential.server_id == row.server_id)
    forget_flows(session, server_id=row.server_id)
    session.execute(delete(McpClient).where(McpClient.server_id == row.server_id))
    session.delete(row)
    audit.record(
        session,
        principal,
        "server deleted",
        "server",
        row.server_id,
        name=name,
        changes=changes,
        connections_to_revoke=to_revoke,
    )
    session.flush()
    return name


def cut_off(session: Session, principal: Principal, server_id: str) -> CutOff:
    """Return who would lose access if the server were deleted."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT).row
    people = select(UserVariable.user_id).where(UserVariable.server_id == row.server_id)
    people_with_keys = select(UserCredential.user_id).where(
        UserCredential.server_id == row.server_id
    )
    keys = (
        select(func.count())
        .select_from(ApiKey)
        .join(Grant, (Grant.holder_kind == "key") & (Grant.holder_id == ApiKey.key_id))
    )
    return CutOff(
        teams=tuple(team["team_alias"] for team in queries.teams_of(session, [row])[row.server_id]),
        keys=session.scalar(
            keys.where(Grant.server_id == row.server_id, ApiKey.revoked_at.is_(None))
        )
        or 0,
        people_with_values=session.scalar(
            select(func.count()).select_from(people.union(people_with_keys).subquery())
        )
        or 0,
        access_groups=tuple(
            group.name for group in queries.groups_of(session, [row])[row.server_id]
        ),
    )


def publish_servers(session: Session, principal: Principal, server_ids: list[str]) -> list[str]:
    """Make exactly these servers public.

    Raises `NotFound` for an unknown id, and then changes nothing.
    """
    authz.require(principal, Action.PREFERENCE_MANAGE)
    known = set(session.scalars(select(Server.server_id).where(Server.server_id.in_(server_ids))))
    for server_id in server_ids:
        if server_id not in known:
            raise NotFound(
                f"MCP Server not found, passed server_id={server_id[:64]}", field="mcp_server_ids"
            )
    before = session.scalars(
        select(Server.server_id).where(Server.is_public).order_by(Server.server_id)
    ).all()
    # Registry clients ask for changes since their last request, so a new listing counts as a
    # change.
    listed = Server.server_id.in_(known)
    session.execute(
        update(Server).where(listed, ~Server.is_public).values(is_public=True, updated_at=now())
    )
    session.execute(update(Server).where(Server.is_public, ~listed).values(is_public=False))
    changes = audit.changed(
        {"public_mcp_servers": list(before)}, {"public_mcp_servers": sorted(known)}
    )
    audit.record(session, principal, "public servers changed", "settings", None, changes=changes)
    session.flush()
    return list(dict.fromkeys(server_ids))


def _asked_for(session: Session, principal: Principal, team_id: str) -> Reach:
    """Return what a team is granted. Raises `Forbidden` if the caller may not ask."""
    if not authz.may_ask_for_team(principal, team_id):
        raise Forbidden("You do not have access to the servers of this team.")
    if session.get(Team, team_id) is None:
        raise NotFound(f"Team not found: {team_id[:64]}", field="team_id")
    return holdings(session, [("team", team_id)])[("team", team_id)].with_own_groups()


def _called(row: Server) -> str:
    return row.server_name or row.alias or row.server_id


def _names(fields: ServerFields) -> list[str]:
    return sorted(name for name in fields if name not in ("version", "keep_credentials"))
