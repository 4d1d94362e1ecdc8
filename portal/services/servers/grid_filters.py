"""The grid's filters and order, as conditions that the database evaluates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    String,
    and_,
    bindparam,
    exists,
    false,
    func,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from portal import authorization as authz
from portal.authorization import Horizon
from portal.domain.principals import Principal, Reach
from portal.domain.servers import ApprovalStatus, AuthType, OAuthGrantType
from portal.services.secrets.token_store import KIND
from portal.services.servers.grants import holdings
from portal.services.servers.tool_snapshots import WAITING
from portal.store.models import (
    AcceptedTool,
    AccessGroup,
    AccessGroupServer,
    Server,
    ServerVariable,
    UserCredential,
    UserVariable,
    UtcDateTime,
)


@dataclass(frozen=True)
class GridQuery:
    """The query in the URL. A blank value is no filter, and an unknown value matches nothing."""

    q: str = ""
    status: str = ""
    transport: str = ""
    auth: str = ""
    group: str = ""
    team: str = ""
    health: str = ""
    needs: str = ""
    sort: str = "name"
    view: str = "cards"
    cursor: str = ""

    @property
    def filters(self) -> bool:
        """Whether any filter is set."""
        return any(
            (
                self.q,
                self.status,
                self.transport,
                self.auth,
                self.group,
                self.team,
                self.health,
                self.needs,
            )
        )


def seen(horizon: Horizon, status: str) -> ColumnElement[bool]:
    """Return the condition for servers on the grid.

    That is active servers, and with admin view those under review if `status` asks for them.
    """
    if status in (ApprovalStatus.PENDING_REVIEW, ApprovalStatus.REJECTED):
        return Server.approval_status == status if horizon.admin_view else false()
    return authz.visible_within(horizon)


def matching(horizon: Horizon, query: GridQuery, of_team: Reach | None) -> ColumnElement[bool]:
    """Return the condition on `Server` for a query.

    `of_team` is what the team in the query is granted, if the caller may ask for it. The condition
    uses `CALLER`, like all conditions here that depend on what the caller stored.
    """
    conditions: list[ColumnElement[bool]] = [seen(horizon, query.status)]
    if query.q.strip():
        conditions.append(_matches(horizon, query.q.strip()))
    if query.transport == "openapi":
        conditions.append(Server.has_spec.is_(True))
    elif query.transport:
        conditions.append(Server.transport == query.transport)
    if query.auth == AuthType.NONE:
        conditions.append(or_(Server.auth_type.is_(None), Server.auth_type == "none"))
    elif query.auth:
        conditions.append(Server.auth_type == query.auth)
    if query.group:
        conditions.append(
            Server.server_id.in_(
                select(AccessGroupServer.server_id)
                .join(AccessGroup)
                .where(AccessGroup.name == query.group)
            )
        )
    if query.team:
        conditions.append(authz.servers_of_team(of_team) if of_team is not None else false())
    if query.health:
        conditions.append(Server.health_status == query.health)
    if query.needs:
        conditions.append(_asking(horizon))
    return and_(*conditions)


def team_asked_for(session: Session, principal: Principal, query: GridQuery) -> Reach | None:
    """Return what the team in the query is granted; None if the caller may not ask for it."""
    if not query.team or not authz.may_ask_for_team(principal, query.team):
        return None
    return holdings(session, [("team", query.team)])[("team", query.team)].with_own_groups()


def _matches(horizon: Horizon, text: str) -> ColumnElement[bool]:
    """Match the name, alias or description, and with admin view the host and the exact id.

    `%` and `_` match literally.
    """
    columns = [Server.server_name, Server.alias, Server.description]
    if horizon.admin_view:
        columns.append(Server.address)
    found: list[ColumnElement[bool]] = [
        func.lower(column).contains(text.lower(), autoescape=True) for column in columns
    ]
    return or_(*found, Server.server_id == text)


def _asking(horizon: Horizon) -> ColumnElement[bool]:
    """Return `NEEDING`, and with admin view also servers with tool changes to review."""
    if not horizon.admin_view:
        return NEEDING
    changed = exists().where(
        AcceptedTool.server_id == Server.server_id, AcceptedTool.state.in_(WAITING)
    )
    return or_(NEEDING, changed)


def asks_for_sign_in() -> ColumnElement[bool]:
    """Return the condition on `Server` that is equivalent to `needs_a_person`."""
    by_itself = func.coalesce(Server.oauth2_flow, "") == OAuthGrantType.CLIENT_CREDENTIALS.value
    return or_(
        Server.auth_type == AuthType.OAUTH2_TOKEN_EXCHANGE.value,
        and_(Server.auth_type == AuthType.OAUTH2.value, ~by_itself),
    )


CALLER = bindparam("caller", type_=String())
AT = bindparam("at", type_=UtcDateTime())
"""The user whose values and keys count, and the current time; bound when a statement runs."""


def _needing() -> ColumnElement[bool]:
    value = exists().where(
        UserVariable.user_id == CALLER,
        UserVariable.server_id == ServerVariable.server_id,
        UserVariable.name == ServerVariable.name,
    )
    unset = exists().where(
        ServerVariable.server_id == Server.server_id, ServerVariable.is_required, ~value
    )
    key = exists().where(
        UserCredential.user_id == CALLER,
        UserCredential.server_id == Server.server_id,
        UserCredential.kind == "byok",
    )
    connected = exists().where(
        UserCredential.user_id == CALLER,
        UserCredential.server_id == Server.server_id,
        UserCredential.kind == KIND,
        UserCredential.reconnect_because.is_(None),
        or_(
            UserCredential.renewable,
            UserCredential.expires_at.is_(None),
            UserCredential.expires_at > AT,
        ),
    )
    return or_(unset, and_(Server.is_byok, ~key), and_(asks_for_sign_in(), ~connected))


NEEDING = _needing()
"""Servers that need a value, a key or a sign-in from `CALLER`.

Evaluated server by server, so that a query with a limit stops early instead of first listing
everything that is stored.
"""

_TIMES: dict[str, InstrumentedAttribute[datetime]] = {
    "newest": Server.created_at,
    "changed": Server.updated_at,
}


def ordered(query: GridQuery) -> tuple[Sequence[Any], ColumnElement[bool]]:
    """Return the order, and the condition for rows after the cursor (keyset paging)."""
    key, _, server_id = query.cursor.rpartition("~")
    column = _TIMES.get(query.sort)
    if column is None:
        after = tuple_(Server.sort_key, Server.server_id) > (key, server_id)
        return (Server.sort_key, Server.server_id), after if query.cursor else true()
    try:
        at = datetime.fromisoformat(key)
    except ValueError:
        return (column.desc(), Server.server_id), true()
    return (column.desc(), Server.server_id), or_(
        column < at, and_(column == at, Server.server_id > server_id)
    )


def cursor_of(query: GridQuery, row: Server) -> str:
    """Return the cursor of the page that begins after `row`."""
    column = _TIMES.get(query.sort)
    key = row.sort_key if column is None else getattr(row, column.key).isoformat()
    return f"{key}~{row.server_id}"
