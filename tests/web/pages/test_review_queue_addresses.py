"""Whoever decides about a server sees where each of its addresses leads, whatever they may read of
them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from portal.app import create_app, open_database
from portal.settings import Settings
from tests.conftest import KEYS, Client
from tests.support.browsing import text_of
from tests.support.html import parse

URLS = {
    "url": "https://own.example",
    "authorization_url": "https://sign.example",
    "token_url": "https://token.example",
}
EXCHANGE = {"client_id": "SECRET-id", "token_exchange_endpoint": "https://exchange.example/SECRET"}
BODY: dict[str, Any] = {
    "server_name": "swap",
    "transport": "http",
    "auth_type": "oauth2_token_exchange",
    "credentials": EXCHANGE,
    **{name: f"{origin}/SECRET-path" for name, origin in URLS.items()},
}
ORIGINS = {**URLS, "token_exchange_endpoint": "https://exchange.example"}


@pytest.fixture
def asking(settings: Settings) -> Iterator[Callable[[str], Client]]:
    """Callers of a portal whose Admins read no value that is stored."""
    hiding = settings.model_copy(update={"write_only_globals": True})
    database = open_database(hiding)
    app = create_app(hiding, database=database)
    yield lambda name: Client(
        app.test_client(use_cookies=False), {"Authorization": f"Bearer {KEYS[name]}"}
    )
    database.engine.dispose()


def test_origins_are_named_where_the_addresses_are_hidden(
    asking: Callable[[str], Client], signed_in: Callable[[str], Client]
) -> None:
    server_id = asking("mel").post("/v1/mcp/server/register", BODY).get_json()["server_id"]
    for name in ("ada", "vera"):
        found = asking(name).get(f"/v1/mcp/server/{server_id}").get_json()
        assert found["origins"] == ORIGINS
        if name == "ada":
            assert found["token_url"] == ""
    queue = asking("ada").get("/v1/mcp/server/submissions").get_json()["items"]
    assert {a["field"]: a["origin"] for a in queue[0]["addresses"]} == ORIGINS
    assert {a["field"] for a in queue[0]["addresses"] if a["is_own_host"]} == {"url"}
    own = (
        asking("mel")
        .put(f"/v1/mcp/server/register/{server_id}", {"description": "words"})
        .get_json()
    )
    assert own["origins"] is None
    ada = signed_in("ada")
    pages = {
        "review": f"/admin/submissions/{server_id}",
        "overview": f"/servers/{server_id}",
        "configuration": f"/servers/{server_id}/configuration",
        "queue": "/admin/submissions?status=waiting",
        "decision": f"/admin/submissions/decide?verdict=approve&chosen={server_id}",
    }
    for name, path in pages.items():
        said = text_of(parse(ada.get(path)))
        assert [origin for origin in ORIGINS.values() if origin not in said] == [], name
        assert "different host" in said, name
        assert "SECRET" not in said, name


def test_a_change_is_shown_with_the_addresses_that_it_leads_to(
    asking: Callable[[str], Client], signed_in: Callable[[str], Client]
) -> None:
    server_id = (
        asking("mel")
        .post("/v1/mcp/server/register", {**BODY, "credentials": {}})
        .get_json()["server_id"]
    )
    assert asking("ada").put(f"/v1/mcp/server/{server_id}/approve").status_code == 200
    change = {
        "authorization_url": "https://new.example/SECRET",
        "token_url": "https://new.example/SECRET",
    }
    assert asking("mel").put(f"/v1/mcp/server/register/{server_id}", change).status_code == 200
    queue = asking("ada").get("/v1/mcp/server/submissions").get_json()["items"]
    assert {a["origin"] for a in queue[0]["addresses"]} == {
        "https://own.example",
        "https://new.example",
    }
    assert queue[0]["origins"]["token_url"] == "https://token.example"
    assert "https://new.example" in text_of(
        parse(signed_in("ada").get(f"/admin/submissions/{server_id}"))
    )
