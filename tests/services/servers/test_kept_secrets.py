"""Whoever reads a server, changes where it leads and writes it back has sent no new secrets."""

from collections.abc import Callable
from typing import Any

import pytest

from portal.services.secrets.server_definition import opened
from portal.store.models import Server
from tests.conftest import Client, Write
from tests.support.factories import make_server

As = Callable[[str | None], Client]
PATH = "/v1/mcp/server"
OLD = "https://old.example"
NEW = "https://new.example"
FULL: dict[str, Any] = {
    "url": f"{OLD}/mcp", "static_headers": {"X-Key": "SECRET-header", "X-Two": "SECRET-two"},
    "env_vars": [{"name": "KEY", "value": "SECRET-global", "scope": "global"}],
}  # fmt: skip
ALL = {"static_headers.X-Key", "static_headers.X-Two", "env_vars.KEY"}
NEW_HEADERS = {"X-Key": "SECRET-new", "X-Two": "SECRET-new"}
BACK = [
    ({"url": f"{NEW}/mcp"}, ALL),
    ({"url": "https://old.example:444/mcp"}, ALL),
    ({"url": f"{NEW}/mcp", "static_headers": NEW_HEADERS}, {"env_vars.KEY"}),
    (
        {"url": f"{NEW}/mcp", "static_headers": {"x-key": "SECRET-header", "X-Two": "SECRET-new"}},
        {"static_headers.X-Key", "env_vars.KEY"},
    ),
    (
        {
            "url": f"{NEW}/mcp",
            "static_headers": {**NEW_HEADERS, "X-Two": "SECRET-two"},
            "env_vars": [],
        },
        {"static_headers.X-Two"},
    ),
    ({"url": None, "spec_path": f"{NEW}/openapi.json", "clear_secrets": ["url"]}, ALL),
    (
        {
            "url": f"{NEW}/mcp",
            "auth_type": "bearer_token",
            "credentials": {"auth_value": "SECRET-auth"},
        },
        ALL,
    ),
    ({"url": f"{OLD}/other"}, set()),
    ({"description": "words"}, set()),
    (
        {
            "url": f"{NEW}/mcp",
            "static_headers": NEW_HEADERS,
            "env_vars": [{"name": "KEY", "value": "SECRET-other", "scope": "global"}],
        },
        set(),
    ),
]


@pytest.mark.parametrize(("change", "named"), BACK)
def test_a_value_that_equals_the_stored_one_is_not_new(
    client: As, write: Write, change: dict[str, Any], named: set[str]
) -> None:
    with write() as session:
        make_server(session, "w", **FULL)
    ada = client("ada")
    body = {**ada.get(f"{PATH}/id-w").get_json(), **change}
    answer = ada.put(PATH, body)
    if not named:
        assert answer.status_code == 202, answer.get_json()
        return
    detail = answer.get_json()["detail"]
    assert (answer.status_code, detail["error"]) == (409, "credentials_would_move")
    assert {s["secret"] for s in detail["secrets"]} == named
    assert "SECRET" not in answer.get_data(as_text=True)
    assert ada.put(PATH, {**body, "keep_credentials": True}).status_code == 202
    with write() as session:
        found = opened(session, session.get_one(Server, "id-w"))
        values = {f"static_headers.{k}": v for k, v in found.static_headers.items()}
        values |= {f"env_vars.{k}": v for k, v in found.globals.items()}
        headers = {
            f"static_headers.{name}": value for name, value in FULL["static_headers"].items()
        }
        kept = {**headers, "env_vars.KEY": "SECRET-global"}
        assert {name: values[name] for name in named} == {name: kept[name] for name in named}
