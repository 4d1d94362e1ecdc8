"""Queries that load servers with everything a decision or a view needs, in a fixed number."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Session, selectinload

from portal import authorization as authz
from portal.authorization import Action, Horizon, ServerFacts, Show
from portal.domain.errors import Forbidden, LookOnly, NotFound
from portal.domain.principals import Principal
from portal.services.runtime import runtime_of
from portal.services.secrets.token_store import KIND, MORE_RIGHTS, is_usable, needs_a_person
from portal.store.database import read
from portal.store.models import (
    AccessGroup,
    AccessGroupServer,
    Grant,
    Server,
    ServerSecret,
    ServerVariable,
    Team,
    UserCredential,
    UserVariable,
    now,
)

# One statement for each, for any number of rows. Both databases accept this many parameters; the
# default chunk is 500 rows.
_CHUNK = 30_000
PARTS = (
    selectinload(Server.secrets, chunksize=_CHUNK),
    selectinload(Server.variables, chunksize=_CHUNK),
)


class GroupRef(NamedTuple):
    """An access group, by id and name."""

    access_group_id: str
    name: str


def find_server(
    session: Session,
    principal: Principal,
    reference: str,
    action: Action,
    *,
    lock: bool = False,
    parts: bool = True,
) -> ServerFacts:
    """Return the server with this id, name or alias, if `principal` may do `action` to it.

    `parts` loads its secrets and variables at once; `lock` locks the row. Raises `NotFound` with
    admin view and `Forbidden` without, whether the server exists or not, so that ids cannot be
    guessed; and `LookOnly` for callers who may see it but not do `action`.
    """
    row = session.scalar(_FIND[parts, lock], {"reference": reference})
    server = facts(session, row) if row else None
    if server is None or not authz.may_see(principal, server):
        if authz.has_admin_view(principal):
            raise NotFound(
                f"MCP Server not found, passed server_id={reference[:64]}", field="server_id"
            )
        raise Forbidden("MCP server not found, or you do not have access to it.")
    if not authz.may(principal, action, server):
        raise LookOnly(authz.refusal(action))
    return server


def is_called(reference: str | BindParameter[str]) -> ColumnElement[bool]:
    """Return the condition that a server has this id, name or alias."""
    return or_(
        Server.server_id == reference, Server.alias == reference, Server.server_name == reference
    )


def _found(*, parts: bool, lock: bool) -> Select[Server]:
    reference: BindParameter[str] = bindparam("reference")
    # Ids take precedence, so that no server can shadow another by using its id as a name.
    query = (
        select(Server)
        .where(is_called(reference))
        .order_by((Server.server_id == reference).desc())
        .limit(1)
        .options(*(PARTS if parts else ()))
    )
    return query.with_for_update(of=Server) if lock else query


# Made once, because nearly every request finds a server; making it takes longer than running it.
_FIND = {
    (parts, lock): _found(parts=parts, lock=lock)
    for parts in (True, False)
    for lock in (True, False)
}


def facts(session: Session, row: Server) -> ServerFacts:
    """Return the facts that decisions about `row` need."""
    return ServerFacts(
        row, frozenset(group.access_group_id for group in groups_of(session, [row])[row.server_id])
    )


def names_known_to(
    principal: Principal,
) -> tuple[ColumnElement[str | None], ColumnElement[str | None]]:
    """Return the name and alias columns of a server, null if the caller may no longer see it."""
    seen = authz.visible_servers(principal)
    return case((seen, Server.server_name)), case((seen, Server.alias))


def groups_of(session: Session, rows: Iterable[Server]) -> dict[str, tuple[GroupRef, ...]]:
    """Return the access groups of each server, sorted by name."""
    ids = [row.server_id for row in rows]
    found: dict[str, list[GroupRef]] = {server_id: [] for server_id in ids}
    for server_id, group_id, name in read(session, _GROUPS, ids=ids).all():
        found[server_id].append(GroupRef(group_id, name))
    return {server_id: tuple(groups) for server_id, groups in found.items()}


_IDS: BindParameter[list[str]] = bindparam("ids", expanding=True)
_GROUPS = (
    select(AccessGroupServer.server_id, AccessGroup.access_group_id, AccessGroup.name)
    .join(AccessGroup, AccessGroup.access_group_id == AccessGroupServer.access_group_id)
    .where(AccessGroupServer.server_id.in_(_IDS))
    .order_by(AccessGroup.name)
)


def teams_of(session: Session, rows: Iterable[Server]) -> dict[str, list[dict[str, str]]]:
    """Return the teams granted each server, directly or through a group, sorted by name."""
    ids = [row.server_id for row in rows]
    found: dict[str, list[dict[str, str]]] = {server_id: [] for server_id in ids}
    for server_id, team_id, alias in sorted(
        read(session, _TEAMS, ids=ids), key=lambda r: (r[2].casefold(), r[1])
    ):
        found[str(server_id)].append({"team_id": team_id, "team_alias": alias})
    return found


_OF_TEAM = and_(Grant.holder_kind == "team", Grant.holder_id == Team.team_id)
_TEAMS = (
    select(Grant.server_id, Team.team_id, Team.team_alias)
    .join(Team, _OF_TEAM)
    .where(Grant.server_id.in_(_IDS))
    .union(
        select(AccessGroupServer.server_id, Team.team_id, Team.team_alias)
        .join(Grant, Grant.access_group_id == AccessGroupServer.access_group_id)
        .join(Team, _OF_TEAM)
        .where(AccessGroupServer.server_id.in_(_IDS))
    )
)


Parts = tuple[Sequence[ServerSecret], Sequence[ServerVariable]]
"""The sealed parts of a server, or rows that read like them; its credentials may be missing."""


def shown_parts(session: Session, rows: Iterable[Row[Any]]) -> dict[str, Parts]:
    """Return the parts of each server that can be shown, as plain rows.

    Of the credentials, reads only the token exchange endpoint.
    """
    found: dict[str, tuple[list[Any], list[Any]]] = {row.server_id: ([], []) for row in rows}
    for kind, statement in enumerate((_SECRETS, _VARIABLES)):
        for part in read(session, statement, ids=list(found)).all():
            found[part.server_id][kind].append(part)
    return dict(found)


_SECRETS = (
    select(
        ServerSecret.server_id,
        ServerSecret.field,
        ServerSecret.name,
        ServerSecret.sealed,
        ServerSecret.bound,
        ServerSecret.hint,
    )
    .where(
        ServerSecret.server_id.in_(_IDS),
        or_(ServerSecret.field != "credentials", ServerSecret.name == "token_exchange_endpoint"),
    )
    .order_by(ServerSecret.position)
)
_VARIABLES = (
    select(
        ServerVariable.server_id,
        ServerVariable.name,
        ServerVariable.scope,
        ServerVariable.description,
        ServerVariable.sealed,
        ServerVariable.bound,
    )
    .where(ServerVariable.server_id.in_(_IDS))
    .order_by(ServerVariable.position)
)


def keys_held(session: Session, principal: Principal, rows: Iterable[Server]) -> frozenset[str]:
    """Return the BYOK servers among `rows` for which the caller stored a readable key."""
    ids = [row.server_id for row in rows if row.is_byok]
    if not ids or principal.user_id is None:
        return frozenset()
    vault = runtime_of(session).vault
    held = read(session, _KEYS, user_id=principal.user_id, ids=ids)
    return frozenset(server_id for server_id, sealed in held.all() if vault.knows_key_of(sealed))


_KEYS = select(UserCredential.server_id, UserCredential.sealed).where(
    UserCredential.user_id == bindparam("user_id"),
    UserCredential.kind == "byok",
    UserCredential.server_id.in_(_IDS),
)


def sign_ins(session: Session, principal: Principal, rows: Iterable[Server]) -> dict[str, str]:
    """Return the state of the caller's connection to each OAuth server among `rows`, in one query.

    The states are `connect`, `expired`, `more_rights` and `connected`. Servers that need no sign-in
    are left out.
    """
    ids = [row.server_id for row in rows if needs_a_person(row)]
    if not ids:
        return {}
    mine = (UserCredential.user_id == principal.user_id, UserCredential.kind == KIND)
    query = select(UserCredential).where(*mine, UserCredential.server_id.in_(ids))
    vault = runtime_of(session).vault
    at = now()
    found = dict.fromkeys(ids, "connect")
    for credential in session.scalars(query):
        if vault.knows_key_of(credential.sealed):
            if not is_usable(credential, at):
                state = "expired"
            elif credential.reconnect_because == MORE_RIGHTS:
                state = MORE_RIGHTS
            else:
                state = "connected"
            found[credential.server_id] = state
    return found


@dataclass(frozen=True)
class RequiredVariable:
    """A variable that the caller must set. A value whose key is lost counts as not set."""

    name: str
    description: str | None
    is_set: bool
    updated_at: datetime | None


def required_of(
    session: Session, principal: Principal, ids: Iterable[str]
) -> dict[str, tuple[RequiredVariable, ...]]:
    """Return the required variables of servers, in one query."""
    vault = runtime_of(session).vault
    found: dict[str, list[RequiredVariable]] = defaultdict(list)
    rows = read(session, _REQUIRED_OF, user_id=principal.user_id, ids=list(ids))
    for server_id, name, description, sealed, updated_at in rows.all():
        is_set = sealed is not None and vault.knows_key_of(sealed)
        found[server_id].append(
            RequiredVariable(name, description, is_set, updated_at if is_set else None)
        )
    return {server_id: tuple(variables) for server_id, variables in found.items()}


_OWN_VALUE = and_(
    UserVariable.server_id == ServerVariable.server_id,
    UserVariable.name == ServerVariable.name,
    UserVariable.user_id == bindparam("user_id"),
)
_REQUIRED_OF = (
    select(
        ServerVariable.server_id,
        ServerVariable.name,
        ServerVariable.description,
        UserVariable.sealed,
        UserVariable.updated_at,
    )
    .outerjoin(UserVariable, _OWN_VALUE)
    .where(ServerVariable.is_required, ServerVariable.server_id.in_(_IDS))
    .order_by(ServerVariable.server_id, ServerVariable.position)
)


@lru_cache(maxsize=256)
def required_within(
    seen: Horizon,
) -> Select[str, str | None, str | None, str, str | None, bytes | None]:
    """Return the statement for the required variables of all visible servers, by server name.

    The columns are the server's id, name and alias, the variable's name and description, and the
    value that `user_id` has sealed for it.
    """
    return (
        select(
            Server.server_id,
            Server.server_name,
            Server.alias,
            ServerVariable.name,
            ServerVariable.description,
            UserVariable.sealed,
        )
        .join(ServerVariable, ServerVariable.server_id == Server.server_id)
        .outerjoin(UserVariable, _OWN_VALUE)
        .where(authz.visible_within(seen), ServerVariable.is_required)
        .order_by(Server.sort_key, Server.server_id, ServerVariable.position)
    )


def counting(condition: ColumnElement[bool], most: int) -> Select[int]:
    """Return the statement that counts the servers that meet a condition, up to `most`."""
    return select(func.count()).select_from(
        select(Server.server_id).where(condition).limit(most).subquery()
    )


def shows_parts(principal: Principal) -> bool:
    """Return whether the viewer sees any sealed parts, so that they have to be read."""
    return authz.shown(principal, "url") is not None


def reads_verbatim(principal: Principal) -> bool:
    """Return whether the viewer reads the sealed parts in plain text."""
    return authz.shown(principal, "url") is Show.VERBATIM


def by_reference(session: Session, reference: str) -> Server | None:
    """Return the server with this id, else alias or name. Checks no permission."""
    order = (Server.server_id == reference).desc()
    return session.scalar(
        select(Server).where(is_called(reference)).order_by(order).limit(1).options(*PARTS)
    )


def prefix_of(row: Server) -> str:
    """Return the name that a server is published under: its alias, else its name, else its id."""
    return row.alias or row.server_name or row.server_id
