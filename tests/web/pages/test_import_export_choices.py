"""Words that are none of the choices of an import decide nothing."""

from collections.abc import Callable

import pytest

from tests.conftest import Client, Write
from tests.support.factories import make_server
from tests.support.html import filled, parse

SignedIn = Callable[[str], Client]
As = Callable[[str | None], Client]
DOCUMENT = """{"mcpServers": {"one": {"type": "http", "url": "https://one.example/mcp",
               "headers": {"Authorization": "Bearer SECRET-token"}},
               "old": {"type": "http", "url": "https://new.example/mcp"}}}"""


@pytest.mark.parametrize(
    "sent", [{"share-0-0": "everybody"}, {"keep-1": "y"}, {"keep-1": "true"}, {"keep-0": "KEEP"}]
)
def test_an_import(signed_in: SignedIn, client: As, write: Write, sent: dict[str, str]) -> None:
    with write() as session:
        make_server(session, "old", static_headers={"X-Key": "SECRET-old"})
    ada = signed_in("ada")
    form = parse(ada.get("/servers/import")).find("form", action="/servers/import")
    assert ada.post("/servers/import", data=filled(form, text=DOCUMENT)).status_code == 303
    form = parse(ada.get("/servers/import/preview")).find("form", action="/servers/import/preview")
    page = parse(
        ada.post("/servers/import/preview", data={**filled(form), "take": ["0", "1"], **sent}), 422
    )
    assert "is not a valid choice" in page.main.text
    assert page.find("input", attrs={"name": "take", "value": "1"}).has_attr("checked"), (
        "what was chosen stays"
    )
    assert [s["server_name"] for s in client("ada").get("/v1/mcp/server").get_json()] == [
        "notes",
        "old",
    ]
