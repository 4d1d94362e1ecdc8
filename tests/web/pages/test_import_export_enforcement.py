"""The enforcement pack: what clients are told to let in, where it goes, and that it holds nothing
else."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from portal.store.models import AuditEvent, Server
from tests.conftest import NOTES, Client, Write
from tests.support.browsing import Browser, text_of
from tests.support.factories import make_server

As = Callable[[str], Browser]
PATH = "/servers/export/enforcement"
BASE = "http://127.0.0.1:8000"
FILES = [
    "README.txt",
    "claude-code/managed-settings.json",
    "claude-code/managed-mcp.json",
    "vscode/policy.json",
    "vscode/policy.reg",
    "vscode/settings.json",
]


def download(browser: Browser) -> dict[str, str]:
    answer = browser.send(PATH)
    assert answer.status_code == 200
    assert answer.mimetype == "application/zip"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="mcp-enforcement.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.get_data())) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def loaded(files: dict[str, str], name: str) -> Any:
    return json.loads(files[name])


def fill(write: Write) -> None:
    with write() as session:
        make_server(
            session,
            "secretive",
            url="https://up.example/SECRET-path",
            auth_type="bearer_token",
            credentials={"auth_value": "SECRET-bearer"},
            static_headers={"X-Key": "SECRET-key"},
        )
        make_server(session, "with.dot", url="https://up.example/dot")
        for name in ("bad_one", "bad.dot", "waiting"):
            make_server(session, name, url=f"https://up.example/{name}")
        session.execute(
            update(Server).where(Server.server_name.like("bad%")).values(approval_status="rejected")
        )
        session.execute(
            update(Server)
            .where(Server.server_name == "waiting")
            .values(approval_status="pending_review")
        )


def test_claude_code_lets_in_the_active_servers_by_their_address_at_the_gateway(
    browser: As, write: Write
) -> None:
    fill(write)
    files = download(browser("ada"))
    assert list(files) == FILES
    policy = loaded(files, "claude-code/managed-settings.json")
    assert policy == {
        "allowManagedMcpServersOnly": True,
        "allowedMcpServers": [
            {"serverUrl": f"{BASE}/{name}/mcp"} for name in ("notes", "secretive", "with.dot")
        ],
        "deniedMcpServers": [{"serverName": "bad_one"}],
    }
    fixed = loaded(files, "claude-code/managed-mcp.json")["mcpServers"]
    assert list(fixed) == ["notes", "secretive", "with-dot"]
    assert fixed["with-dot"]["url"] == f"{BASE}/with.dot/mcp"
    assert fixed["notes"]["headers"] == {"Authorization": "Bearer ${PORTAL_KEY}"}


def test_vs_code_is_led_to_our_registry(browser: As) -> None:
    files = download(browser("ada"))
    assert loaded(files, "vscode/policy.json") == {
        "ChatMCP": "registry",
        "McpGalleryServiceUrl": BASE,
    }
    assert loaded(files, "vscode/settings.json") == {
        "chat.mcp.access": "registry",
        "chat.mcp.gallery.serviceUrl": BASE,
    }
    assert f'"McpGalleryServiceUrl"="{BASE}"\r\n' in files["vscode/policy.reg"]


def test_neither_secrets_nor_upstream_addresses_are_in_it(browser: As, write: Write) -> None:
    fill(write)
    ada = browser("ada")
    page = ada.open(PATH)
    for text in (*download(ada).values(), str(page)):
        assert "SECRET" not in text
        assert "up.example" not in text
        assert "127.0.0.1:9" not in text


def test_each_file_can_be_read_on_the_page_with_where_it_goes(browser: As) -> None:
    ada = browser("ada")
    page = ada.open(PATH)
    files = download(ada)
    shown = [block.get_text() for block in page.select("main pre")]
    assert [text.replace("\r", "") for text in shown] == [
        files[name].replace("\r", "") for name in FILES[1:]
    ]
    for place in (
        "/etc/claude-code/managed-settings.json",
        "/Library/Application Support/ClaudeCode/managed-mcp.json",
        r"C:\Program Files\ClaudeCode\managed-settings.json",
        "/etc/vscode/policy.json",
    ):
        assert place in text_of(page)
        assert place in files["README.txt"]


def test_the_page_says_when_the_registry_would_block_everything(
    browser: As, client: Callable[[str], Client], write: Write
) -> None:
    assert "The registry is disabled" in text_of(browser("ada").open(PATH))
    client("ada").patch("/v1/settings", {"enable_mcp_registry": True})
    assert "The registry is empty" in text_of(browser("ada").open(PATH))
    client("ada").post("/v1/mcp/make_public", {"mcp_server_ids": [NOTES]})
    page = text_of(browser("ada").open(PATH))
    assert "The registry is" not in page
    assert "1 server in the registry" in page


def test_an_empty_catalogue_lets_nothing_in(browser: As, client: Callable[[str], Client]) -> None:
    client("ada").delete(f"/v1/mcp/server/{NOTES}")
    ada = browser("ada")
    assert loaded(download(ada), "claude-code/managed-settings.json")["allowedMcpServers"] == []
    assert "Allows no servers" in text_of(ada.open(PATH))


def test_a_download_is_on_the_record_and_a_look_is_not(browser: As, write: Write) -> None:
    ada = browser("ada")
    ada.open(PATH)
    query = select(AuditEvent.details).where(AuditEvent.action == "catalog exported")
    with write() as session:
        assert session.scalars(query).all() == []
    download(ada)
    with write() as session:
        assert session.scalars(query).all() == [{"format": "enforcement pack"}]


def test_equal_catalogues_make_equal_packs(browser: As) -> None:
    ada = browser("ada")
    assert ada.send(PATH).get_data() == ada.send(PATH).get_data()


@pytest.mark.parametrize("name", ["vera", "mel", "vic"])
def test_only_an_admin_gets_it(browser: As, name: str) -> None:
    person = browser(name)
    person.open(PATH, 404)
    assert person.post(PATH).status_code == 404
    assert browser("ada").open("/servers/export").find("a", href=PATH)
