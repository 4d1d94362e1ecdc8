"""axe-core (WCAG 2.2 A and AA) on every kind of page as Admin, and as the others what is theirs to
see.

The Admin looks at 1440 px in light and at 390 px in dark, the others the other way round.
"""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.journeys.conftest import Portal, SignIn
from tests.support.peers import AXE

CONSENT = (
    "/axe_oauth/authorize?redirect_uri=http%3A%2F%2Flocalhost%3A3000%2Fcb&client_id=https%3A%2F%2Fan-app.example%2Fclient.json"
    f"&code_challenge={'c' * 43}&code_challenge_method=S256"
)
PAGES = (
    "/servers",
    "/servers?view=table",
    "/servers/discover",
    "/servers/new?from=discover:github",
    "/servers/openapi",
    "/servers/export",
    "/servers/export/enforcement",
    "/servers/new",
    "/servers/axe",
    "/servers/axe/edit",
    "/servers/axe/tools?now=1",
    "/servers/axe/tools/changes",
    "/servers/axe/configuration",
    "/servers/axe/access",
    "/servers/axe/credentials",
    "/servers/axe/health",
    "/servers/axe/activity",
    "/servers/axe/connect",
    "/servers/axe/oauth-check",
    "/servers/axe/delete",
    "/servers/import",
    "/credentials",
    "/credentials/axe",
    "/playground?server=axe&tool=search_notes",
    "/toolsets",
    "/toolsets/new",
    "/keys",
    "/keys/new",
    "/profile",
    "/profile/password",
    "/admin/teams",
    "/admin/teams/new",
    "/admin/users",
    "/admin/users/new",
    "/admin/groups",
    "/admin/groups/new",
    "/admin/keys",
    "/admin/keys/new",
    "/admin/access",
    "/admin/audit",
    "/admin/settings",
    "/admin/submissions",
    "/docs/api",
    "/docs/api/servers_create",
    "/no-such-page",
    "/credentials/axe_oauth",
    "/credentials/axe_oauth/connect",
    CONSENT,
)
OWN = (
    "/servers",
    "/servers/axe",
    "/servers/axe/tools?now=1",
    "/servers/axe/connect",
    "/credentials",
    "/credentials/axe",
    "/playground?server=axe&tool=search_notes",
    "/toolsets",
    "/keys",
    "/keys/new",
    "/profile",
)
OTHERS = {
    "internal_user": (*OWN, "/submissions/new", "/submissions/mine"),
    "internal_user_viewer": ("/servers", "/servers/axe", "/credentials/axe", "/keys"),
    "proxy_admin_viewer": (
        "/servers",
        "/servers/axe",
        "/servers/axe/configuration",
        "/servers/axe/access",
        "/servers/axe/tools/changes",
        "/servers/discover",
        "/servers/openapi",
        "/admin/users",
        "/admin/keys",
        "/admin/audit",
        "/admin/settings",
    ),
}
PASSWORD = "somebody's long password"
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    "resultTypes": ["violations"],
}
LOOKS = [({"width": 1440, "height": 900}, "light"), ({"width": 390, "height": 844}, "dark")]


def serious(page: Page) -> list[str]:
    """What axe calls serious or critical on the page, by rule and first place."""
    page.evaluate(AXE.read_text())
    found: list[dict[str, Any]] = page.evaluate(
        "rules => axe.run(rules).then(found => found.violations)", RULES
    )
    return [
        f"{fault['id']} at {fault['nodes'][0]['target']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


@pytest.mark.timeout(600)  # four dozen pages: a guard against hangs on a busy machine, too
@pytest.mark.parametrize(("viewport", "scheme"), LOOKS, ids=["wide-light", "narrow-dark"])
def test_no_page_shuts_anybody_out(
    portal: Portal, sign_in: SignIn, echo_server: str, viewport: dict[str, int], scheme: str
) -> None:
    """No serious finding, and no page wider than its window."""
    add_server(portal, echo_server)
    assert faults_of(portal, sign_in(viewport=viewport, color_scheme=scheme), PAGES) == {}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", OTHERS)
def test_no_page_of_theirs_shuts_others_out(
    portal: Portal, sign_in: SignIn, echo_server: str, role: str
) -> None:
    add_server(portal, echo_server)
    person = {"user_id": role, "email": f"{role}@example.com", "role": role, "password": PASSWORD}
    assert portal.api("POST", "/v1/users", person)[0] == 201
    looks = [({"width": 390, "height": 844}, "light"), ({"width": 1440, "height": 900}, "dark")]
    for viewport, scheme in looks:
        page = sign_in(f"{role}@example.com", PASSWORD, viewport=viewport, color_scheme=scheme)
        assert faults_of(portal, page, OTHERS[role]) == {}


def add_server(portal: Portal, url: str) -> None:
    """The server that every page is about, open to everybody; it is there already when another test
    looks."""
    body = {
        "server_id": "axe",
        "server_name": "axe",
        "description": "Read and change notes",
        "transport": "http",
        "url": url,
        "static_headers": {"X-Token": "${TOKEN}"},
        "mcp_access_groups": ["one", "two", "three"],
        "allow_all_keys": True,
        "env_vars": [{"name": "TOKEN", "scope": "user", "description": "From the desk"}],
    }
    assert portal.api("POST", "/v1/mcp/server", body)[0] in (201, 400)
    oauth = {"server_id": "axe_oauth", "server_name": "axe_oauth", "transport": "http", "url": url,
             "auth_type": "oauth2", "authorization_url": "https://idp.example/a", "token_url": "https://idp.example/t",
             "credentials": {"client_id": "portal", "scopes": ["notes:read"]}}  # fmt: skip
    assert portal.api("POST", "/v1/mcp/server", oauth)[0] in (201, 400)


def faults_of(portal: Portal, page: Page, paths: tuple[str, ...]) -> dict[str, list[str]]:
    """What is wrong with each of these pages: serious findings of axe, and one that is wider than
    its window."""
    faults: dict[str, list[str]] = {}
    for path in paths:
        answer = page.goto(portal.url + path)
        assert answer is not None
        assert answer.ok or path == "/no-such-page", f"{path} answered {answer.status}"
        expect(page.locator(".htmx-request")).to_have_count(0)
        found = serious(page)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append("wider than the window")
        if found:
            faults[path] = found
    return faults
