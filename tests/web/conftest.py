"""What the tests of pages share."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.services.access import access_groups
from portal.services.secrets.server_definition import opened
from portal.store.database import Database
from portal.store.models import AuditEvent, Server
from portal.upstream.sandbox import Sandbox
from tests.conftest import KEYS, NOTES, Client, Portal, Write
from tests.support.browsing import Browser
from tests.support.factories import PASSWORD
from tests.support.html import parse
from tests.support.peers import bare_environment, free_port, need_sandbox, start_process


@pytest.fixture
def browser(signed_in: Callable[[str], Client]) -> Callable[[str], Browser]:
    """`browser("ada")` is Ada's, in which she has signed in."""
    return lambda name: Browser(signed_in(name))


@pytest.fixture
def group_id(write: Write) -> str:
    """An access group that holds the server `notes`."""
    with write() as session:
        return access_groups.create_group(
            session, OPERATOR, "writing", "Texts", [NOTES]
        ).access_group_id


@pytest.fixture
def changes(database: Database) -> Callable[[], list[str]]:
    """`changes()` are the fields that the last recorded change of a server names."""

    def of_the_last() -> list[str]:
        query = (
            select(AuditEvent.details)
            .where(AuditEvent.action == "server changed")
            .order_by(AuditEvent.at.desc())
        )
        with database.session() as session:
            found: list[str] = session.scalars(query.limit(1)).one()["fields"]
            return found

    return of_the_last


@pytest.fixture
def held(database: Database) -> Callable[[], dict[str, object]]:
    """`held()` are the credentials stored for the server `id-s`, opened."""

    def opened_now() -> dict[str, object]:
        with database.session() as session:
            return dict(
                opened(session, session.get_one(Server, "id-s"), credentials=True).credentials
            )

    return opened_now


@pytest.fixture
def stdio_portal(
    portal_with: Callable[..., Portal],
) -> tuple[Client, Callable[[str | None], Client]]:
    """Ada signed in, and `client`, at a portal in which stdio is on."""
    need_sandbox(Sandbox())
    app = portal_with(enable_stdio=True).app
    browser = app.test_client()
    token = parse(browser.get("/login")).select_one("input[name=csrf_token]")
    assert token
    browser.post(
        "/login",
        data={"email": "ada@example.com", "password": PASSWORD, "csrf_token": token["value"]},
    )
    return (
        Client(browser, {}),
        lambda name: Client(app.test_client(), {"X-API-Key": KEYS[name or "ada"]}),
    )


@pytest.fixture(scope="session")
def toolless() -> Iterator[str]:
    """A real MCP server that offers no tool: its URL."""
    port = free_port()
    script = (
        "import uvicorn; from mcp.server.mcpserver import MCPServer;"
        f" uvicorn.run(MCPServer('bare').streamable_http_app(), host='127.0.0.1', port={port},"
        " log_level='warning')"
    )
    with start_process([sys.executable, "-c", script], bare_environment(), port):
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture
def submit(client: Callable[[str | None], Client]) -> Callable[..., str]:
    """`submit("weather")`: Mel proposes a server; its id."""

    def submitting(name: str = "weather", **fields: Any) -> str:
        body = {
            "server_name": name,
            "transport": "http",
            "url": f"https://{name}.example/SECRET/mcp",
            **fields,
        }
        answer = client("mel").post("/v1/mcp/server/register", body)
        assert answer.status_code == 201, answer.get_json()
        return str(answer.get_json()["server_id"])

    return submitting
