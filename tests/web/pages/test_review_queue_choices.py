"""Words that are none of the choices of a decision decide nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Client
from tests.support.html import filled, parse

SignedIn = Callable[[str], Client]
As = Callable[[str | None], Client]


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
