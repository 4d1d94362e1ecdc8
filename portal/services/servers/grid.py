"""The grid: one page of cards, filtered in the database with a fixed number of queries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Select, and_, bindparam, exists, or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, Horizon
from portal.domain.principals import Principal, Reach
from portal.domain.servers import AuthType
from portal.services.servers import queries
from portal.services.servers.cards import ServerCard, cards_of
from portal.services.servers.grid_filters import (
    NEEDING,
    GridQuery,
    asks_for_sign_in,
    cursor_of,
    matching,
    ordered,
    seen,
    team_asked_for,
)
from portal.store.database import read
from portal.store.models import AccessGroup, AccessGroupServer, Server, ServerVariable, Team, now

PAGE_SIZE = 48
COUNT_AT_MOST = 1000
TRANSPORTS = (
    ("http", "Streamable HTTP"),
    ("sse", "SSE"),
    ("stdio", "stdio"),
    ("openapi", "OpenAPI"),
)
AUTH_TYPES = tuple((auth.value, auth.label) for auth in AuthType)
HEALTH = (("healthy", "Healthy"), ("unhealthy", "Unhealthy"), ("unknown", "Unknown"))
STATUSES = (
    ("active", "Active"),
    ("pending_review", "Waiting for review"),
    ("rejected", "Rejected"),
)
SORTS = (("name", "Name"), ("newest", "Newest"), ("changed", "Recently changed"))


@dataclass(frozen=True)
class GridChoices:
    """The options of the grid's filters, as pairs of value and label."""

    groups: tuple[tuple[str, str], ...]
    teams: tuple[tuple[str, str], ...]
    statuses: tuple[tuple[str, str], ...]
    transports: tuple[tuple[str, str], ...] = TRANSPORTS
    auth_types: tuple[tuple[str, str], ...] = AUTH_TYPES
    health_states: tuple[tuple[str, str], ...] = HEALTH
    sorts: tuple[tuple[str, str], ...] = SORTS


@dataclass(frozen=True)
class GridPage:
    """One page of the grid."""

    cards: tuple[ServerCard, ...]
    total: int
    total_is_capped: bool
    next_cursor: str | None
    query: GridQuery
    exists_any: bool
    choices: GridChoices


def get_grid(session: Session, principal: Principal, query: GridQuery) -> GridPage:
    """Return the cards that match `query`, among the servers the caller may see."""
    horizon = authz.horizon(principal)
    of_team = team_asked_for(session, principal, query)
    listing, counting = _statements(horizon, query, of_team)
    caller = {"caller": principal.user_id, "at": now()}
    rows = _rows(session, listing, caller)
    page = rows[:PAGE_SIZE]
    whole = len(page) == len(rows) and not query.cursor
    total = len(page) if whole else read(session, counting, **caller).scalar_one()
    any_there = bool(page) or (
        query.filters and read(session, _first_seen(horizon)).first() is not None
    )
    return GridPage(
        cards=cards_of(session, principal, page),
        total=min(total, COUNT_AT_MOST),
        total_is_capped=total > COUNT_AT_MOST,
        next_cursor=cursor_of(query, page[-1]) if len(rows) > PAGE_SIZE else None,
        query=query,
        exists_any=any_there,
        choices=GridChoices(
            groups=tuple((name, name) for name in read(session, _group_names(horizon)).scalars()),
            teams=tuple((team_id, alias) for team_id, alias in _team_names(session, principal)),
            statuses=STATUSES if horizon.admin_view else (),
        ),
    )


@lru_cache(maxsize=256)
def _statements(
    horizon: Horizon, query: GridQuery, of_team: Reach | None
) -> tuple[Select[Any], Select[int]]:
    """Return the statement that lists a page of the grid, and the one that counts all matches."""
    condition = matching(horizon, query, of_team)
    order, after = ordered(query)
    listing = select(*_COLUMNS).where(condition, after).order_by(*order).limit(PAGE_SIZE + 1)
    return listing, queries.counting(condition, COUNT_AT_MOST + 1)


@lru_cache(maxsize=256)
def _first_seen(horizon: Horizon) -> Select[str]:
    return select(Server.server_id).where(seen(horizon, "")).limit(1)


def _rows(session: Session, listing: Select[Any], values: Mapping[str, object]) -> Sequence[Server]:
    """Return rows of `_COLUMNS`, which cards read like servers.

    Loading full objects is 3 times slower.
    """
    return cast(Sequence[Server], read(session, listing, **values).all())


_COLUMNS = (
    Server.server_id,
    Server.server_name,
    Server.alias,
    Server.description,
    Server.transport,
    Server.has_spec,
    Server.auth_type,
    Server.mcp_info,
    Server.available_on_public_internet,
    Server.is_public,
    Server.origin,
    Server.allow_all_keys,
    Server.is_byok,
    Server.oauth2_flow,
    Server.delegate_auth_to_upstream,
    Server.approval_status,
    Server.address,
    Server.command,
    Server.version,
    Server.sort_key,
    Server.created_at,
    Server.updated_at,
    Server.health_status,
    Server.health_reason,
    Server.health_error,
    Server.health_checked_at,
    Server.health_latency_ms,
    Server.protocol_version,
)


def get_card(session: Session, principal: Principal, server_id: str) -> ServerCard:
    """Return one card. Raises `NotFound` or, without admin view, `Forbidden`."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_READ).row
    return cards_of(session, principal, [row])[0]


def list_cards_of_mine(session: Session, principal: Principal) -> tuple[ServerCard, ...]:
    """Return the servers that need the caller's own values, key or sign-in."""
    asks = or_(
        Server.is_byok,
        asks_for_sign_in(),
        exists().where(ServerVariable.server_id == Server.server_id, ServerVariable.is_required),
    )
    query = (
        select(*_COLUMNS)
        .where(authz.usable_servers(principal), asks)
        .order_by(Server.sort_key, Server.server_id)
    )
    return cards_of(session, principal, _rows(session, query.limit(500), {}))


def list_usable(session: Session, principal: Principal) -> list[tuple[str, str]]:
    """Return the ids and names of up to 500 servers that the caller may use, by name."""
    query = select(Server.server_id, Server.server_name, Server.alias).where(
        authz.usable_servers(principal)
    )
    rows = session.execute(query.order_by(Server.sort_key, Server.server_id).limit(500))
    return [(server_id, name or alias or server_id) for server_id, name, alias in rows]


def needs_count(session: Session, principal: Principal) -> int:
    """Count the servers that need something from the caller, up to 100."""
    query = _needs_count(authz.horizon(principal))
    return read(session, query, caller=principal.user_id, at=now()).scalar_one()


@lru_cache(maxsize=256)
def _needs_count(horizon: Horizon) -> Select[int]:
    return queries.counting(and_(authz.usable_within(horizon), NEEDING), 100)


@lru_cache(maxsize=256)
def _group_names(horizon: Horizon) -> Select[str]:
    """Return the access groups a filter offers: all with admin view, else those of visible servers.

    Reads only the first 1,000 servers by name, the limit of the grid's count, because every page
    asks.
    """
    names = select(AccessGroup.name).order_by(AccessGroup.name).limit(200)
    if horizon.admin_view:
        return names
    seen_first = select(Server.server_id).where(authz.visible_within(horizon))
    seen_first = seen_first.order_by(Server.sort_key, Server.server_id).limit(COUNT_AT_MOST)
    groups = select(AccessGroupServer.access_group_id).where(
        AccessGroupServer.server_id.in_(seen_first)
    )
    return names.where(AccessGroup.access_group_id.in_(groups))


def _team_names(session: Session, principal: Principal) -> Iterable[tuple[str, str]]:
    """Return the teams a filter offers: all with admin view, else the caller's own."""
    if authz.has_admin_view(principal):
        return read(session, _TEAMS)
    if not principal.team_ids:
        return ()
    return read(session, _OWN_TEAMS, team_ids=sorted(principal.team_ids))


_TEAMS = select(Team.team_id, Team.team_alias).order_by(Team.team_alias).limit(200)
_OWN_TEAMS = _TEAMS.where(Team.team_id.in_(bindparam("team_ids", expanding=True)))
