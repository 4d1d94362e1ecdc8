"""axe-core (WCAG 2.2 A and AA) on every kind of page, light at 1440 px and dark at 390 px."""

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.journeys.conftest import Portal, SignIn
from tests.peers import AXE

CONSENT = (
    "/axe_oauth/authorize?redirect_uri=http%3A%2F%2Flocalhost%3A3000%2Fcb&client_id=an-app"
    f"&code_challenge={'c' * 43}&code_challenge_method=S256"
)
PAGES = (
    "/servers", "/servers?view=table", "/servers/new", "/servers/axe", "/servers/axe/edit", "/servers/axe/tools?now=1",
    "/servers/axe/configuration", "/servers/axe/access", "/servers/axe/credentials", "/servers/axe/health",
    "/servers/axe/activity", "/servers/axe/connect", "/servers/axe/delete", "/servers/import", "/credentials",
    "/credentials/axe", "/playground?server=axe&tool=search_notes", "/toolsets", "/toolsets/new", "/keys", "/keys/new",
    "/profile", "/profile/password", "/admin/teams", "/admin/teams/new", "/admin/users", "/admin/users/new",
    "/admin/groups", "/admin/groups/new", "/admin/keys", "/admin/keys/new", "/admin/access", "/admin/audit",
    "/admin/settings", "/admin/submissions", "/no-such-page", "/credentials/axe_oauth",
    "/credentials/axe_oauth/connect", CONSENT,
)  # fmt: skip
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
LOOKS = [({"width": 1440, "height": 900}, "light"), ({"width": 390, "height": 844}, "dark")]


def serious(page: Page) -> list[str]:
    """What axe calls serious or critical on the page, by rule and first place."""
    page.evaluate(AXE.read_text())
    found: list[dict[str, Any]] = page.evaluate("rules => axe.run(rules).then(found => found.violations)", RULES)
    return [
        f"{fault['id']} at {fault['nodes'][0]['target']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(("viewport", "scheme"), LOOKS, ids=["wide-light", "narrow-dark"])
def test_no_page_shuts_anybody_out(
    portal: Portal, sign_in: SignIn, echo_server: str, viewport: dict[str, int], scheme: str
) -> None:
    """No serious finding, and no page wider than its window."""
    body = {
        "server_id": "axe", "server_name": "axe", "description": "Read and change notes", "transport": "http",
        "url": echo_server, "static_headers": {"X-Token": "${TOKEN}"}, "mcp_access_groups": ["one", "two", "three"],
        "env_vars": [{"name": "TOKEN", "scope": "user", "description": "From the desk"}],
    }  # fmt: skip
    assert portal.api("POST", "/v1/mcp/server", body)[0] in (201, 400)  # the second look finds it there
    oauth = {"server_id": "axe_oauth", "server_name": "axe_oauth", "transport": "http", "url": echo_server,
             "auth_type": "oauth2", "authorization_url": "https://idp.example/a", "token_url": "https://idp.example/t",
             "credentials": {"client_id": "portal", "scopes": ["notes:read"]}}  # fmt: skip
    assert portal.api("POST", "/v1/mcp/server", oauth)[0] in (201, 400)
    page = sign_in(viewport=viewport, color_scheme=scheme)
    faults: dict[str, list[str]] = {}
    for path in PAGES:
        page.goto(portal.url + path)
        page.wait_for_load_state("networkidle")
        found = serious(page)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append("wider than the window")
        if found:
            faults[path] = found
    assert faults == {}
