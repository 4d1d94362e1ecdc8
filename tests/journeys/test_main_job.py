"""The journey that the portal exists for, in a real browser, against real MCP servers (issue 2,
steps 2 to 8)."""

import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.journeys.conftest import ADMIN, Portal, SignIn
from tests.support.peers import free_port

PASSWORD = "a member's long password"


@pytest.fixture(scope="module")
def people(portal: Portal) -> dict[str, str]:
    """Mel and Max, two Members; their e-mails by name."""
    for name in ("mel", "max"):
        body = {
            "user_id": name,
            "email": f"{name}@example.com",
            "display_name": name.title(),
            "password": PASSWORD,
        }
        status, answer = portal.api("POST", "/v1/users", body)
        assert status == 201, answer
    return {name: f"{name}@example.com" for name in ("mel", "max")}


def add_echo(page: Page, portal: Portal, url: str, name: str) -> None:
    """Step 2: type a server with a per-user and a global variable, try it, save it."""
    page.get_by_role("link", name="Add server").first.click()
    page.get_by_label("Name", exact=True).first.fill(name)
    page.get_by_label("Description").first.fill("Says what it received")
    page.get_by_label("Address").fill(url)
    for index, (variable, scope, extra) in enumerate(
        (("CORP_TOKEN", "user", "From the IT desk, room 4"), ("REGION", "global", "eu-1"))
    ):
        page.get_by_role("button", name="Add variable").click()
        page.locator(f"#variables-{index}-name").fill(variable)
        page.locator(f"input[name=variables-{index}-scope][value={scope}]").check()
        page.locator(f"#variables-{index}-{'description' if scope == 'user' else 'value'}").fill(
            extra
        )
    for index, (header, value) in enumerate(
        (("X-Corp-Token", "${CORP_TOKEN}"), ("X-Region", "${REGION}"))
    ):
        page.get_by_role("button", name="Add header").click()
        page.locator(f"#headers-{index}-name").fill(header)
        page.locator(f"#headers-{index}-value").fill(value)


def test_an_admin_tries_and_adds_a_server(
    portal: Portal, sign_in: SignIn, echo_server: str
) -> None:
    """Step 2: what is typed is tried before it is saved, and a fault is said precisely."""
    page = sign_in()
    add_echo(page, portal, f"http://127.0.0.1:{free_port()}/mcp", "echo")
    page.get_by_role("button", name="Test connection").click()
    result = page.locator("#test-result")
    expect(result).to_contain_text("refused the connection")
    page.get_by_label("Address").fill("https://no-such-host.invalid/mcp")
    page.get_by_role("button", name="Test connection").click()
    expect(result).to_contain_text("was not found")
    page.get_by_label("Address").fill(echo_server)
    page.get_by_role("button", name="Test connection").click()
    expect(result).to_contain_text("Connection successful")
    expect(result).to_contain_text("show_headers")
    expect(result).to_contain_text("CORP_TOKEN")
    page.get_by_role("button", name="Add server").click()
    expect(page.get_by_role("heading", name="echo", exact=True)).to_be_visible()
    status, servers = portal.api("GET", "/v1/mcp/server")
    assert status == 200
    assert [server["static_headers"] for server in servers] == [
        {"X-Corp-Token": "${CORP_TOKEN}", "X-Region": "${REGION}"}
    ]


def test_an_admin_grants_servers_to_a_team(
    portal: Portal, sign_in: SignIn, echo_server: str
) -> None:
    """Step 3: a team with a Member in it, a server granted directly and one through an access
    group."""
    for name in ("direct", "grouped", "neither"):
        body = {
            "server_id": f"g_{name}",
            "server_name": f"g_{name}",
            "transport": "http",
            "url": echo_server,
        }
        assert portal.api("POST", "/v1/mcp/server", body)[0] == 201
    admin = sign_in()
    admin.goto(f"{portal.url}/admin/users/new")
    admin.get_by_label("Email").fill("tia@example.com")
    admin.get_by_label("Name", exact=False).first.fill("Tia")
    admin.get_by_role("textbox", name="One-time password").fill("only for the first time")
    admin.get_by_role("button", name="Add user").click()
    expect(admin.get_by_role("main")).to_contain_text("tia@example.com")

    admin.goto(f"{portal.url}/admin/groups/new")
    admin.get_by_label("Name", exact=True).fill("notes of the firm")
    admin.get_by_role("checkbox", name="g_grouped").check()
    admin.get_by_role("button", name="Add access group").click()
    expect(admin.get_by_role("main")).to_contain_text("notes of the firm")

    admin.goto(f"{portal.url}/admin/teams/new")
    admin.get_by_label("Name", exact=True).fill("Writers")
    admin.get_by_role("button", name="Add team").click()
    admin.get_by_role("checkbox", name="notes of the firm").check()
    admin.get_by_role("searchbox", name="Search in MCP servers").fill("g_dir")
    admin.get_by_role("checkbox", name="g_direct").check()
    admin.get_by_role("button", name="Save changes").click()
    expect(admin.locator("#toasts")).to_contain_text("Writers")
    admin.get_by_role("searchbox", name="Search in Add member").fill("tia@")
    admin.get_by_role("radio", name="Tia").check()
    admin.get_by_role("button", name="Add to team").click()
    expect(admin.get_by_role("region", name="Members").get_by_role("list")).to_contain_text("Tia")

    tia = sign_in("tia@example.com", "only for the first time", new_password="now it is my own")
    expect(tia.locator("[data-item] .cover")).to_have_text(["g_direct", "g_grouped"])


@pytest.fixture(scope="module")
def granted(
    portal: Portal, people: dict[str, str], echo_server: str, everything_server: str
) -> str:
    """The id of a server like the one above, granted to a team with Mel and Max in it."""
    body: dict[str, Any] = {
        "server_id": "granted",
        "server_name": "corp_notes",
        "transport": "http",
        "url": echo_server,
        "static_headers": {"X-Corp-Token": "${CORP_TOKEN}", "X-Region": "${REGION}"},
        "env_vars": [
            {"name": "CORP_TOKEN", "scope": "user", "description": "From the IT desk"},
            {"name": "REGION", "scope": "global", "value": "eu-1"},
        ],
    }
    everything = {
        "server_id": "everything",
        "server_name": "everything",
        "transport": "http",
        "url": everything_server,
    }
    hidden = {
        "server_id": "hidden",
        "server_name": "hidden",
        "transport": "http",
        "url": echo_server,
    }
    for server in (body, everything, hidden):
        assert portal.api("POST", "/v1/mcp/server", server)[0] == 201
    team = {
        "team_id": "crew",
        "team_alias": "Crew",
        "members_with_roles": [{"user_id": name, "role": "user"} for name in people],
        "object_permission": {"mcp_servers": ["granted", "everything"]},
    }
    assert portal.api("POST", "/v1/teams", team)[0] == 201
    return "granted"


def card(page: Page, server_id: str) -> Any:
    """A server's card on the grid."""
    return page.locator(f"#server-{server_id}")


def test_a_member_fills_in_what_is_missing_and_calls_a_tool(
    portal: Portal, sign_in: SignIn, granted: str, people: dict[str, str]
) -> None:
    """Steps 4 and 5 with JavaScript: badge, dialog, badge gone without a reload, 412 in place, the
    answer."""
    page = sign_in(people["mel"], PASSWORD)
    expect(page.locator("[data-item]")).to_have_count(2)
    expect(page.get_by_text("hidden", exact=True)).to_have_count(0)
    expect(card(page, granted)).to_contain_text("1 value missing")
    expect(card(page, granted)).to_contain_text("CORP_TOKEN")
    expect(card(page, "everything").get_by_text("Checking…")).to_have_count(0)

    status, answer = portal.api(
        "POST",
        "/v1/mcp/tools/call",
        {"server_id": granted, "name": "show_headers", "arguments": {}},
        key=key_of(portal),
    )
    assert status == 412
    assert answer["detail"]["error"] == "missing_user_env_vars"
    assert answer["detail"]["names"] == ["CORP_TOKEN"]
    assert answer["detail"]["setup_url"] == f"{portal.url}/credentials/{granted}"

    page.goto(f"{portal.url}/playground?server={granted}&tool=show_headers")
    page.get_by_role("button", name="Call the tool").click()
    expect(page.locator("#result")).to_contain_text("CORP_TOKEN")
    expect(page.locator("#result input[type=password]")).to_be_visible()

    page.goto(f"{portal.url}/servers")
    page.evaluate("window.stays = true")
    card(page, granted).get_by_role("link", name="Set up").click()
    page.locator("#dialog input[type=password]").fill("mel-s-own-token")
    page.get_by_role("button", name="Save and test").click()
    expect(page.locator("#dialog")).to_contain_text("Saved and tested successfully")
    expect(card(page, granted).get_by_text("1 value missing")).to_have_count(0)
    assert page.evaluate("window.stays"), "the grid was not loaded again"

    page.goto(f"{portal.url}/credentials")
    expect(page.get_by_role("main")).to_contain_text("1 of 1")

    page.goto(f"{portal.url}/playground?server={granted}&tool=show_headers")
    page.get_by_role("button", name="Call the tool").click()
    expect(page.locator("#result")).to_contain_text("mel-s-own-token")
    expect(page.locator("#result")).to_contain_text("eu-1")
    page.goto(f"{portal.url}/playground?server=everything&tool=get-sum")
    page.get_by_label("a", exact=True).fill("19")
    page.get_by_label("b", exact=True).fill("23")
    page.get_by_role("button", name="Call the tool").click()
    expect(page.locator("#result")).to_contain_text("42")


def test_without_javascript_a_second_member_does_the_same_with_another_value(
    portal: Portal, sign_in: SignIn, granted: str, people: dict[str, str]
) -> None:
    """Steps 4 and 5 without JavaScript: every link and form works by itself."""
    page = sign_in(people["max"], PASSWORD, java_script_enabled=False)
    expect(card(page, granted)).to_contain_text("1 value missing")
    page.goto(f"{portal.url}/playground?server={granted}&tool=show_headers")
    page.get_by_role("button", name="Call the tool").click()
    expect(page.locator("#result")).to_contain_text("CORP_TOKEN")
    page.goto(f"{portal.url}/servers")
    card(page, granted).get_by_role("link", name="Set up").click()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Enter CORP_TOKEN")
    page.locator("main input[type=password]").fill("max-has-another")
    page.get_by_role("button", name="Save and test").click()
    expect(page.get_by_role("main")).to_contain_text("Saved and tested successfully")
    page.goto(f"{portal.url}/servers")
    expect(card(page, granted).get_by_text("1 value missing")).to_have_count(0)
    page.goto(f"{portal.url}/playground?server={granted}&tool=show_headers")
    page.get_by_role("button", name="Call the tool").click()
    expect(page.locator("#result")).to_contain_text("max-has-another")
    assert "mel-s-own-token" not in page.content()
    for path in (f"/credentials/{granted}", "/credentials", f"/servers/{granted}"):
        page.goto(portal.url + path)
        assert "max-has-another" not in page.content(), f"{path} reads a stored value back"


def test_nobody_reads_a_stored_value_back(portal: Portal, sign_in: SignIn, granted: str) -> None:
    """Step 5: not even the Admin, by page or API."""
    admin = sign_in()
    for path in ("", "/configuration", "/access", "/credentials", "/health", "/edit"):
        admin.goto(f"{portal.url}/servers/{granted}{path}")
        assert "max-has-another" not in admin.content()
        assert "mel-s-own-token" not in admin.content()
    for path in (
        f"/v1/mcp/server/{granted}",
        f"/v1/mcp/server/{granted}/user-env-vars",
        "/v1/mcp/user-env-vars/status",
    ):
        assert "own-token" not in str(portal.api("GET", path)[1])


def key_of(portal: Portal, user_id: str = "mel") -> str:
    """A fresh API key of a person, for the team that they are in."""
    status, answer = portal.api("POST", "/v1/keys", {"user_id": user_id, "team_id": "crew"})
    assert status == 201, answer
    return str(answer["key"])


AUTH_HEADERS = {
    "bearer_token": ("authorization", "Bearer my-own-key"),
    "api_key": ("x-api-key", "my-own-key"),
    "token": ("authorization", "token my-own-key"),
    "authorization": ("authorization", "my-own-key"),
    "basic": ("authorization", "Basic bXktb3duLWtleQ=="),
}


def test_a_person_brings_their_own_key(portal: Portal, sign_in: SignIn, echo_server: str) -> None:
    """Step 6: Connect, the key goes upstream as the auth type says, Replace and Remove work."""
    for auth_type in AUTH_HEADERS:
        body = {
            "server_id": f"byok_{auth_type}",
            "server_name": f"byok_{auth_type}",
            "transport": "http",
            "url": echo_server,
            "auth_type": auth_type,
            "is_byok": True,
            "byok_description": ["Read your notes"],
            "allow_all_keys": True,
        }
        assert portal.api("POST", "/v1/mcp/server", body)[0] == 201
    page = sign_in()
    mine = card(page, "byok_bearer_token")
    mine.get_by_role("link", name="Connect").click()
    expect(page.locator("#dialog")).to_contain_text("Read your notes")
    page.locator("#dialog input[type=password]").fill("first-key")
    page.locator("#dialog").get_by_role("button", name="Connect").click()
    expect(page.locator("#dialog")).to_contain_text("Connected")
    page.goto(f"{portal.url}/servers")
    expect(mine).to_contain_text("Key connected")
    page.goto(f"{portal.url}/credentials/byok_bearer_token")
    page.locator("main input[type=password]").fill("my-own-key")
    page.get_by_role("button", name="Replace").click()
    expect(page.get_by_role("main")).to_contain_text("Saved")
    for auth_type, (header, sent) in AUTH_HEADERS.items():
        path = f"/v1/mcp/server/byok_{auth_type}/user-credential"
        if auth_type != "bearer_token":
            status, answer = portal.api("POST", path, {"credential": "my-own-key", "save": True})
            assert (status, answer["has_credential"]) == (200, True)
        call = {"server_id": f"byok_{auth_type}", "name": "show_headers", "arguments": {}}
        status, answer = portal.api("POST", "/v1/mcp/tools/call", call)
        assert status == 200, answer
        assert answer["structuredContent"][header] == sent
    page.goto(f"{portal.url}/credentials/byok_bearer_token")
    page.get_by_role("button", name="Remove my key").click()
    expect(page.locator("#toasts")).to_contain_text("Your key was removed")
    call = {"server_id": "byok_bearer_token", "name": "show_headers", "arguments": {}}
    status, answer = portal.api("POST", "/v1/mcp/tools/call", call)
    assert (status, answer["detail"]["error"]) == (401, "byok_auth_required")


def test_health_comes_from_the_worker(portal: Portal, sign_in: SignIn, echo_server: str) -> None:
    """Step 7: probed in the background, shown on the card with how and why; a person's own sign-in
    is no fault."""
    servers = {
        "h_ok": {"url": echo_server},
        "h_gone": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
        "h_oauth": {"url": echo_server, "auth_type": "oauth2"},
        "h_own": {
            "url": echo_server,
            "static_headers": {"X-T": "${T}"},
            "env_vars": [{"name": "T", "scope": "user"}],
        },
    }
    for name, fields in servers.items():
        body = {"server_id": name, "server_name": name, "transport": "http", **fields}
        assert portal.api("POST", "/v1/mcp/server", body)[0] == 201
    page = sign_in()
    shown = {
        "h_ok": "Healthy",
        "h_gone": "Unhealthy",
        "h_oauth": "Needs user sign-in",
        "h_own": "Needs user values",
    }
    for name, label in shown.items():
        page.goto(f"{portal.url}/servers/{name}/health")
        deadline = (
            time.monotonic() + 40
        )  # the worker's turn comes every two seconds, on a busy machine later
        while (
            not page.get_by_role("main").get_by_text(label).count() and time.monotonic() < deadline
        ):
            page.reload()
        expect(page.get_by_role("main")).to_contain_text(label)
    page.goto(f"{portal.url}/servers?q=h_")
    for name, label in shown.items():
        expect(page.locator(f"#health-{name}")).to_contain_text(label)
    page.goto(f"{portal.url}/servers/h_gone/health")
    expect(page.get_by_role("main")).to_contain_text("refused the connection")


def test_two_admins_edit_and_one_deletes(portal: Portal, sign_in: SignIn, echo_server: str) -> None:
    """Step 8: only what was changed is written, the second editor is told, a delete says who is cut
    off."""
    body = {
        "server_id": "edited",
        "server_name": "edited",
        "transport": "http",
        "url": echo_server,
        "alias": "ed",
        "auth_type": "bearer_token",
        "credentials": {"auth_value": "kept-secret"},
        "static_headers": {"X-Old": "stays"},
        "allow_all_keys": True,
    }
    assert portal.api("POST", "/v1/mcp/server", body)[0] == 201
    first = sign_in()
    second = sign_in()
    for page in (first, second):
        page.goto(f"{portal.url}/servers/edited/edit")
    first.get_by_label("Description").first.fill("By the first")
    first.get_by_role("button", name="Save changes").click()
    expect(first.get_by_role("heading", name="edited", exact=True)).to_be_visible()
    second.get_by_label("Description").first.fill("By the second")
    second.get_by_role("button", name="Save changes").click()
    expect(second.get_by_role("main")).to_contain_text(
        "Changed by someone else while you were editing"
    )
    expect(second.get_by_label("Description").first).to_have_value("By the second")
    assert portal.api("GET", "/v1/mcp/server/edited")[1]["description"] == "By the first"
    second.get_by_role("button", name="Save changes").click()
    expect(second.get_by_role("heading", name="edited", exact=True)).to_be_visible()
    server = portal.api("GET", "/v1/mcp/server/edited")[1]
    assert (server["description"], server["url"]) == ("By the second", echo_server)
    assert server["static_headers"] == {"X-Old": "stays"}
    call = {"server_id": "edited", "name": "show_headers", "arguments": {}}
    assert (
        portal.api("POST", "/v1/mcp/tools/call", call)[1]["structuredContent"]["authorization"]
        == "Bearer kept-secret"
    )

    first.goto(f"{portal.url}/servers/edited/delete")
    expect(first.get_by_role("main")).to_contain_text("cannot be undone")
    first.get_by_role("button", name="Delete server").click()
    expect(first.locator("#toasts")).to_contain_text("edited deleted")
    assert portal.api("GET", "/v1/mcp/server/edited")[0] == 404


def test_the_sign_in_page_leads_back_to_where_one_was_going(
    portal: Portal, browser_page_factory: Any
) -> None:
    """A link out of an AI client's error: sign in, and there is the page."""
    page = browser_page_factory()
    page.goto(f"{portal.url}/credentials")
    page.get_by_label("Email").fill(ADMIN[0])
    page.get_by_label("Password").fill("wrong password!")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Incorrect email or password")
    page.get_by_label("Password").fill(ADMIN[1])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="My credentials")).to_be_visible()
