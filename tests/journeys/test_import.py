"""An Admin brings what stands in VS Code's `mcp.json` into the portal (issue 3, point 5)."""

import json

from playwright.sync_api import expect

from tests.journeys.conftest import Portal, SignIn

TOKEN = "ghp_abcdefghijklmnop0123456789"


def test_the_token_of_a_vs_code_file_becomes_a_variable(portal: Portal, sign_in: SignIn) -> None:
    document = {
        "servers": {
            "code-host": {
                "type": "http",
                "url": "https://code.example/mcp",
                "headers": {"Authorization": f"Bearer {TOKEN}"},
            }
        }
    }
    page = sign_in()
    page.get_by_role("link", name="Import").click()
    page.get_by_label("Or paste it here").fill(json.dumps(document))
    page.get_by_role("button", name="Preview").click()

    expect(page.get_by_role("heading", name="Import preview")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("1 new")
    assert TOKEN not in page.content()
    page.get_by_label("Secret in Authorization → CODE_HOST_TOKEN").select_option(
        "Each user’s own value"
    )
    page.get_by_role("button", name="Import selected").click()

    expect(page.get_by_role("heading", name="Servers", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="code_host", exact=True)).to_be_visible()
    status, server = portal.api("GET", "/v1/mcp/server/code_host")
    assert status == 200
    assert server["static_headers"] == {"Authorization": "Bearer ${CODE_HOST_TOKEN}"}
    assert [(v["name"], v["scope"], v["value"]) for v in server["env_vars"]] == [
        ("CODE_HOST_TOKEN", "user", None)
    ]
    page.goto(f"{portal.url}/credentials/{server['server_id']}")
    expect(page.get_by_role("textbox", name="CODE_HOST_TOKEN")).to_be_visible()
