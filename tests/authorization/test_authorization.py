"""Who may do what to a server in which state: the whole of `authorization.may`, as a table that
people read.

`PORTAL_WRITE_GOLDEN=1 pytest tests/authorization/test_authorization.py` writes
`matrix.txt` anew; its diff is read in review.
"""

import difflib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from portal import authorization as authz
from portal.authorization import (
    RULES,
    VISIBLE_FIELDS,
    Action,
    ServerFacts,
    Visibility,
    allowed_actions,
    may,
)
from portal.domain.errors import Forbidden
from portal.domain.principals import OPERATOR, Principal, Reach, Role
from portal.services.servers.views import ServerView
from portal.store.models import Server

GOLDEN = Path(__file__).with_name("matrix.txt")
HEAD = """\
# Who may do what, by authorization.may. Written by tests/authorization/test_authorization.py.
# granted: through a team, a person's own grant, a key's or an access group; view: the setting
# view_all; outside: the caller's address is not internal. narrowed: an Admin's key that names the
# server "granted".
"""
GRANT = Reach(server_ids=frozenset({"granted"}), names_anything=True)
OF_THE_KEY = replace(GRANT, holder=("key", "k"))


def _person(role: Role, *, granted: bool = False, **more: object) -> Principal:
    routes = ((GRANT,),) if granted else ()
    return Principal(
        "somebody", role, "somebody", routes_of_access=routes, is_internal=True, **more
    )  # type: ignore[arg-type]


MEMBER = _person(Role.MEMBER, granted=True)
ADMIN = _person(Role.ADMIN)
PEOPLE = {
    "admin": ADMIN,
    "reader": _person(Role.ADMIN_VIEWER),
    "member": MEMBER,
    "viewer": _person(Role.VIEWER, granted=True),
    "member+view": _person(Role.MEMBER, view_all=True),
    "key": replace(MEMBER, key_id="k"),
    "key restricted": replace(MEMBER, key_id="k", allowed_routes=("/v1/mcp",)),
    "key restricted+view": replace(MEMBER, key_id="k", allowed_routes=("/v1/mcp",), view_all=True),
    "key of a team": replace(MEMBER, key_id="k", user_id=None),
    "key of admin": replace(ADMIN, key_id="k"),
    "key of admin restricted": replace(ADMIN, key_id="k", allowed_routes=("/v1",)),
    "key of admin narrowed": replace(
        ADMIN, key_id="k", only_servers=frozenset({"granted"}), routes_of_access=((OF_THE_KEY,),)
    ),
    "member outside": replace(MEMBER, is_internal=False),
    "admin outside": replace(ADMIN, is_internal=False),
    "operator": OPERATOR,
}


def _server(server_id: str, **changes: object) -> ServerFacts:
    columns = {
        "server_id": server_id,
        "approval_status": "active",
        "origin": "database",
        "allow_all_keys": False,
        "available_on_public_internet": True,
        "is_public": False,
    }
    return ServerFacts(Server(**{**columns, **changes}), frozenset())


SERVERS = {
    "granted": _server("granted"),
    "not granted": _server("other"),
    "open to all": _server("other", allow_all_keys=True),
    "granted, internal only": _server("granted", available_on_public_internet=False),
    "granted, internal only, listed": _server(
        "granted", available_on_public_internet=False, is_public=True
    ),
    "granted, pending": _server("granted", approval_status="pending_review"),
    "open to all, rejected": _server("other", approval_status="rejected", allow_all_keys=True),
    "granted, from config": _server("granted", origin="config"),
}
OF_SERVERS = sorted(
    a for a in Action if any(p in (authz.may_see, authz.may_use) for c in RULES[a] for p in c)
)


def table() -> str:
    """Each action, each state, and those who may."""
    lines = []
    for action in sorted(set(Action) - set(OF_SERVERS)):
        lines.append(
            f"{action}: {', '.join(n for n, p in PEOPLE.items() if may(p, action)) or 'nobody'}"
        )
    for action in OF_SERVERS:
        lines.append(f"\n{action}")
        for state, server in SERVERS.items():
            who = ", ".join(name for name, person in PEOPLE.items() if may(person, action, server))
            lines.append(f"  {state}: {who or 'nobody'}")
    lines.append("\nfields of a server")
    for field, shown in sorted(VISIBLE_FIELDS.items()):
        lines.append(f"  {field}: {', '.join(f'{v} {shown[v]}' for v in Visibility if v in shown)}")
    return HEAD + "\n".join(lines) + "\n"


def test_who_may_do_what_is_as_the_table_says() -> None:
    text = table()
    if os.environ.get("PORTAL_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    diff = difflib.unified_diff(
        GOLDEN.read_text().splitlines(), text.splitlines(), "table", "module", lineterm="", n=1
    )
    assert not list(diff), "\n".join(["another answer than the table's:", *diff])


def test_every_action_has_a_rule() -> None:
    assert set(RULES) == set(Action)
    assert all(clause for clauses in RULES.values() for clause in clauses), (
        "an empty clause would let everybody pass"
    )


@pytest.mark.parametrize("action", OF_SERVERS)
def test_an_action_on_a_server_needs_the_server(action: Action) -> None:
    """Rule 9: what could not be looked at is not allowed."""
    for person in PEOPLE.values():
        assert not may(person, action, None)


@pytest.mark.parametrize("name", PEOPLE)
def test_what_a_page_offers_is_what_is_allowed(name: str) -> None:
    person = PEOPLE[name]
    for server in SERVERS.values():
        assert allowed_actions(person, server) == {a for a in OF_SERVERS if may(person, a, server)}
    assert allowed_actions(person) == {a for a in set(Action) - set(OF_SERVERS) if may(person, a)}


def test_refusing_raises_and_says_nothing_of_the_server() -> None:
    with pytest.raises(Forbidden) as refused:
        authz.require(PEOPLE["viewer"], Action.SERVER_UPDATE, SERVERS["granted"])
    assert "granted" not in refused.value.message


@pytest.mark.parametrize("name", [name for name in PEOPLE if "restricted" in name])
def test_a_restricted_key_never_has_admin_view(name: str) -> None:
    assert not authz.has_admin_view(PEOPLE[name])
    assert authz.visibility(PEOPLE[name]) is Visibility.RESTRICTED


def test_credentials_are_visible_to_nobody_and_no_field_is_visible_by_accident() -> None:
    assert "credentials" not in VISIBLE_FIELDS
    assert set(VISIBLE_FIELDS) == set(ServerView.__dataclass_fields__) - {"credentials"}


@pytest.mark.parametrize(
    ("prefixes", "path", "allowed"),
    [
        ((), "/v1/users", True),
        (("/v1/mcp/server",), "/v1/mcp/server", True),
        (("/v1/mcp/server",), "/v1/mcp/server/x", True),
        (("/v1/mcp/server/",), "/v1/mcp/server", True),
        (("/v1/mcp/server",), "/v1/mcp/servers", False),
        (("/v1/mcp/server",), "/v1/mcp", False),
        (("/v1/mcp/server", "/v1/me"), "/v1/me/keys", True),
        (("/v1/mcp/server",), "/v1/mcp/Server", False),
    ],
)
def test_allowed_routes_are_prefixes_of_whole_parts(
    prefixes: tuple[str, ...], path: str, allowed: bool
) -> None:
    assert (
        authz.may_take_route(replace(MEMBER, key_id="k", allowed_routes=prefixes), path) is allowed
    )
