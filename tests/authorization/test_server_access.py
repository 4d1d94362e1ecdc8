"""Three tellings of who reaches which server agree on random small worlds.

`may_see` and `may_use` decide about one row, `visible_servers` and `usable_servers` are conditions
for the database, and `reference` below is rules 1 to 7 of `1-system.md`, 4, read once more without
looking at either. On purpose all three fail closed in one place: a level whose named servers and
groups are all gone still sets a limit.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain.errors import Unauthenticated
from portal.domain.principals import OPERATOR, Principal, Role
from portal.services import instance_settings
from portal.services.access import access_groups, principals
from portal.services.servers import crud
from portal.services.servers.grants import ObjectPermission, replace_grants
from portal.services.servers.queries import facts
from portal.services.tools import toolsets
from portal.store.database import Database
from portal.store.models import (
    AccessGroup,
    AccessGroupServer,
    ApiKey,
    Server,
    Team,
    TeamMember,
    Toolset,
    ToolsetTool,
    User,
    now,
)

SERVERS = ("s0", "s1", "s2", "s3")
GROUPS = ("g0", "g1")
TEAMS = ("t0", "t1")
TOOLSETS = ("x0", "x1")
SECRET = "sk-SECRET"
INSIDE = "10.0.0.1"
OUTSIDE = "203.0.113.7"
ADMINS = (Role.ADMIN, Role.ADMIN_VIEWER)


@dataclass(frozen=True)
class MadeServer:
    status: str = "active"
    open_to_all: bool = False
    internet: bool = True
    public: bool = False


@dataclass(frozen=True)
class Level:
    """An object permission, and `access_group_ids` where the holder has them."""

    servers: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()
    own_groups: frozenset[str] = frozenset()
    toolsets: frozenset[str] = frozenset()


@dataclass(frozen=True)
class World:
    """Everything a decision depends on. `key` is None where a person asks in their browser."""

    servers: tuple[MadeServer, ...] = (MadeServer(),) * 4
    members: tuple[frozenset[str], ...] = (frozenset(),) * 2
    selections: tuple[frozenset[str], ...] = (frozenset(),) * 2
    role: Role = Role.MEMBER
    direct: Level = field(default_factory=Level)
    teams: tuple[Level, ...] = (Level(),) * 2
    joined: frozenset[str] = frozenset()
    key: Level | None = None
    key_team: str | None = None
    key_has_owner: bool = True
    set_by: str | None = None
    restricted: bool = False
    view_all: bool = False
    inside: bool = True
    gone_servers: frozenset[str] = frozenset()
    gone_groups: frozenset[str] = frozenset()
    gone_toolsets: frozenset[str] = frozenset()


def some(of: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(of), max_size=len(of))


LEVELS = st.builds(
    Level, some(SERVERS), some(GROUPS), some(SERVERS), some(GROUPS), some(TOOLSETS)
) | st.just(Level())
WORLDS = st.builds(
    World,
    servers=st.tuples(
        *(
            st.builds(
                MadeServer,
                st.sampled_from(["active"] * 4 + ["pending_review", "rejected"]),
                st.sampled_from([False, False, True]),
                st.booleans(),
                st.booleans(),
            )
            for _ in SERVERS
        )
    ),
    members=st.tuples(some(SERVERS), some(SERVERS)),
    selections=st.tuples(some(SERVERS), some(SERVERS)),
    role=st.sampled_from([*Role, Role.MEMBER, Role.MEMBER]),
    direct=LEVELS,
    teams=st.tuples(LEVELS, LEVELS),
    joined=some(TEAMS),
    key=st.none() | LEVELS,
    key_team=st.none() | st.sampled_from(TEAMS),
    key_has_owner=st.sampled_from([True, True, False]),
    set_by=st.sampled_from([None, "admin", "owner", "owner", "owner"]),
    restricted=st.booleans(),
    view_all=st.sampled_from([False, False, True]),
    inside=st.booleans(),
    gone_servers=st.just(frozenset()) | some(SERVERS),
    gone_groups=st.just(frozenset()) | some(GROUPS),
    gone_toolsets=st.just(frozenset()) | some(TOOLSETS),
)


def reference(world: World) -> tuple[set[str], set[str]]:
    """The active servers that may be seen and that may be used, straight from the text of the
    rules."""
    there = {
        s: made
        for s, made in zip(SERVERS, world.servers, strict=True)
        if s not in world.gone_servers
    }
    groups = {
        g: members
        for g, members in zip(GROUPS, world.members, strict=True)
        if g not in world.gone_groups
    }
    selections = {
        x: made
        for x, made in zip(TOOLSETS, world.selections, strict=True)
        if x not in world.gone_toolsets
    }
    active = {s for s, made in there.items() if made.status == "active"}  # rule 1
    within = {s for s in active if world.inside or there[s].internet or there[s].public}  # rule 7
    everything = set(SERVERS)

    def through(names: frozenset[str]) -> set[str]:
        return {server for name in names & groups.keys() for server in groups[name]}

    def named(level: Level, *, with_own: bool) -> set[str] | None:
        """What a level names; None where it sets no limit."""
        own = level.own_groups if with_own else frozenset()
        if not (level.servers or level.groups or level.tools or level.toolsets or own):
            return None
        picked = {
            server for name in level.toolsets & selections.keys() for server in selections[name]
        }
        return {*level.servers, *level.tools, *picked, *through(level.groups | own)}

    def of_team(team: str) -> set[str] | None:
        return named(world.teams[TEAMS.index(team)], with_own=True)

    role = world.role if world.key is None or world.key_has_owner else Role.MEMBER
    follows = world.key is not None and world.key_has_owner and world.set_by == "owner"  # rule 4
    of_person = (
        everything
        if role in ADMINS
        else set().union(
            named(world.direct, with_own=False) or set(),
            *(of_team(team) or set() for team in world.joined),
        )
    )
    if world.key is None or (
        follows and world.key_team is None and named(world.key, with_own=True) is None
    ):
        granted = set(of_person)
    elif role in ADMINS and follows:  # rules 2 and 4
        of_key = named(world.key, with_own=True)
        granted = everything if of_key is None else of_key
    elif role in ADMINS:  # rule 2
        granted = set(world.key.servers) if world.key.servers else everything
    else:  # rule 3
        limits = [
            named(world.key, with_own=False),
            of_team(world.key_team) if world.key_team else None,
        ]
        set_limits = [limit for limit in limits if limit is not None]
        granted = set.intersection(*set_limits) if set_limits else set()
        granted |= through(world.key.own_groups)
        granted &= of_person if follows else everything
    granted |= {s for s in active if there[s].open_to_all}  # rule 5
    sees_all = world.view_all and not (world.key is not None and world.restricted)  # rule 6
    return within & (everything if sees_all else granted), within & granted


def build(session: Session, world: World) -> None:
    """Write the world; deletions go through the use cases, which leave limits behind."""
    for server_id, made in zip(SERVERS, world.servers, strict=True):
        session.add(
            Server(
                server_id=server_id,
                sort_key=server_id,
                transport="http",
                approval_status=made.status,
                allow_all_keys=made.open_to_all,
                available_on_public_internet=made.internet,
                is_public=made.public,
            )
        )
    session.add_all(
        AccessGroup(access_group_id=group_id, name=f"group {group_id}") for group_id in GROUPS
    )
    session.add_all(Team(team_id=team_id, team_alias=f"team {team_id}") for team_id in TEAMS)
    session.add(User(user_id="u", role=world.role.value))
    session.flush()
    for group_id, members in zip(GROUPS, world.members, strict=True):
        session.add_all(
            AccessGroupServer(access_group_id=group_id, server_id=member) for member in members
        )
    session.add_all(Toolset(toolset_id=name, toolset_name=f"toolset {name}") for name in TOOLSETS)
    session.flush()
    for name, picked in zip(TOOLSETS, world.selections, strict=True):
        session.add_all(
            ToolsetTool(toolset_id=name, server_id=server, tool_name="tool") for server in picked
        )
    session.add_all(TeamMember(team_id=team_id, user_id="u") for team_id in world.joined)
    grant(session, "user", "u", world.direct)
    for team_id, level in zip(TEAMS, world.teams, strict=True):
        grant(session, "team", team_id, level)
    if world.key is not None:
        routes = ["/v1/mcp"] if world.restricted else []
        owner = "u" if world.key_has_owner else None
        key = ApiKey(
            key_id="k",
            key_hash=principals.hash_key(SECRET),
            key_prefix="sk-",
            user_id=owner,
            team_id=world.key_team,
            allowed_routes=routes,
            set_by=world.set_by,
        )
        session.add(key)
        session.flush()
        grant(session, "key", "k", world.key)
    for server_id in sorted(world.gone_servers):
        crud.delete_server(session, OPERATOR, server_id)
    for group_id in sorted(world.gone_groups):
        access_groups.delete_group(session, OPERATOR, group_id)
    for toolset_id in sorted(world.gone_toolsets):
        toolsets.delete_toolset(session, OPERATOR, toolset_id)
    mode = "view_all" if world.view_all else "restricted"
    instance_settings.update_preferences(session, OPERATOR, {"user_mcp_management_mode": mode})
    session.expire_all()


def grant(session: Session, kind: str, holder_id: str, level: Level) -> None:
    permission = ObjectPermission(
        mcp_servers=tuple(level.servers),
        mcp_access_groups=tuple(level.groups),
        mcp_tool_permissions=dict.fromkeys(level.tools, ("tool",)),
        mcp_toolsets=tuple(level.toolsets),
    )
    replace_grants(
        session, (kind, holder_id), permission, level.own_groups if kind != "user" else None
    )


def rows(session: Session, condition: ColumnElement[bool]) -> set[str]:
    return set(
        session.scalars(select(Server.server_id).where(condition, Server.server_id.in_(SERVERS)))
    )


def principal_of(session: Session, world: World) -> Principal:
    address = INSIDE if world.inside else OUTSIDE
    if world.key is None:
        return principals.principal_for_user(session, "u", address)
    return principals.principal_for_key(session, SECRET, address)


def is_left(world: World) -> bool:
    """Whether the key is for a team that its owner is not in."""
    return (
        world.key is not None
        and world.key_has_owner
        and world.key_team not in {None, *world.joined}
    )


NARROW = frozenset({"s0"})
BOTH = frozenset({"s0", "s1"})
ONE_GROUP = frozenset({"g0"})


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(world=WORLDS)
@example(World(role=Role.ADMIN, key=Level(servers=NARROW)))
@example(World(role=Role.ADMIN, key=Level(servers=NARROW), gone_servers=NARROW))
@example(
    World(
        key=Level(servers=NARROW),
        key_team="t0",
        teams=(Level(servers=NARROW), Level()),
        gone_servers=NARROW,
    )
)
@example(
    World(
        key=Level(servers=NARROW),
        key_team="t0",
        teams=(Level(own_groups=frozenset({"g0"})), Level()),
        gone_groups=frozenset({"g0"}),
    )
)
@example(World(key=Level(), set_by="owner", direct=Level(servers=BOTH)))
@example(
    World(
        key=Level(), set_by="owner", teams=(Level(servers=BOTH), Level()), joined=frozenset({"t0"})
    )
)
@example(World(key=Level(servers=BOTH), set_by="owner", direct=Level(servers=NARROW)))
@example(World(key=Level(servers=BOTH), set_by="owner", direct=Level(tools=NARROW)))
@example(
    World(
        key=Level(servers=NARROW), set_by="owner", direct=Level(servers=NARROW), gone_servers=NARROW
    )
)
@example(World(key=Level(), set_by="owner", role=Role.ADMIN))
@example(World(key=Level(tools=NARROW), set_by="owner", role=Role.ADMIN))
@example(
    World(
        key=Level(groups=frozenset({"g0"})),
        set_by="owner",
        role=Role.ADMIN,
        members=(BOTH, frozenset()),
    )
)
@example(
    World(
        key=Level(own_groups=ONE_GROUP),
        set_by="owner",
        direct=Level(servers=BOTH),
        members=(BOTH,) * 2,
    )
)
@example(
    World(
        key=Level(own_groups=frozenset({"g0"})),
        set_by="owner",
        direct=Level(servers=BOTH),
        members=(BOTH,) * 2,
        gone_groups=frozenset({"g0"}),
    )
)
@example(
    World(
        key=Level(servers=BOTH),
        set_by="owner",
        key_team="t0",
        teams=(Level(), Level(servers=NARROW)),
        joined=frozenset({"t0", "t1"}),
    )
)
@example(World(key=Level(servers=BOTH), set_by="admin", role=Role.MEMBER, key_team="t0"))
def test_predicate_condition_and_reference_agree(database: Database, world: World) -> None:
    if world.key is not None and not world.key_has_owner and world.key_team is None:
        return  # there are no keys of nobody and no team
    with database.session(writes=True) as session:
        build(session, world)
        works = session.scalar(
            select(ApiKey.key_id).where(authz.working_keys(now()), ApiKey.key_id == "k")
        )
        if is_left(world):
            assert works is None
            with pytest.raises(Unauthenticated):
                principal_of(session, world)
            session.rollback()
            return
        assert (works is not None) is (world.key is not None)
        principal = principal_of(session, world)
        made = [
            facts(session, row)
            for row in session.scalars(select(Server).where(Server.server_id.in_(SERVERS)))
        ]
        seen = {
            s.row.server_id
            for s in made
            if s.row.approval_status == "active" and authz.may_see(principal, s)
        }
        used = {s.row.server_id for s in made if authz.may_use(principal, s)}
        assert rows(session, authz.visible_servers(principal)) == seen
        assert rows(session, authz.usable_servers(principal)) == used
        assert (seen, used) == reference(world)
        event(f"may use {len(used)}")
        for server in made:
            if server.row.approval_status != "active":
                reviews = (
                    world.role in ADMINS
                    and authz.has_admin_view(principal)
                    and principal.only_servers is None
                )
                reaches = (
                    world.inside or server.row.available_on_public_internet or server.row.is_public
                )
                assert authz.may_see(principal, server) is (reviews and reaches)
        session.rollback()
