"""Answers that are held back: what a person types or chooses meanwhile is still there afterwards,
on every page.

Everything on a page that asks the portal for something is set off once, with its request held back.
Then every control is changed, one of them by the keyboard; the request is let go, and the page must
hold all of it, with focus and caret.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.journeys.conftest import ADMIN, Portal, SignIn

PAGES = (
    "/servers",
    "/servers/discover",
    "/servers/openapi",
    "/servers/new",
    "/servers/late/edit",
    "/servers/late/tools",
    "/servers/late/tools?now=1",
    "/servers/late/configuration",
    "/servers/late/access",
    "/servers/late/oauth-check",
    "/servers/late/credentials",
    "/servers/import",
    "/credentials",
    "/credentials/late",
    "/credentials/late_key",
    "/playground?server=late&tool=show_headers",
    "/toolsets",
    "/toolsets/new",
    "/keys/new",
    "/profile",
    "/admin/teams",
    "/admin/teams/new",
    "/admin/teams/late_team",
    "/admin/users",
    "/admin/users/new",
    "/admin/users/late_mel",
    "/admin/groups",
    "/admin/groups/new",
    "/admin/keys",
    "/admin/keys/new",
    "/admin/access",
    "/admin/audit",
    "/admin/settings",
    "/admin/submissions",
    "/toolsets/{toolset}/edit",
    "/admin/groups/{group}",
)
PASSWORD = "a member's long password"

IN_THE_PAGE = Path(__file__).with_name("late_answers.js").read_text("utf-8")


class Held:
    """Requests of a page that are held back until they are let go."""

    def __init__(self, page: Page) -> None:
        self.page, self.on = page, True
        self.routes: list[Route] = []
        page.route(re.compile(r"^http://127\.0\.0\.1:\d+/(?!static/)"), self._take)

    def _take(self, route: Route) -> None:
        if self.on and (
            route.request.resource_type in ("xhr", "fetch") or route.request.method == "POST"
        ):
            self.routes.append(route)
        else:
            route.continue_()

    def wait(self, number: int = 1) -> None:
        """Wait until so many are held back."""
        for _ in range(1800):  # frames; half a minute at most
            if len(self.routes) >= number:
                return
            self.page.evaluate("new Promise(requestAnimationFrame)")
        raise AssertionError(f"{len(self.routes)} requests were sent, not {number}")

    def let_go(self, which: int = 0) -> None:
        """Let one go, and wait until the page has dealt with its answer."""
        with self.page.expect_event("requestfinished"):
            self.routes.pop(which).continue_()

    def settled(self) -> None:
        """Let everything go and wait until the page is at rest."""
        self.on = False
        for route in self.routes:
            route.continue_()
        self.routes.clear()
        expect(
            self.page.locator(".htmx-request, .htmx-swapping, .htmx-settling, .htmx-added")
        ).to_have_count(0)


@pytest.fixture(scope="module")
def ids(filled: Portal) -> dict[str, str]:
    """The ids of a toolset and an access group."""
    tools = [{"server_id": "late", "tool_name": "show_headers"}]
    status, toolset = filled.api(
        "POST", "/v1/mcp/toolset", {"toolset_name": "late_tools", "tools": tools}
    )
    assert status == 201, toolset
    status, group = filled.api("POST", "/v1/access-groups", {"name": "late people"})
    assert status == 201, group
    return {"toolset": toolset["toolset_id"], "group": group["access_group_id"]}


@pytest.fixture(scope="module")
def filled(portal: Portal, echo_server: str) -> Portal:
    """The portal with something on each of these pages."""
    server = {"transport": "http", "url": echo_server, "allow_all_keys": True}
    made: tuple[tuple[str, dict[str, Any]], ...] = (
        (
            "/v1/mcp/server",
            {
                **server,
                "server_id": "late",
                "server_name": "late",
                "static_headers": {"X-Token": "${TOKEN}"},
                "mcp_access_groups": ["late_notes"],
                "env_vars": [{"name": name, "scope": "user"} for name in ("TOKEN", "REGION")],
            },
        ),
        (
            "/v1/mcp/server",
            {
                **server,
                "server_id": "late_key",
                "server_name": "late_key",
                "auth_type": "bearer_token",
                "is_byok": True,
                "static_headers": {"X-Token": "${TOKEN}"},
                "env_vars": [{"name": "TOKEN", "scope": "user"}],
            },
        ),
        (
            "/v1/users",
            {
                "user_id": "late_mel",
                "email": "mel@example.com",
                "display_name": "Mel",
                "password": PASSWORD,
            },
        ),
        (
            "/v1/users",
            {
                "user_id": "late_max",
                "email": "max@example.com",
                "display_name": "Max",
                "password": PASSWORD,
            },
        ),
        (
            "/v1/teams",
            {
                "team_id": "late_team",
                "team_alias": "Late team",
                "members_with_roles": [{"user_id": "late_mel", "role": "user"}],
            },
        ),
        ("/v1/keys", {"user_id": "late_mel", "team_id": "late_team"}),
    )
    for path, body in made:
        status, answer = portal.api("POST", path, body)
        assert status == 201, answer
    return portal


@contextmanager
def loaded(page: Page, portal: Portal, path: str) -> Iterator[Page]:
    """The page, at rest."""
    answer = page.goto(portal.url + path)
    assert answer is not None
    assert answer.ok, f"{path} answered {answer.status}"
    yield page


def change_and_look(page: Page, held: Held) -> list[str]:
    """Change what can be changed, let everything go, and say what is lost."""
    if page.evaluate("late.change()"):
        page.keyboard.type("zz")
    snapshot = page.evaluate("late.snapshot()")
    held.settled()
    found: list[str] = page.evaluate("typed => late.lost(typed)", snapshot)
    return found


@pytest.mark.timeout(300)  # a guard against hangs
def test_nothing_typed_is_lost_to_a_late_answer(
    filled: Portal, ids: dict[str, str], sign_in: SignIn
) -> None:
    page = sign_in(
        reduced_motion="reduce"
    )  # going on in the middle of a transition is an error to Chromium
    page.on("dialog", lambda dialog: dialog.accept())  # leaving for the next page
    page.add_init_script(IN_THE_PAGE)
    lost: dict[str, list[str]] = {}
    tried = 0
    for path in PAGES:
        number = 0
        names = [""]
        while number < len(names):
            page.unroute_all()
            with loaded(page, filled, path.format(**ids)):
                names = page.evaluate("late.triggers()")
                if number >= len(names):
                    break
                name = names[number]
                number = number + 1
                held = Held(page)
                page.evaluate("name => late.set_off(name)", name)
                if not page.evaluate("late.others()"):
                    held.settled()
                    continue
                held.wait()
                tried += 1
                if gone := change_and_look(page, held):
                    lost[f"{path}: {name}"] = gone
    assert lost == {}
    assert tried > 40


TEAM = "/admin/teams/late_team"


def person(page: Page, name: str) -> Any:
    """The choice of a person on a team's page."""
    return page.get_by_role("radio", name=name)


@pytest.fixture
def team_page(filled: Portal, sign_in: SignIn) -> Page:
    """The page of a team in which nobody is."""
    body: dict[str, Any] = {"members_with_roles": []}
    status, answer = filled.api("PATCH", "/v1/teams/late_team", body)
    assert status == 200, answer
    page = sign_in(reduced_motion="reduce")
    page.goto(filled.url + TEAM)
    return page


def test_a_person_chosen_while_a_team_is_saved_is_added(team_page: Page) -> None:
    """The save goes on; the person stays chosen, with what was typed to find them, and is added by
    the next button."""
    held = Held(team_page)
    team_page.get_by_role("button", name="Save changes").click()
    held.wait()
    team_page.get_by_role("searchbox", name="Search in Add member").fill("max@")
    person(team_page, "Max").check()
    held.settled()
    expect(team_page.locator("#toasts")).to_contain_text("Late team saved")
    expect(person(team_page, "Max")).to_be_checked()
    expect(team_page.get_by_role("searchbox", name="Search in Add member")).to_have_value("max@")
    team_page.get_by_role("button", name="Add to team").click()
    expect(team_page.get_by_role("region", name="Members").get_by_role("list")).to_contain_text(
        "Max"
    )
    expect(team_page.get_by_role("searchbox", name="Search in Add member")).to_have_value("")


def test_a_choice_outlives_a_search_that_is_answered_before_the_save(team_page: Page) -> None:
    """A search sends the form that it stands in, and saves nothing of it."""
    held = Held(team_page)
    team_page.get_by_role("button", name="Save changes").click()
    held.wait()
    person(team_page, "Max").check()
    team_page.get_by_role("searchbox", name="Search in Add member").fill("max@")
    held.wait(2)
    held.let_go(1)
    held.settled()
    expect(team_page.locator("#toasts")).to_contain_text("Late team saved")
    expect(person(team_page, "Max")).to_be_checked()


def test_a_message_that_comes_with_another_answer_outlives_the_page_of_the_save(
    team_page: Page,
) -> None:
    """The save's message waits for the next answer, which may be the search's."""
    held = Held(team_page)
    team_page.get_by_role("button", name="Save changes").click()
    held.wait()
    team_page.get_by_role("searchbox", name="Search in Add member").fill("max@")
    held.wait(2)
    saved = held.routes[0].fetch(max_redirects=0)
    held.let_go(1)
    expect(team_page.locator("#toasts")).to_contain_text("Late team saved")
    there = {"HX-Request": "true", "HX-Boosted": "true"}
    page = team_page.context.request.get(
        team_page.url.partition("/admin")[0] + saved.headers["location"], headers=there
    )
    assert "Late team saved" not in page.text()
    held.routes.pop(0).fulfill(response=page)
    held.settled()
    expect(team_page.locator("#toasts")).to_contain_text("Late team saved")


def test_a_form_is_sent_once_however_often_it_is_pressed(team_page: Page) -> None:
    held = Held(team_page)
    team_page.get_by_role("button", name="Save changes").dblclick()
    team_page.get_by_role("button", name="Save changes").click()
    held.wait()
    assert len(held.routes) == 1
    held.settled()
    assert held.routes == []


def test_an_older_answer_that_comes_last_changes_nothing(team_page: Page) -> None:
    held = Held(team_page)
    team_page.get_by_role("button", name="Save changes").click()
    held.wait()
    person(team_page, "Max").check()
    team_page.get_by_role("button", name="Add to team").click()
    held.wait(2)
    saved = held.routes.pop(0).fetch(max_redirects=5)  # answered first, and with nobody in the team
    with_max, held.on = held.routes.pop(), False
    with_max.continue_()
    members = team_page.get_by_role("region", name="Members").get_by_role("list")
    expect(members).to_contain_text("Max")
    assert saved.ok
    held.settled()
    expect(members).to_contain_text("Max")


def test_who_was_signed_out_meanwhile_keeps_what_they_typed(
    filled: Portal, team_page: Page
) -> None:
    name = team_page.get_by_label("Name", exact=True)
    name.fill("Late team")
    team_page.get_by_role("searchbox", name="Search in MCP servers").fill("late")
    team_page.context.clear_cookies()
    team_page.get_by_role("button", name="Save changes").click()
    expect(team_page.locator("#kept")).to_contain_text("your input is still here")
    expect(name).to_have_value("Late team")
    with team_page.context.expect_page() as opened:
        team_page.get_by_role("link", name="Sign in in a new tab").click()
    tab = opened.value
    tab.get_by_label("Email").fill(ADMIN[0])
    tab.get_by_label("Password").fill(ADMIN[1])
    tab.get_by_role("button", name="Sign in").click()
    expect(tab.get_by_role("heading", name="Servers", exact=True)).to_be_visible()
    tab.close()
    team_page.evaluate("dispatchEvent(new Event('focus'))")  # headless windows do not take turns
    expect(team_page.locator("#kept")).to_have_count(0)
    team_page.get_by_role("button", name="Save changes").click()
    expect(team_page.locator("#toasts")).to_contain_text("Late team saved")


def test_without_a_connection_the_form_stays_to_be_sent_again(team_page: Page) -> None:
    team_page.get_by_label("Name", exact=True).fill("Late team")
    team_page.context.set_offline(True)
    team_page.get_by_role("button", name="Save changes").click()
    expect(team_page.locator("#toasts")).to_contain_text("No connection")
    expect(team_page.get_by_label("Name", exact=True)).to_have_value("Late team")
    team_page.context.set_offline(False)
    team_page.get_by_role("button", name="Save changes").click()
    expect(team_page.locator("#toasts")).to_contain_text("Late team saved")
