"""No server is called what addresses of the gateway begin with, whichever way the name comes."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update
from werkzeug.exceptions import MethodNotAllowed, NotFound

from portal.domain.principals import OPERATOR
from portal.domain.servers import PORTAL_NAMES, RESERVED_NAMES
from portal.services.operations.bootstrap import apply_config
from portal.store.models import Server
from tests.conftest import NOTES, Client, Write

As = Callable[[str | None], Client]
ROOT = "/v1/mcp/server"
URL = "http://127.0.0.1:9/mcp"


@pytest.mark.parametrize("name", ["mcp", "MCP", "toolset", "v1", "OAuth", "static"])
@pytest.mark.parametrize(
    ("who", "method", "path", "fields"),
    [
        ("ada", "POST", ROOT, {"server_name": "?"}),
        ("ada", "POST", ROOT, {"server_name": "fine", "alias": "?"}),
        ("ada", "POST", ROOT, {"server_id": "?", "server_name": "fine"}),
        ("ada", "PUT", ROOT, {"server_id": NOTES, "server_name": "?"}),
        ("ada", "PUT", ROOT, {"server_id": NOTES, "alias": "?"}),
        ("mel", "POST", f"{ROOT}/register", {"server_name": "?"}),
        ("ada", "POST", f"{ROOT}/oauth/session", {"server_id": "?", "auth_type": "oauth2"}),
    ],
)
def test_a_reserved_name_is_refused_with_the_reason(
    client: As, write: Write, who: str, method: str, path: str, fields: dict[str, Any], name: str
) -> None:
    body = {
        "transport": "http",
        "url": URL,
        **{k: name if v == "?" else v for k, v in fields.items()},
    }
    answer = client(who).ask(method, path, json=body)
    assert answer.status_code == 400, answer.get_json()
    assert f"The name {name} is reserved" in answer.get_json()["detail"]["message"]
    with write() as session:
        assert {row.server_name for row in session.scalars(select(Server))} == {"notes"}


def test_imported_and_configured_ones_are_refused_too(client: As, write: Write) -> None:
    found = client("ada").post(f"{ROOT}/import", {"mcpServers": {"mcp": {"url": URL}}}).get_json()
    assert found["imported"] == []
    assert "name mcp is reserved" in str(found["errors"])
    with write() as session:
        [refused] = apply_config(session, OPERATOR, {"mcp_servers": {"toolset": {"url": URL}}})
    assert "name toolset is reserved" in refused


@pytest.mark.parametrize("name", ["mcp", "v1"])
def test_a_server_that_has_such_a_name_from_before_keeps_it(
    client: As, write: Write, name: str
) -> None:
    with write() as session:
        session.execute(update(Server).values(server_name=name, alias=name))
    answer = client("ada").put(
        ROOT, {"server_id": NOTES, "server_name": name, "description": "ours"}
    )
    assert answer.status_code in (200, 202), answer.get_json()
    assert (
        client("ada").put(ROOT, {"server_id": NOTES, "server_name": "toolset"}).status_code == 400
    )


def first_parts(app: Flask) -> dict[str, set[str]]:
    """The first parts of the portal's own paths, and what begins with them."""
    found = defaultdict(set)
    for rule in app.url_map.iter_rules():
        first, *more = rule.rule.strip("/").split("/")
        if more and not first.startswith("<"):
            found[first].add(rule.rule)
    return found


def test_the_reserved_names_are_those_of_the_routes(app: Flask) -> None:
    assert set(first_parts(app)) - RESERVED_NAMES - {"docs"} == PORTAL_NAMES


@pytest.mark.parametrize("end", ["mcp", "authorize", "token", "register"])
def test_a_server_called_docs_shares_no_address_with_the_portals_docs(app: Flask, end: str) -> None:
    adapter = app.url_map.bind("127.0.0.1")
    try:
        rule, arguments = adapter.match(f"/docs/{end}", method="POST", return_rule=True)
    except (MethodNotAllowed, NotFound):
        return
    assert arguments == {"prefix": "docs"}, rule
