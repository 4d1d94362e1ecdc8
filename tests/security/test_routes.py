"""Every route with every kind of caller, held to a table that people read (`3-security.md`, 1).

`PORTAL_WRITE_GOLDEN=1 pytest tests/security/test_routes.py` writes `routes.txt` anew; its diff is
read in review.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from tests.conftest import NOTES
from tests.support.factories import PASSWORD
from tests.support.security.callers import (
    BYOK,
    CALLERS,
    HIDDEN,
    OAUTH,
    TOOLSET,
    WAITING,
    Caller,
    World,
)

GOLDEN = Path(__file__).with_name("routes.txt")
HEAD = """\
# What every route answers to every kind of caller; `in`: sent to the sign-in page. test_routes.py
# writes this file. Servers: notes and byok are granted to the team of viewer, member, k-viewer,
# k-member, k-restr and k-team. The ids in the rules are a server of that team, the team, a person
# called guest, and a spare key of member's; for submissions and verdicts a server that member
# submitted and nobody reviewed. k-narrow: an Admin's key that names one server. k-restr: member's
# key for /v1/mcp and /v1/me. k-restr-a: an Admin's key for all of /v1. k-team: a key of the team
# that belongs to nobody. k-gone: the key of an Admin who was deactivated. k-own: a key that
# member made, which follows them. k-leaver: a key for the team whose owner left it since.
# promoted and demoted: keys that a Member who is an Admin since, and an Admin who is a Member
# since, made for themselves.
"""
SERVER = {"server_name": "fresh", "transport": "http", "url": "http://127.0.0.1:9/fresh"}
FORM = {"auth_type": "none", "oauth2_flow": ""}
# The least that is valid; where nothing is said an empty form or object is sent.
BODIES: dict[str, dict[str, Any]] = {
    "POST /login": {"email": "otto@example.com", "password": PASSWORD},
    "POST /admin/find/people": {"find": "mel"},
    "POST /admin/find/teams": {"find": "crew"},
    "POST /admin/groups/<access_group_id>": {"name": "fresh", "save": "yes"},
    "POST /admin/groups/new": {"name": "fresh", "save": "yes"},
    "POST /admin/keys/new": {
        "key_alias": "fresh",
        "expiry": "90",
        "user_id": "guest",
        "save": "yes",
    },
    "POST /admin/teams/<team_id>": {"team_alias": "fresh", "save": "yes"},
    "POST /admin/teams/<team_id>/members": {"user_id": "guest", "role": "user", "save": "yes"},
    "POST /admin/teams/new": {"team_alias": "fresh", "save": "yes"},
    "POST /admin/users/<user_id>": {
        "email": "fresh@example.com",
        "role": "internal_user",
        "save": "yes",
    },
    "POST /admin/users/new": {"email": "fresh@example.com", "role": "internal_user", "save": "yes"},
    "POST /keys/find/servers": {"find": "notes"},
    "POST /keys/reach": {"servers": NOTES},
    "POST /keys/new": {"key_alias": "fresh", "expiry": "90", "save": "yes"},
    "POST /admin/access": {"user_id": "guest", "server_id": NOTES, "save": "yes"},
    "POST /admin/find/keys": {"find_key": "spare"},
    "POST /admin/find/servers": {"find_server": "notes"},
    "POST /toolsets/new": {"toolset_name": "fresh", "save": "yes"},
    "POST /toolsets/<toolset_id>/edit": {"toolset_name": "fresh", "save": "yes"},
    "POST /v1/mcp/toolset": {"toolset_name": "fresh"},
    "PUT /v1/mcp/toolset": {"toolset_id": TOOLSET, "description": "fresh"},
    "POST /admin/settings": {"user_mcp_management_mode": "view_all"},
    "POST /credentials/<server_id>/key": {"key": "a key of one's own"},
    "POST /playground/call": {"server": NOTES, "tool": "add"},
    "POST /profile": {"display_name": "Somebody", "theme": "auto"},
    "POST /profile/password": {
        "current_password": PASSWORD,
        "new_password": "another horse staple",
        "repeat_password": "another horse staple",
    },
    "POST /profile/sessions/end": {"handle": "0" * 16},
    "POST /servers/<server_id>/tools/changes/accept": {"chosen": '["gone", null]'},
    "POST /servers/<server_id>/tools/changes/disable": {"tool_name": "gone"},
    "POST /v1/mcp/server/<server_id>/tool-changes/accept": {"tool_name": "gone", "sha256": None},
    "POST /servers/<server_id>/tools": {"tool": "add", "enabled": "add"},
    "POST /servers/<server_id>/listing": {"listed": "yes"},
    "POST /servers/export": {"format": "mcp.json"},
    "POST /servers/import": {
        "text": '{"mcpServers": {"fresh": {"url": "http://127.0.0.1:9/fresh"}}}'
    },
    "POST /servers/new": {**FORM, **SERVER, "save": "yes"},
    "POST /servers/test": {**FORM, **SERVER},
    "POST /servers/<server_id>/edit": {
        **FORM,
        "server_name": "notes",
        "alias": "notes",
        "transport": "http",
        "url__mode": "keep",
        "description": "fresh",
        "save": "yes",
    },
    "POST /admin/submissions/decide": {"verdict": "approve", "chosen": WAITING},
    "POST /submissions/checks": {**FORM, "transport": "http"},
    "POST /submissions/new": {**FORM, **SERVER, "save": "yes"},
    "POST /submissions/<server_id>/edit": {
        **FORM,
        "server_name": "waiting",
        "transport": "http",
        "url__mode": "keep",
        "description": "fresh",
        "save": "yes",
    },
    "POST /v1/mcp/server/register": SERVER,
    "PUT /v1/mcp/server/register/<server_id>": {"description": "fresh"},
    "POST /v1/access-groups": {"name": "fresh"},
    "PATCH /v1/access-groups/<group_id>": {"name": "fresh"},
    "POST /v1/keys": {"user_id": "guest"},
    "PATCH /v1/keys/<key_id>": {"key_alias": "fresh"},
    "POST /v1/mcp/make_public": {"mcp_server_ids": [NOTES]},
    "POST /v1/mcp/server": SERVER,
    "POST /v1/mcp/server/oauth/session": SERVER,
    "POST /v1/mcp/server/import": {"mcpServers": {"fresh": {"url": "http://127.0.0.1:9/fresh"}}},
    "PUT /v1/mcp/server": {"server_id": NOTES, "description": "fresh"},
    "POST /v1/mcp/server/<server_id>/oauth-user-credential": {"access_token": "one's-own-token"},
    "POST /v1/mcp/server/<server_id>/user-credential": {"credential": "a key of one's own"},
    "POST /v1/mcp/server/<server_id>/user-env-vars": {"values": {}},
    "POST /v1/mcp/tools/call": {"server_id": NOTES, "name": "add", "arguments": {}},
    "POST /v1/me/keys": {"key_alias": "fresh", "object_permission": {"mcp_servers": [NOTES]}},
    "PATCH /v1/settings": {"enable_mcp_registry": True},
    "POST /v1/teams": {"team_alias": "fresh"},
    "PATCH /v1/teams/<team_id>": {"metadata": {"fresh": True}},
    "POST /v1/teams/<team_id>/members": {"user_id": "guest"},
    "POST /v1/users": {"email": "fresh@example.com", "password": PASSWORD},
    "PATCH /v1/users/<user_id>": {"display_name": "Fresh"},
}
PARAMETERS = {
    "/approve": {"server_id": WAITING},
    "/reject": {"server_id": WAITING},
    "/register/<server_id>": {"server_id": WAITING},
    "/submissions/<server_id>": {"server_id": WAITING},
    "/submissions/<server_id>/edit": {"server_id": WAITING},
    "/submissions/<server_id>/probe": {"server_id": WAITING},
    "/oauth-user-credential": {"server_id": OAUTH},
    "/oauth-user-credential/status": {"server_id": OAUTH},
    "/credentials/<server_id>/connect": {"server_id": OAUTH},
    "/disconnect": {"server_id": OAUTH},
    "/sign-in/forget": {"server_id": OAUTH},
    "/user-credential": {"server_id": BYOK},
    "/key": {"server_id": BYOK},
    "/key/remove": {"server_id": BYOK},
    "/members/<user_id>": {"user_id": "vic"},
    "/members/<user_id>/remove": {"user_id": "vic"},
}
_OURS = {"HEAD", "OPTIONS"}  # these Flask adds by itself
_ORDER = ("GET", "POST", "PUT", "PATCH", "DELETE")


def every_route(world: World) -> list[tuple[str, Rule]]:
    """Each method of each rule, in the order of the table."""
    found = [
        (method, rule)
        for rule in world.app.url_map.iter_rules()
        for method in (rule.methods or set()) - _OURS
    ]
    return sorted(found, key=lambda route: (route[1].rule, _ORDER.index(route[0])))


def address(rule: Rule, ids: dict[str, str], **changed: str) -> str:
    """The rule's path with its parameters filled in."""
    special = next((found for end, found in PARAMETERS.items() if rule.rule.endswith(end)), {})
    values = {**ids, **special, **changed}
    built = rule.build({name: values[name] for name in rule.arguments})
    assert built is not None
    return built[1]


def send(
    caller: Caller, method: str, rule: Rule, ids: dict[str, str], **changed: str
) -> TestResponse:
    """The request of the table, with other ids where they are `changed`."""
    path = address(rule, ids, **changed)
    body = BODIES.get(f"{method} {rule.rule}", {})
    if method == "GET":
        return caller.ask(method, path)
    if path.startswith("/v1/"):
        return caller.ask(method, path, json=body)
    return caller.ask(method, path, data=body)


def word(response: TestResponse) -> str:
    """An answer as the table has it."""
    if response.status_code == 303 and response.headers["Location"].split("?")[0] == "/login":
        return "in"
    return str(response.status_code)


def route_name(method: str, rule: Rule) -> str:
    return f"{method:<6} {rule.rule}"


def table() -> dict[str, dict[str, str]]:
    """The table in the repository: route, caller, answer."""
    rows = [line.split() for line in GOLDEN.read_text().splitlines() if not line.startswith("# ")]
    callers = rows[0][1:]
    return {f"{row[0]:<6} {row[1]}": dict(zip(callers, row[2:], strict=True)) for row in rows[1:]}


def written(answers: dict[str, dict[str, str]]) -> str:
    """The table of `answers`: caller, route, answer."""
    widths = {name: max(4, len(name)) for name in answers}
    lines = [" ".join([f"{'#route':<60}", *(name.rjust(width) for name, width in widths.items())])]
    for route in answers["nobody"]:
        lines.append(
            " ".join(
                [f"{route:<60}", *(answers[name][route].rjust(widths[name]) for name in answers)]
            )
        )
    return HEAD + "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, str]]:
    """What was answered so far: caller, route, answer."""
    return {}


@pytest.mark.parametrize("name", CALLERS)
def test_every_route_answers_as_the_table_says(
    world: World, seen: dict[str, dict[str, str]], name: str
) -> None:
    seen[name] = {}
    for method, rule in every_route(world):
        response = send(world.callers[name], method, rule, world.ids)
        seen[name][route_name(method, rule)] = word(response)
        if method != "GET" and response.status_code < 400:
            world.put_back()
    assert "500" not in seen[name].values(), seen[name]
    if os.environ.get("PORTAL_WRITE_GOLDEN"):
        return
    expected = {route: answers[name] for route, answers in table().items()}
    assert seen[name] == {route: expected.get(route, "not in the table") for route in seen[name]}


def test_the_table_has_every_route_and_no_other(
    world: World, seen: dict[str, dict[str, str]]
) -> None:
    if os.environ.get("PORTAL_WRITE_GOLDEN"):
        GOLDEN.write_text(written(seen))
    assert list(table()) == [route_name(method, rule) for method, rule in every_route(world)]
    assert tuple(world.callers) == CALLERS


@pytest.mark.parametrize(
    "name", ["viewer", "member", "outsider", "k-member", "k-outsider", "k-restr", "k-team"]
)
def test_a_hidden_server_and_one_that_does_not_exist_answer_alike(world: World, name: str) -> None:
    """Rule 9: ids cannot be guessed by those without admin view."""
    caller = world.callers[name]
    for method, rule in every_route(world):
        if "server_id" not in rule.arguments:
            continue
        answers = [
            send(caller, method, rule, world.ids, server_id=i) for i in (HIDDEN, "no-such-id")
        ]
        looks = [(a.status_code, _without(a.get_data(as_text=True))) for a in answers]
        assert looks[0] == looks[1], (name, method, rule.rule)
        assert looks[0][0] in (303, 401, 403, 404), (name, method, rule.rule, looks[0][0])


def _without(text: str) -> str:
    """An answer without what differs from one answer to the next: tokens, the request's id, the id
    that was asked."""
    text = text.replace(HIDDEN, "ID").replace("no-such-id", "ID")
    return re.sub(r'name="csrf_token" value="[^"]*"|\b[0-9a-f]{12}\b', "", text)
