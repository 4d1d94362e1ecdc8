"""Words that are none of the choices of a page decide nothing."""

from collections.abc import Callable
from typing import Any

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


@pytest.mark.parametrize("sent", [{"keep-{id}": "yes"}, {"version-{id}": "newest"}])
@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_a_decision(signed_in: SignedIn, client: As, verdict: str, sent: dict[str, str]) -> None:
    body: dict[str, Any] = {
        "server_name": "mine",
        "url": "https://mine.example/mcp",
        "transport": "http",
    }
    made = client("mel").post("/v1/mcp/server/register", body).get_json()["server_id"]
    ada = signed_in("ada")
    page = parse(ada.get(f"/admin/submissions/decide?verdict={verdict}&chosen={made}"))
    form = page.find("form", action="/admin/submissions/decide")
    said = {name.format(id=made): word for name, word in sent.items()}
    answer = ada.post("/admin/submissions/decide", data={**filled(form, notes="typed"), **said})
    page = parse(answer, 422)
    assert "Not a valid choice" in page.main.text
    assert (
        verdict == "approve"
        or page.find("textarea", attrs={"name": "notes"}).text.strip() == "typed"
    )
    assert len(client("ada").get("/v1/mcp/server/submissions").get_json()["items"]) == 1


def test_ones_own_values(signed_in: SignedIn, client: As, write: Write) -> None:
    with write() as session:
        make_server(
            session,
            "v",
            allow_all_keys=True,
            static_headers={"X-Own": "${OWN}"},
            env_vars=[{"name": "OWN", "scope": "user"}],
        )
    mel = signed_in("mel")
    form = parse(mel.get("/credentials/id-v")).find("form", action="/credentials/id-v")
    data = {**filled(form), "value-OWN": "SECRET-x", "value-OWN__mode": "Keep"}
    assert mel.post("/credentials/id-v", data=data).status_code == 422
    assert client("mel").get("/v1/mcp/server/id-v/user-env-vars").get_json()["missing_count"] == 1
