"""What limits by being there: rows whose appearance takes access away, and a backup that is older
than they are."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from portal.domain.principals import OPERATOR
from portal.services.access import explain, keys, teams
from portal.services.access.keys import KeyDraft
from portal.services.access.users import change_user
from portal.services.servers import crud
from portal.services.servers.grants import ObjectPermission
from portal.services.tools import toolsets
from portal.services.tools.toolsets import ToolRef
from portal.store.models import Server
from tests.conftest import CREW
from tests.services.operations.test_revocations import BOTH, Site, group_id, key_id
from tests.support.factories import make_group, make_server, make_team

A = "id-a"
B = "id-b"
C = "id-c"
Tools = dict[str, tuple[str, ...]]
Reached = dict[tuple[str, ...], bool]


def fill(session: Any) -> None:
    """Keys and people that reach servers, each in another way."""
    for name in ("a", "b", "c"):
        make_server(
            session, name, delegate_auth_to_upstream=name == "a", oauth_passthrough=name == "b"
        )
    make_group(session, "one", (A,))
    make_group(session, "both", (A, B))
    teams.change_team(session, OPERATOR, CREW, {}, ObjectPermission(mcp_servers=(A, B)), None)
    make_team(session, "bare", members=("otto",))
    for toolset_id, server_id in (("set-a", A), ("set-c", C)):
        toolset = toolsets.create_toolset(
            session, OPERATOR, toolset_id, None, [ToolRef(server_id, "x")]
        )
        assert toolset.toolset_id
    change_user(session, OPERATOR, "otto", {}, ObjectPermission(mcp_servers=(A,)))
    plain = ObjectPermission()
    both = ObjectPermission(mcp_servers=(A, B))
    with_set = ObjectPermission(mcp_servers=(A, B), mcp_toolsets=("set-c",))
    for name, draft in {
        "personal": KeyDraft(user_id="mel", follows_owner=True, object_permission=plain),
        "of a team": KeyDraft(user_id="mel", team_id=CREW, object_permission=plain),
        "of an Admin": KeyDraft(user_id="ada", object_permission=plain),
        "of a bare team": KeyDraft(team_id="team-bare", object_permission=both),
        "named": KeyDraft(user_id="otto", object_permission=both),
        "with a toolset": KeyDraft(user_id="otto", object_permission=with_set),
    }.items():
        keys.issue_key(session, OPERATOR, draft, secret=f"sk-{name}")


def key(
    name: str, permission: ObjectPermission | None = None, groups: tuple[str, ...] | None = None
) -> Any:
    """A change of a key's grants, after which it follows its owner if it did before."""

    def change(session: Any) -> None:
        found = key_id(session, f"sk-{name}")
        own = [group_id(session, group) for group in groups] if groups is not None else None
        follows = {"follows_owner": True} if name == "personal" else {}
        keys.change_key(session, OPERATOR, found, follows, permission, own)

    return change


def team(permission: ObjectPermission | None, groups: tuple[str, ...] | None = None) -> Any:
    def change(session: Any) -> None:
        own = [group_id(session, group) for group in groups] if groups is not None else None
        teams.change_team(session, OPERATOR, "team-bare", {}, permission, own)

    return change


def toolset(name: str, *tools: tuple[str, str]) -> Any:
    return lambda session: toolsets.change_toolset(
        session, OPERATOR, set_id(session, name), tools=[ToolRef(*tool) for tool in tools]
    )


def set_id(session: Any, name: str) -> str:
    return next(
        s.toolset_id for s in toolsets.list_toolsets(session, OPERATOR) if s.toolset_name == name
    )


def server(server_id: str, **fields: Any) -> Any:
    return lambda session: crud.update_server(session, OPERATOR, server_id, fields)


def new_toolset(name: str) -> Any:
    """A toolset that the backup does not know, granted to a key that names its server otherwise."""

    def change(session: Any) -> None:
        toolsets.create_toolset(session, OPERATOR, "set-new", None, [ToolRef(A, "x")])
        keys.change_key(
            session,
            OPERATOR,
            key_id(session, f"sk-{name}"),
            {},
            also(mcp_toolsets=("set-new",)),
            None,
        )

    return change


def also(**more: Any) -> ObjectPermission:
    return ObjectPermission(mcp_servers=(A, B), **more)


def only(**named: Any) -> ObjectPermission:
    return ObjectPermission(**named)


X: Tools = {A: ("x",)}
LIMITS: dict[str, tuple[Callable[[Any], object], bool]] = {
    "first server of a personal key": (key("personal", only(mcp_servers=(A,))), True),
    "first server of a personal key, of those it did not reach": (
        key("personal", only(mcp_servers=(C,))),
        True,
    ),
    "first group of a personal key": (key("personal", only(mcp_access_groups=("one",))), True),
    "first group on top of a personal key": (key("personal", None, ("one",)), True),
    "first tools of a personal key": (key("personal", only(mcp_tool_permissions=X)), True),
    "first toolset of a personal key": (key("personal", only(mcp_toolsets=("set-a",))), True),
    "first server of a team's key": (key("of a team", only(mcp_servers=(A,))), True),
    "first tools of a team's key": (key("of a team", only(mcp_tool_permissions=X)), True),
    "first server of an Admin's key": (key("of an Admin", only(mcp_servers=(A,))), True),
    "first server of a team": (team(only(mcp_servers=(A,))), False),
    "first tools of a team": (team(only(mcp_tool_permissions=X)), False),
    "first group on top of a team": (team(None, ("one",)), False),
    "tools of a server that a key names": (key("named", also(mcp_tool_permissions=X)), True),
    "toolset of a server that a key names": (key("named", also(mcp_toolsets=("set-a",))), True),
    "new toolset of a server that a key names": (new_toolset("named"), True),
    "tools of a server that a person is granted": (
        lambda session: change_user(
            session, OPERATOR, "otto", {}, only(mcp_servers=(A,), mcp_tool_permissions=X)
        ),
        True,
    ),
    "toolset that comes to name a tool of a server named otherwise": (
        toolset("set-c", (C, "x"), (A, "x")),
        True,
    ),
    "allow list that is enforced while empty": (
        server(A, mcp_info={"tool_allowlist_enforced": True}),
        True,
    ),
    "end of delegation to the upstream": (server(A, delegate_auth_to_upstream=False), True),
    "end of passing tokens through": (server(B, oauth_passthrough=False), True),
}
"""Each row that takes access away by being there, and whether just that comes back; else its holder
has less still."""

_KEYS = ("personal", "of a team", "of an Admin", "of a bare team", "named", "with a toolset")


def reached(site: Site) -> Reached:
    """Who may call what, and what servers leave to others."""
    found = {}
    with site.database.session() as session:
        asked: list[tuple[str, dict[str, str]]] = [
            (name, {"key_id": key_id(session, f"sk-{name}")}) for name in _KEYS
        ]
        for name, who in [*asked, ("otto", {"user_id": "otto"})]:
            for server_id in (A, B, C):
                for tool in ("x", "y"):
                    said = explain.explain_access(
                        session, OPERATOR, **who, server_id=server_id, tool=tool
                    )
                    found[name, server_id, tool] = said.allowed
        for row in session.query(Server):
            found[row.server_id, "delegates"] = row.delegate_auth_to_upstream
            found[row.server_id, "passes through"] = row.oauth_passthrough
    return found


@dataclass
class Filled:
    """A portal whose keys and people reach servers, its backup, and what they reach."""

    url: str
    folder: Path
    before: Reached


@pytest.fixture(scope="module")
def filled(
    started: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Filled]:
    """Made once for each kind of database; every test has a copy."""
    made: dict[str, Filled] = {}

    def of(kind: str) -> Filled:
        if kind not in made:
            url = started(kind)
            folder = tmp_path_factory.mktemp("filled")
            with pytest.MonkeyPatch.context() as patch:
                site = Site(kind, url, folder, patch)
                site.write(fill)
                before = reached(site)
                site.back_up()
            site.database.engine.dispose()
            made[kind] = Filled(url, folder, before)
        return made[kind]

    return of


@pytest.fixture
def before(kind: str, filled: Callable[[str], Filled]) -> Reached:
    """What was reached when the backup was made."""
    return filled(kind).before


@pytest.fixture
def site(
    kind: str,
    filled: Callable[[str], Filled],
    copy_of: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    """A portal just after its backup."""
    original = filled(kind)
    shutil.copytree(original.folder, tmp_path, dirs_exist_ok=True)
    made = Site(kind, copy_of(original.url), tmp_path, monkeypatch)
    yield made
    made.database.engine.dispose()


@BOTH
@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_newer_than_the_backup_holds_after_it(
    site: Site, before: Reached, limit: str
) -> None:
    change, is_as_it_was = LIMITS[limit]
    site.write(change)
    limited = reached(site)
    assert any(before[what] and not limited[what] for what in before), "it limits"
    done = site.restore()
    assert done.exit_code == 0, done.output
    after = reached(site)
    wider = {what for what in after if after[what] and not (before[what] and limited[what])}
    assert wider == set()
    if is_as_it_was:
        assert after == {what: before[what] and limited[what] for what in before}
    assert site.start().because is None


@BOTH
def test_a_limit_that_was_lifted_since_is_lifted_and_what_was_given_is_not_given(
    site: Site, before: Reached
) -> None:
    for permission in (only(mcp_servers=(A,)), only()):
        site.write(key("personal", permission))
    site.write(key("named", also(mcp_access_groups=("both",), mcp_tool_permissions={C: ("x",)})))
    site.write(lambda session: change_user(session, OPERATOR, "otto", {}, also()))
    assert site.restore().exit_code == 0
    assert reached(site) == before
