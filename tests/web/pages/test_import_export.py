"""Import and export of the catalog, by page (UI list of `ui.md`, number 48)."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, update

from portal.app import open_database
from portal.domain.principals import OPERATOR
from portal.domain.servers import Transport
from portal.services.access import principals
from portal.services.catalog import exports, imports
from portal.services.servers.destinations import write_definition
from portal.settings import Settings
from portal.store.models import AuditEvent, ImportDraft, Server, now
from tests.conftest import Client, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of
from tests.support.factories import make_server

As = Callable[[str], Browser]
BEGIN = "/servers/import"
PREVIEW = "/servers/import/preview"
TOKEN = "ghp_SECRETabcdefghij0123456789"
VSCODE = f"""{{
  // my servers
  "inputs": [{{"type": "promptString", "id": "wiki-key", "description": "Wiki key", "password": true}}],
  "servers": {{
    "git-hub": {{
      "type": "http", "url": "https://git.example/mcp",
      "headers": {{"Authorization": "Bearer {TOKEN}", "X-Region": "eu"}}
    }},
    "wiki": {{"url": "https://wiki.example/mcp", "headers": {{"X-Wiki": "${{input:wiki-key}}"}}}},
    "local": {{"command": "npx", "args": ["-y", "thing"]}},
    "old": {{"type": "websocket", "url": "wss://old.example"}},
    "notes": {{"type": "http", "url": "https://other.example/mcp"}},
  }},
}}"""  # noqa: E501 - the line is part of the document


def paste(browser: Browser, text: str) -> Any:
    return browser.send(BEGIN, press="none", text=text)


def preview(browser: Browser, text: str) -> Any:
    answer = paste(browser, text)
    assert (answer.status_code, answer.location) == (CHANGED, PREVIEW), answer.get_data(
        as_text=True
    )
    return browser.open(PREVIEW)


def stored(client: Callable[[str], Client], name: str) -> Any:
    rows = client("ada").get("/v1/mcp/server").get_json()
    return next((row for row in rows if row["server_name"] == name), None)


def test_the_preview_says_what_would_happen_line_by_line(browser: As) -> None:
    page = preview(browser("ada"), VSCODE)
    assert "2 new, 1 changed, 0 skipped, 2 cannot be imported" in text_of(page.select_one("#plan"))
    rows = [text_of(row) for row in page.select("main tbody tr")]
    assert "git_hub" in rows[0]
    assert "Line 5, git-hub in the document" in rows[0]
    assert "Secret in Authorization → GIT_HUB_TOKEN" in rows[0]
    assert "Each user must set WIKI_KEY" in rows[1]
    assert "is disabled" in rows[2]
    assert "transport is not supported" in rows[3]
    assert "Differences: url" in rows[4]
    assert [box["value"] for box in page.select("input[name=take][checked]")] == ["0", "1"]


@pytest.mark.parametrize(
    ("share", "header", "auth", "variables"),
    [
        ("global", "Bearer ${GIT_HUB_TOKEN}", None, [("GIT_HUB_TOKEN", "global", TOKEN)]),
        ("user", "Bearer ${GIT_HUB_TOKEN}", None, [("GIT_HUB_TOKEN", "user", None)]),
        ("keep", None, "bearer_token", []),
    ],
)
def test_a_token_goes_where_the_admin_says(
    browser: As, client: Any, share: str, header: str | None, auth: str | None, variables: list[Any]
) -> None:
    ada = browser("ada")
    preview(ada, VSCODE)
    answer = ada.send(PREVIEW, press="none", take=["0"], **{"share-0-0": share})
    assert answer.status_code == CHANGED
    server = stored(client, "git_hub")
    assert server["static_headers"].get("Authorization") == header
    assert server["static_headers"]["X-Region"] == "eu"
    assert (server["auth_type"], server["transport"], server["url"]) == (
        auth,
        "http",
        "https://git.example/mcp",
    )
    assert [(v["name"], v["scope"], v["value"]) for v in server["env_vars"]] == variables
    assert stored(client, "wiki") is None


def test_an_input_of_vs_code_becomes_a_variable_of_each_user(browser: As, client: Any) -> None:
    ada = browser("ada")
    preview(ada, VSCODE)
    ada.send(PREVIEW, press="none")
    server = stored(client, "wiki")
    assert server["static_headers"] == {"X-Wiki": "${WIKI_KEY}"}
    assert server["env_vars"] == [
        {"name": "WIKI_KEY", "scope": "user", "value": None, "description": "Wiki key"}
    ]


def test_a_changed_server_is_changed_only_when_it_is_ticked(browser: As, client: Any) -> None:
    ada = browser("ada")
    preview(ada, VSCODE)
    ada.send(PREVIEW, press="none")
    assert stored(client, "notes")["url"] == "http://127.0.0.1:9/notes"
    preview(ada, VSCODE)
    ada.send(PREVIEW, press="none", take=["4"])
    assert stored(client, "notes")["url"] == "https://other.example/mcp"


def test_everything_is_imported_or_nothing(browser: As, client: Any, write: Write) -> None:
    """One transaction: a credential that would move unasked stops all of it, and the page says
    which."""
    with write() as session:
        make_server(session, "held", auth_type="bearer_token", credentials={"auth_value": "SECRET"})
    ada = browser("ada")
    document = {
        "mcpServers": {
            "fresh": {"url": "https://a.example"},
            "held": {"url": "https://b.example", "type": "http"},
        }
    }
    preview(ada, json.dumps(document))
    page = look_at(ada.send(PREVIEW, press="none", take=["0", "1"]), 422)
    assert "held, line 1" in text_of(page.select_one("[data-error-summary]"))
    assert "Nothing was imported" in text_of(page.select_one("[data-error-summary]"))
    assert stored(client, "fresh") is None
    assert ada.send(PREVIEW, press="none", take=["0"]).status_code == CHANGED


def test_nothing_ticked_is_told(browser: As) -> None:
    ada = browser("ada")
    preview(ada, VSCODE)
    page = look_at(ada.send(PREVIEW, press="none", take=[]), 422)
    assert "Select at least one server" in text_of(page.select_one("[data-error-summary]"))


def test_the_document_is_sealed_while_it_waits_and_gone_afterwards(
    browser: As, write: Write
) -> None:
    ada = browser("ada")
    assert TOKEN not in str(preview(ada, VSCODE))
    with write() as session:
        sealed = session.scalars(select(ImportDraft.sealed)).one()
        assert TOKEN.encode() not in sealed
    ada.send(PREVIEW, press="none")
    with write() as session:
        assert session.scalar(select(func.count()).select_from(ImportDraft)) == 0
        details = json.dumps([event.details for event in session.scalars(select(AuditEvent))])
    assert TOKEN not in details
    assert '"git_hub"' in details


def test_the_document_can_be_forgotten_and_forgets_itself_after_an_hour(
    browser: As, write: Write
) -> None:
    ada = browser("ada")
    preview(ada, VSCODE)
    assert ada.post("/servers/import/cancel").status_code == CHANGED
    assert ada.client.get(PREVIEW).location == BEGIN
    preview(ada, VSCODE)
    with write() as session:
        session.execute(update(ImportDraft).values(created_at=now().replace(year=2020)))
    assert ada.client.get(PREVIEW).location == BEGIN


def test_a_document_waits_for_the_one_who_pasted_it(browser: As, client: Any) -> None:
    client("ada").patch("/v1/users/otto", {"role": "proxy_admin"})
    preview(browser("ada"), VSCODE)
    assert browser("otto").client.get(PREVIEW).location == BEGIN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The document is empty"),
        ('{"mcpServers": {\n  "a": {"url": }\n}}', "line 2, column 16"),
        ("mcp_servers:\n  a: ]", "line 2, column 6"),
        ("a: &x SECRET\nb: *x", "aliases"),
        ('{"hello": "SECRET"}', "cannot be imported"),
        ('{"mcpServers": {"a": {}, "a": {}}}', "duplicate field"),
        ('{"a":' * 40 + "1" + "}" * 40, "32 levels"),
        ('{"a":' * 50_000, "too deeply"),
        ("mcp_servers: " + "[" * 40 + "]" * 40, "32 levels"),
        ("x" * 262_145, "256 KB"),
        ('{"mcpServers": {"a": {"url": "\\ud800"}}}', "invalid character"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_read_is_told_and_not_sent_back(
    browser: As, text: str, message: str
) -> None:
    page = look_at(paste(browser("ada"), text), 422)
    assert message in text_of(page.select_one("#text-error"))
    assert page.select_one("textarea").text.strip() == ""


def test_a_file_does_as_well(browser: As) -> None:
    ada = browser("ada")
    token = ada.form(BEGIN).select_one("input[name=csrf_token]")["value"]
    upload = {
        "csrf_token": token,
        "text": "",
        "file": (io.BytesIO(b"\xef\xbb\xbf" + VSCODE.encode()), "mcp.json"),
    }
    answer = ada.client.ask("POST", BEGIN, data=upload, content_type="multipart/form-data")
    assert (answer.status_code, answer.location) == (CHANGED, PREVIEW)
    broken = {"csrf_token": token, "text": "", "file": (io.BytesIO(b"\xff\xfe"), "mcp.json")}
    page = look_at(
        ada.client.ask("POST", BEGIN, data=broken, content_type="multipart/form-data"), 422
    )
    assert "UTF-8" in text_of(page.select_one("#text-error"))


@pytest.mark.parametrize("name", ["vera", "mel", "vic"])
def test_only_an_admin_imports_and_exports(browser: As, name: str) -> None:
    person = browser(name)
    assert [
        person.client.get(path).status_code for path in (BEGIN, PREVIEW, "/servers/export")
    ] == [404, 404, 404]
    for path in (BEGIN, PREVIEW, "/servers/import/cancel", "/servers/export"):
        assert person.post(path).status_code == 404, path
    # Its button is on a page that those with admin view see.
    assert person.post("/servers/id-notes/listing").status_code == (403 if name == "vera" else 404)
    assert not person.open("/servers").select('a[href="/servers/import"]')


def test_an_admin_finds_both_beside_add_server(browser: As) -> None:
    page = browser("ada").open("/servers")
    assert page.select_one(f'a[href="{BEGIN}"]')
    assert page.select_one('a[href="/servers/export"]')


# Export


def fill(write: Write) -> None:
    with write() as session:
        make_server(
            session,
            "full",
            description="Höfe: #1",
            url="https://full.example/mcp",
            auth_type="bearer_token",
            credentials={"auth_value": "SECRET-bearer"},
            mcp_access_groups=["writers"],
            allowed_tools=["a"],
            static_headers={"X-Api-Key": "SECRET-key", "X-Ref": "Bearer ${PERSONAL}"},
            timeout=12,
            env_vars=[
                {"name": "PERSONAL", "scope": "user", "description": "Ask IT"},
                {"name": "SHARED", "scope": "global", "value": "SECRET-shared"},
            ],
        )
        make_server(session, "secret_url", url="https://a.example/mcp?api_key=SECRET-in-query")
        make_server(session, "secret_path", url="https://a.example/sk-SECRETpath0123456789/mcp")


@pytest.mark.parametrize("name", sorted(exports.FORMATS))
def test_no_export_holds_a_secret(browser: As, write: Write, name: str) -> None:
    fill(write)
    answer = browser("ada").send("/servers/export", press="none", format=name)
    text = answer.get_data(as_text=True)
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert "SECRET" not in text
    assert "full" in text
    with write() as session:
        assert session.scalar(
            select(AuditEvent.details).where(AuditEvent.action == "catalog exported")
        ) == {"format": name}


def test_what_is_exported_and_imported_again_changes_nothing(browser: As, write: Write) -> None:
    fill(write)
    ada = browser("ada")
    text = ada.send("/servers/export", press="none", format="catalog.yaml").get_data(as_text=True)
    assert "4 skipped" in text_of(preview(ada, text).select_one("#plan"))


def test_a_change_in_the_exported_file_keeps_what_the_file_does_not_hold(
    browser: As, client: Any, write: Write
) -> None:
    fill(write)
    ada = browser("ada")
    text = ada.send("/servers/export", press="none", format="catalog.yaml").get_data(as_text=True)
    preview(ada, text.replace("Höfe: #1", "Yards").replace("timeout: 12", "timeout: 20"))
    before = stored(client, "full")
    assert ada.send(PREVIEW, press="none", take=["0"]).status_code == CHANGED
    after = stored(client, "full")
    assert (after["description"], after["timeout"]) == ("Yards", 20)
    same = ("url", "static_headers", "env_vars", "mcp_access_groups", "auth_type", "allowed_tools")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_an_export_becomes_servers_elsewhere(browser: As, client: Any, write: Write) -> None:
    """On another portal a header that is named only asks each user for its value."""
    fill(write)
    ada = browser("ada")
    text = ada.send("/servers/export", press="none", format="catalog.yaml").get_data(as_text=True)
    for name in ("full", "secret_url", "secret_path"):
        assert client("ada").delete(f"/v1/mcp/server/id-{name}").status_code == 202
    page = preview(ada, text)
    assert "1 new, 0 changed, 1 skipped, 2 cannot be imported" in text_of(page.select_one("#plan"))
    ada.send(PREVIEW, press="none")
    server = stored(client, "full")
    assert server["static_headers"] == {"X-Api-Key": "${X_API_KEY}", "X-Ref": "Bearer ${PERSONAL}"}
    assert {v["name"]: v["scope"] for v in server["env_vars"]} == {
        "PERSONAL": "user",
        "SHARED": "global",
        "X_API_KEY": "user",
    }


# Listing and the hub


def test_an_admin_lists_a_server_and_strangers_see_it(browser: As, client: Any) -> None:
    ada = browser("ada")
    path = "/servers/id-notes/access"
    client("ada").patch("/v1/settings", {"enable_mcp_registry": True})
    assert "No public servers yet" in text_of(look_at(client(None).get("/hub")).main)
    assert ada.post("/servers/id-notes/listing", listed="yes").status_code == CHANGED
    assert "Unlist" in text_of(ada.open(path).main)
    page = look_at(client(None).get("/hub"))
    assert [text_of(card) for card in page.select(".card")] == ["NO notes HTTP"]
    assert "No matching servers" in text_of(look_at(client(None).get("/hub?q=zzz")).main)
    ada.post("/servers/id-notes/listing", listed="no")
    assert "List publicly" in text_of(ada.open(path).main)
    assert not look_at(client(None).get("/hub")).select(".card")


def test_the_hub_is_followed_page_by_page(client: Any, write: Write) -> None:
    with write() as session:
        for number in range(60):
            make_server(session, f"s_{number:02}")
        session.execute(update(Server).values(is_public=True))
    client("ada").patch("/v1/settings", {"enable_mcp_registry": True})
    first = look_at(client(None).get("/hub"))
    second = look_at(client(None).get(first.select_one("a[rel=next]")["href"]))
    titles = [text_of(title) for page in (first, second) for title in page.select(".card h2")]
    assert titles == ["notes", *(f"s_{number:02}" for number in range(60))]


def test_a_read_only_admin_sees_no_button_to_list(browser: As) -> None:
    assert not browser("vera").open("/servers/id-notes/access").select('form[action$="/listing"]')


def test_an_export_is_asked_for_in_a_format_that_exists(browser: As) -> None:
    page = look_at(browser("ada").post("/servers/export", format="passwords.txt"), 422)
    assert "Not a valid choice" in text_of(page.main)


def test_the_command_line_exports_the_same(write: Write, browser: As) -> None:
    fill(write)
    page = (
        browser("ada")
        .send("/servers/export", press="none", format="catalog.yaml")
        .get_data(as_text=True)
    )
    by_old_name = browser("ada").send("/servers/export", press="none", format="catalogue.yaml")
    assert (by_old_name.status_code, by_old_name.get_data(as_text=True)) == (200, page)
    with write() as session:
        assert exports.export_catalog(session, OPERATOR, "catalog.yaml") == page


AGAIN = {
    "static_headers": {"X-Key": "SECRET-stored"},
    "env_vars": [{"name": "KEY", "value": "v", "scope": "global"}],
}


def moving(browser: As, write: Write) -> Any:
    """The preview of a document that moves a server and names a header as it is stored; and a fresh
    server beside."""
    with write() as session:
        make_server(session, "moves", **AGAIN)
    entry = {"type": "http", "url": "https://b.example/mcp", "headers": {"X-Key": "SECRET-stored"}}
    return preview(
        browser("ada"),
        json.dumps({"mcpServers": {"moves": entry, "fresh": {"url": "https://a.example"}}}),
    )


@pytest.mark.parametrize(
    ("said", "header", "key"),
    [
        ({"keep-0": "keep"}, "SECRET-stored", "v"),
        ({"keep-0": "forget"}, None, ""),
        ({"keep-0": "type", "new-0-0": "typed", "new-0-1": "anew"}, "typed", "anew"),
    ],
)
@pytest.mark.parametrize("share", ["keep", "global"])
def test_a_stored_value_that_the_document_names_again_has_a_way_on(
    browser: As,
    client: Any,
    write: Write,
    said: dict[str, str],
    header: str | None,
    key: str,
    share: str,
) -> None:
    page = moving(browser, write)
    assert "static_headers.X-Key" in text_of(page.select("main tbody tr")[0])
    assert len(page.select("[type=password]")) == 2
    ada = browser("ada")
    for half in ({}, {"keep-0": "type", "new-0-0": "SECRET-half"}):
        refused = look_at(
            ada.send(PREVIEW, press="none", take=["0", "1"], **{"share-0-0": share}, **half), 422
        )
        summary = refused.select_one("[data-error-summary]")
        assert "moves, line 1: Stored secrets would be sent to another host" in text_of(summary)
        assert refused.select_one(summary.select_one("a")["href"]).name == "select", (
            "it leads to the choice"
        )
        assert "keep_credentials" not in text_of(summary), "which is a word of the API"
        assert stored(client, "fresh") is None
        assert "SECRET" not in str(refused)
        assert refused.select_one("[name=share-0-0] [selected]")["value"] == share
        assert {box["value"] for box in refused.select("[name=take][checked]")} == {"0", "1"}
    assert (
        ada.send(PREVIEW, press="none", take=["0"], **{"share-0-0": share}, **said).status_code
        == CHANGED
    )
    server = stored(client, "moves")
    assert server["url"] == "https://b.example/mcp"
    values = {v["name"]: v["value"] for v in server["env_vars"]}
    assert values["KEY"] == key
    if share == "keep" or said["keep-0"] == "type":
        assert server["static_headers"].get("X-Key") == header


def test_a_server_that_would_move_can_be_left_out(browser: As, client: Any, write: Write) -> None:
    moving(browser, write)
    assert browser("ada").send(PREVIEW, press="none", take=["1"]).status_code == CHANGED
    assert stored(client, "fresh")
    assert stored(client, "moves")["url"] == "http://127.0.0.1:9/moves"


def test_a_stored_value_that_would_become_a_variable_elsewhere_is_asked_about_too(
    browser: As, client: Any, write: Write
) -> None:
    with write() as session:
        make_server(session, "moves", static_headers=AGAIN["static_headers"])
    ada = browser("ada")
    entry = {"url": "https://b.example/mcp", "headers": {"X-Key": "SECRET-stored"}}
    preview(ada, json.dumps({"mcpServers": {"moves": entry}}))
    refused = look_at(ada.send(PREVIEW, press="none", take=["0"], **{"share-0-0": "global"}), 422)
    assert "static_headers.X-Key" in text_of(refused.select_one("[data-error-summary]"))
    assert stored(client, "moves")["url"] == "http://127.0.0.1:9/moves"
    sent = {"share-0-0": "global", "keep-0": "keep"}
    assert ada.send(PREVIEW, press="none", take=["0"], **sent).status_code == CHANGED
    assert stored(client, "moves")["static_headers"] == {"X-Key": "${X_KEY}"}


@pytest.mark.parametrize("hides", [False, True], ids=["readable", "write-only"])
def test_an_export_says_what_is_in_it_and_shows_nobody_what_they_may_not_read(
    settings: Settings, hides: bool
) -> None:
    database = open_database(
        settings.model_copy(update={"write_only_globals": hides, "enable_stdio": True})
    )
    shown = ("https://a.example/way", "https://a.example/document", "--flag", "Bearer ${OWN}")
    with database.session(writes=True) as session:
        make_server(
            session, "web", url=shown[0], static_headers={"X-Ref": shown[3], "X-Key": "SECRET-key"}
        )
        make_server(session, "spec", url=None, spec_path=shown[1])
        row = Server(
            server_id="id-cmd", server_name="cmd", alias="cmd", transport="stdio", sort_key="cmd"
        )
        session.add(row)
        session.flush()
        fields = {
            "transport": Transport.STDIO,
            "command": "uvx",
            "args": [shown[2]],
            "env": {"TOKEN": "SECRET-env"},
        }
        write_definition(session, row, fields)  # type: ignore[arg-type]
        ada = principals.principal_for_user(session, "ada", None)
        found = {
            who: exports.export_catalog(session, who, "catalog.yaml") for who in (ada, OPERATOR)
        }
    database.engine.dispose()
    for who, text in found.items():
        left_out = hides and who is ada
        assert [part for part in shown if (part in text) is left_out] == []
        assert "SECRET" not in text
        said = text.splitlines()[:2]
        assert "without values of headers, environment and global variables" in said[0]
        assert ("are omitted" in said[1], "Do not put secrets in them" in said[1]) == (
            left_out,
            not left_out,
        )


@pytest.mark.parametrize("name", ["vic", "VIC"])
def test_a_name_is_taken_as_it_is_written_before_one_of_another_case(
    settings: Settings, name: str
) -> None:
    database = open_database(settings)
    with database.session(writes=True) as session:
        for number, called in enumerate(sorted(("vic", "VIC"), key=lambda called: called != name)):
            make_server(session, called, server_id=f"id-{number}")
        document = json.dumps({"mcpServers": {name: {"url": "https://new.example/mcp"}}})
        found = imports.import_text(session, OPERATOR, document, update=True)
        rows = session.scalars(select(Server).where(Server.address == "https://new.example"))
        changed = [row.server_name for row in rows]
    database.engine.dispose()
    assert found.errors == ()
    assert changed == [name]
