"""An Admin changes an address, and is asked what becomes of the secrets that are stored for the old
one."""

import json
from typing import Any

from playwright.sync_api import Page, expect

from tests.journeys.conftest import Portal, SignIn

SERVER: dict[str, Any] = {
    "server_id": "moving",
    "server_name": "moving",
    "transport": "http",
    "url": "https://old.example.com/mcp",
    "auth_type": "bearer_token",
    "credentials": {"auth_value": "SECRET"},
    "static_headers": {"X-Key": "SECRET"},
}


def asked(page: Page, portal: Portal) -> None:
    """Type another address, save, and look at the question."""
    page.goto(f"{portal.url}/servers/moving/edit")
    page.locator("input[name=url__mode][value=replace]").check()
    page.locator("input[name=url]").fill("https://new.example.com/mcp")
    page.get_by_role("button", name="Save changes").click()
    panel = page.locator("#moving")
    expect(panel).to_contain_text("static_headers.X-Key")
    expect(panel).to_contain_text("https://new.example.com")


def test_what_was_typed_is_kept_while_the_question_is_open(portal: Portal, sign_in: SignIn) -> None:
    for scripts in (True, False):
        portal.api("DELETE", "/v1/mcp/server/moving")
        assert portal.api("POST", "/v1/mcp/server", SERVER)[0] == 201
        page = sign_in(java_script_enabled=scripts)
        asked(page, portal)
        page.get_by_label("Delete them").check()
        page.get_by_role("button", name="Save changes").click()
        expect(page.get_by_text("Stored secrets were deleted").first).to_be_visible()
        _, stored = portal.api("GET", "/v1/mcp/server/moving")
        assert (stored["url"], stored["static_headers"]) == ("https://new.example.com/mcp", {})


def test_an_import_asks_for_each_server(portal: Portal, sign_in: SignIn) -> None:
    portal.api("DELETE", "/v1/mcp/server/moving")
    assert portal.api("POST", "/v1/mcp/server", SERVER)[0] == 201
    page = sign_in()
    page.goto(f"{portal.url}/servers/import")
    page.locator("textarea[name=text]").fill(
        json.dumps(
            {"mcpServers": {"moving": {"type": "http", "url": "https://new.example.com/mcp"}}}
        )
    )
    page.get_by_role("button", name="Preview").click()
    page.get_by_label("moving").check()
    page.get_by_label("Stored credentials").select_option("keep")
    page.get_by_role("button", name="Import selected").click()
    expect(page.get_by_text("1 server imported.").first).to_be_visible()
    _, stored = portal.api("GET", "/v1/mcp/server/moving")
    assert (stored["url"], stored["static_headers"]) == (
        "https://new.example.com/mcp",
        {"X-Key": "SECRET"},
    )
