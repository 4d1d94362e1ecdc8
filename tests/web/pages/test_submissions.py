"""A Member's own submissions in the browser (behaviours SUB, REQ)."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Client
from tests.support.browsing import CHANGED, Browser, text_of
from tests.support.deciding import decided

As = Callable[[str | None], Client]
In = Callable[[str], Browser]
QUEUE = "/admin/submissions"
MINE = "/submissions/mine"
NEW = "/submissions/new"
DECIDE = f"{QUEUE}/decide"
ROOT = "/v1/mcp/server"


def test_a_member_submits_by_form_and_sees_how_it_stands(browser: In, client: As) -> None:
    mel = browser("mel")
    form = mel.form(NEW, NEW)
    assert not form.select("[value=stdio], [name=allow_all_keys], [name=access_groups]")
    sent = mel.send(
        NEW, NEW, server_name="weather", url="https://weather.example/mcp", allow_all_keys="y"
    )
    assert sent.status_code == CHANGED
    assert "Waiting for review" in text_of(mel.open(MINE).select_one("main"))
    item = client("ada").get(f"{ROOT}/submissions").get_json()["items"][0]
    assert (item["submitted_by"], item["allow_all_keys"]) == ("mel", False)


def test_a_command_cannot_be_submitted_by_form(browser: In, client: As) -> None:
    answer = browser("mel").send(
        NEW, NEW, server_name="cmd", transport="stdio", command="npx", args="x"
    )
    assert answer.status_code == 422
    assert client("ada").get(f"{ROOT}/submissions").get_json()["total"] == 0


def test_what_is_missing_is_told_on_its_field_and_in_the_checklist(browser: In, client: As) -> None:
    client("ada").patch(
        "/v1/settings", {"mcp_required_fields": ["description", "source_url", "auth_type"]}
    )
    mel = browser("mel")
    assert text_of(mel.open(NEW).select_one("#required-checks")).count("Required") == 3
    answer = mel.send(
        NEW, NEW, server_name="weather", url="https://weather.example/mcp", description="Rain"
    )
    assert answer.status_code == 422
    text = answer.get_data(as_text=True)
    assert 'href="#source_url"' in text
    typed = mel.post("/submissions/checks", transport="http", auth_type="token", description="Rain")
    assert typed.get_data(as_text=True).count("Passed") == 2


def test_notes_reach_the_submitter_who_mends_and_sends_again(
    browser: In, client: As, submit: Any
) -> None:
    server_id = submit()
    decided(client, server_id, "reject", "Say what it does")
    mel = browser("mel")
    edit = f"/submissions/{server_id}/edit"
    assert "Say what it does" in text_of(mel.open(MINE).select_one("main"))
    assert "Say what it does" in text_of(mel.open(edit).select_one("main"))
    assert mel.send(edit, edit, description="Rain and wind").status_code == CHANGED
    item = client("ada").get(f"{ROOT}/submissions").get_json()["items"][0]
    assert (item["approval_status"], item["description"]) == ("pending_review", "Rain and wind")
    assert item["url"] == "https://weather.example/SECRET/mcp"
    review = text_of(browser("ada").open(f"{QUEUE}/{server_id}").select_one("main"))
    assert "Changes since the last review" in review
    assert "Rain and wind" in review


def test_a_change_of_a_live_server_is_shown_side_by_side(
    browser: In, client: As, submit: Any
) -> None:
    server_id = submit()
    decided(client, server_id, "approve")
    mel = browser("mel")
    edit = f"/submissions/{server_id}/edit"
    moved = {"url": "https://elsewhere.example/mcp", "url__mode": "replace"}
    assert mel.send(edit, edit, **moved).status_code == CHANGED
    ada = browser("ada")
    table = text_of(ada.open(f"{QUEUE}/{server_id}").select_one("table"))
    assert "https://weather.example" in table
    assert "https://elsewhere.example" in table
    sent = ada.send(f"{DECIDE}?verdict=decline&chosen={server_id}", DECIDE, notes="Stay")
    assert sent.status_code == CHANGED
    assert (
        client("ada").get(f"{ROOT}/{server_id}").get_json()["url"]
        == "https://weather.example/SECRET/mcp"
    )


@pytest.mark.parametrize("name", ["otto", "vic", "vera", "ada"])
def test_a_submission_is_edited_by_nobody_else(browser: In, submit: Any, name: str) -> None:
    edit = f"/submissions/{submit()}/edit"
    person = browser(name)
    assert person.client.get(edit).status_code == 404
    assert person.post(edit, save="yes", server_name="weather").status_code == 404
