"""What API keys reach, in words and numbers, for existing keys and for previews."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, Horizon, KeyFault, SetBy
from portal.domain.errors import Forbidden, InvalidRequest
from portal.domain.principals import Principal, Reach
from portal.services.access.principals import judge_keys
from portal.services.servers.grants import holdings, resolve_servers
from portal.store.models import ApiKey, Server, Team, User

_MOST_NAMES = 12


@dataclass(frozen=True)
class KeyReach:
    """What a key reaches now: the number of servers, and the reason for people.

    `basis` is the reason for programs: `owner` (what its owner reaches), `owner_and_limits` (the
    intersection of that with its own grants or its team's), `grants` (its own grants), `team` (its
    team's grants), `role` (every server, by its owner's role), `open` (only servers open to
    everyone) or `nothing`.
    """

    basis: str
    why: str
    server_count: int


@dataclass(frozen=True)
class ReachPreview:
    """What a new key would reach: the first names in order, and the total."""

    names: tuple[str, ...]
    server_count: int
    open_count: int
    """The number of them that are open to everyone; a key's limits do not exclude these."""
    is_limited: bool
    team_alias: str | None


def describe_reaches(
    session: Session, principal: Principal, rows: Sequence[ApiKey]
) -> dict[str, KeyReach]:
    """Return what each key reaches now, by key id, seen from the caller's address.

    Checks no permission: callers check first who may see the keys.
    """
    judged = judge_keys(session, [row.key_id for row in rows], principal.address)
    teams = _aliases(session, rows)
    people = _names(session, rows, principal)
    counts: dict[Horizon, int] = {}
    found = {}
    for row in rows:
        fault, key = judged[row.key_id]
        if fault is not None:
            why = _why_nothing(
                fault, people.get(row.user_id or "", ""), teams.get(row.team_id or "", "")
            )
            found[row.key_id] = KeyReach("nothing", why, 0)
            continue
        horizon = authz.horizon(key)
        if horizon not in counts:
            counts[horizon] = _count(session, key)
        basis, why = _basis(
            row, key, people.get(row.user_id or "", ""), teams.get(row.team_id or "", "")
        )
        found[row.key_id] = KeyReach(basis, why, counts[horizon])
    return found


def preview_own(
    session: Session, principal: Principal, *, team_id: str | None, server_ids: Collection[str]
) -> ReachPreview:
    """Return what a key of the caller's would reach with this team and these servers.

    Servers that the caller may not choose are ignored here; creating the key refuses them.
    """
    authz.require(principal, Action.KEY_OWN)
    chosen = _resolved(session, server_ids)
    own = Reach(
        server_ids=chosen,
        names_anything=bool(server_ids),
        explicit_servers=chosen if server_ids else None,
    )
    is_member = team_id is not None and team_id in principal.team_ids
    team = None
    if is_member and team_id:
        team = holdings(session, [("team", team_id)])[("team", team_id)].with_own_groups()
    asking = Principal(
        name=principal.name,
        role=principal.role,
        user_id=principal.user_id,
        key_id="new",
        team_id=team_id,
        is_internal=principal.is_internal,
        address=principal.address,
    )
    key = authz.reach_of_key(asking, own=own, own_groups=None, team=team, owner=principal)
    usable = select(Server.server_name, Server.alias, Server.server_id).where(
        authz.usable_servers(key)
    )
    names = [
        name or alias or i
        for name, alias, i in session.execute(usable.order_by(Server.sort_key).limit(_MOST_NAMES))
    ]
    open_to_all = (
        select(func.count())
        .select_from(Server)
        .where(authz.usable_servers(key), Server.allow_all_keys)
    )
    alias = (
        session.scalar(select(Team.team_alias).where(Team.team_id == team_id))
        if is_member
        else None
    )
    return ReachPreview(
        tuple(names),
        _count(session, key),
        session.scalar(open_to_all) or 0,
        bool(server_ids),
        alias,
    )


def _resolved(session: Session, server_ids: Collection[str]) -> frozenset[str]:
    found = set()
    for server_id in server_ids:
        try:
            found |= set(resolve_servers(session, [server_id], "servers").values())
        except (InvalidRequest, Forbidden):
            continue
    return frozenset(found)


def _count(session: Session, key: Principal) -> int:
    return (
        session.scalar(select(func.count()).select_from(Server).where(authz.usable_servers(key)))
        or 0
    )


def _aliases(session: Session, rows: Sequence[ApiKey]) -> Mapping[str, str]:
    ids = {row.team_id for row in rows if row.team_id}
    query = select(Team.team_id, Team.team_alias).where(Team.team_id.in_(ids))
    return dict(session.execute(query).all()) if ids else {}


def _names(session: Session, rows: Sequence[ApiKey], principal: Principal) -> Mapping[str, str]:
    """Return the owners by id, as shown to the caller; "you" is the caller."""
    ids = {row.user_id for row in rows if row.user_id}
    query = select(User.user_id, func.coalesce(User.display_name, User.email, User.user_id)).where(
        User.user_id.in_(ids)
    )
    named = dict(session.execute(query).all()) if ids else {}
    return {**named, **({principal.user_id: "you"} if principal.user_id in named else {})}


def _why_nothing(fault: KeyFault, owner: str, team: str) -> str:
    you = owner == "you"
    return {
        KeyFault.REVOKED: "Nothing: the key is revoked.",
        KeyFault.EXPIRED: "Nothing: the key has expired.",
        KeyFault.OWNER_INACTIVE: f"Nothing: {owner} is deactivated.",
        KeyFault.LEFT_TEAM: (
            f"Nothing: {'you are' if you else f'{owner} is'} not a member of team {team}. The key"
            f" works again once {'you are' if you else 'they are'}."
        ),
    }[fault]


def _basis(row: ApiKey, key: Principal, owner: str, team: str) -> tuple[str, str]:
    has_own = key.only_servers is not None or any(
        level.holder == ("key", row.key_id) for route in key.routes_of_access for level in route
    )
    if row.set_by == SetBy.OWNER and row.user_id:
        if key.is_personal:
            return "owner", f"Follows {owner}: everything {owner} can use."
        limits = [f"the grants of team {team}"] if row.team_id else []
        limits = [*limits, "the servers chosen for it"] if has_own else limits
        return (
            "owner_and_limits",
            f"Limited to {' and '.join(limits) or 'its own grants'}, and follows {owner}.",
        )
    set_by = ", set by an Admin" if row.set_by == SetBy.ADMIN else ""
    if key.role.has_admin_view and key.only_servers is None:
        return "role", f"Every server, because its owner has the role {key.role.label}."
    if has_own:
        within = f", within the grants of team {team}" if row.team_id else ""
        return "grants", f"Its own grants{set_by}{within}."
    if row.team_id:
        return "team", f"The grants of team {team}."
    return "open", "Only servers that are open to everyone, because it has no grants."
