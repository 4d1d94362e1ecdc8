"""The review queue in the browser (behaviours UI-56 to UI-61)."""

from collections.abc import Callable
from typing import Any

import pytest

from portal.store.database import Database
from tests.conftest import Client, Write
from tests.support.browsing import CHANGED, Browser, text_of
from tests.support.counting import counted
from tests.support.deciding import decided
from tests.support.factories import make_server

As = Callable[[str | None], Client]
In = Callable[[str], Browser]
QUEUE = "/admin/submissions"
MINE = "/submissions/mine"
DECIDE = f"{QUEUE}/decide"
ROOT = "/v1/mcp/server"


def test_ui_58_and_59_counters_search_filter_and_cards(
    browser: In, client: As, submit: Any
) -> None:
    submit("first", description="Says things")
    decided(client, submit("second"), "approve")
    decided(client, submit("third"), "reject", "Twice the same")
    ada = browser("ada")
    counts = text_of(ada.open(QUEUE).select_one("#review-counts"))
    assert counts == "Total submitted 3 Pending review 1 Active 1 Rejected 1"
    for query, names in (
        ("", ["third", "second", "first"]),
        ("?q=FIRST.exam", ["first"]),
        ("?status=waiting", ["first"]),
        ("?status=rejected", ["third"]),
        ("?q=second&status=active", ["second"]),
    ):
        page = ada.open(QUEUE + query)
        assert [text_of(link) for link in page.select("li[data-item] h2 a")] == names, query
    assert "No submissions match your filters." in text_of(
        ada.open(f"{QUEUE}?q=nothing").select_one("main")
    )
    assert "Twice the same" in text_of(ada.open(QUEUE).select_one("main"))


def test_ui_59_checks_are_counted(browser: In, client: As, submit: Any) -> None:
    submit("good", description="Says things")
    submit("bad")
    client("ada").patch("/v1/settings", {"mcp_required_fields": ["description"]})
    bad, good = (text_of(card) for card in browser("ada").open(QUEUE).select("li[data-item]"))
    assert "1 check failed" in bad
    assert "Missing" in bad
    assert "All checks passed" in good


def test_ui_60_the_buttons_are_those_of_the_state(browser: In, client: As, submit: Any) -> None:
    submit("first")
    decided(client, submit("second"), "approve")
    decided(client, submit("third"), "reject")
    cards = browser("ada").open(QUEUE).select("li[data-item]")
    assert [[text_of(b) for b in card.select("a.button")] for card in cards] == [
        ["Re-approve third"],
        ["Reject second"],
        ["Approve first", "Reject first"],
    ]
    assert not browser("vera").open(QUEUE).select("li a.button, [name=chosen]")


def test_ui_61_both_verdicts_ask_first_and_a_live_server_is_warned_about(
    browser: In, client: As, submit: Any
) -> None:
    server_id = submit()
    ada = browser("ada")
    approving = f"{DECIDE}?verdict=approve&chosen={server_id}"
    assert "Approve weather?" in text_of(ada.open(approving).select_one("h1"))
    assert ada.send(approving, DECIDE).status_code == CHANGED
    rejecting = f"{DECIDE}?verdict=reject&chosen={server_id}"
    assert "removes it immediately" in text_of(ada.open(rejecting).select_one("main"))
    assert ada.send(rejecting, DECIDE, notes="Broken").status_code == CHANGED
    assert client("mel").get(f"{ROOT}/{server_id}").status_code == 403
    assert client("mel").get(f"{ROOT}/submissions/mine").get_json()[0]["review_notes"] == "Broken"


def test_several_are_decided_at_once_and_the_second_admin_is_told(
    browser: In, client: As, submit: Any
) -> None:
    first = submit("first")
    second = submit("second")
    ada = browser("ada")
    path = f"{DECIDE}?verdict=approve&chosen={first}&chosen={second}"
    page = ada.form(path, DECIDE)
    assert page is not None
    versions = {f"version-{server_id}": "1" for server_id in (first, second)}
    decided(client, second, "approve")
    answer = ada.post(DECIDE, verdict="approve", chosen=[first, second], **versions)
    assert answer.status_code == CHANGED
    told = text_of(ada.open(QUEUE).select_one("#toasts"))
    assert "first: approved." in told
    assert "second is already active." in told


def test_a_submission_that_changed_since_the_look_is_not_approved(
    browser: In, client: As, submit: Any
) -> None:
    server_id = submit()
    ada = browser("ada")
    form = ada.form(f"{DECIDE}?verdict=approve&chosen={server_id}", DECIDE)
    seen = form.select_one(f"[name=version-{server_id}]")
    assert seen is not None
    client("mel").put(f"{ROOT}/register/{server_id}", {"description": "Other"})
    ada.post(DECIDE, verdict="approve", chosen=server_id, **{f"version-{server_id}": seen["value"]})
    assert "was changed while you were reviewing it" in text_of(
        ada.open(QUEUE).select_one("#toasts")
    )
    assert client("ada").get(f"{ROOT}/submissions").get_json()["pending_review"] == 1


def test_duplicates_are_pointed_out(browser: In, submit: Any, write: Write) -> None:
    with write() as session:
        make_server(session, "old", url="https://weather.example/SECRET/mcp/")
        make_server(session, "MCP_Weather", url="https://other.example/mcp")
    submit()
    card = text_of(browser("ada").open(QUEUE).select_one("li[data-item]"))
    assert "old (the same address)" in card
    assert "MCP_Weather (a similar name)" in card


def test_the_probe_lists_tools_and_sends_nothing_that_is_stored(
    browser: In, submit: Any, echo_server: str
) -> None:
    server_id = submit(
        url=echo_server,
        static_headers={"X-Corp-Token": "SECRET-header"},
        auth_type="bearer_token",
        credentials={"auth_value": "SECRET-key"},
    )
    path = f"{QUEUE}/{server_id}"
    page = browser("ada").send(path, f"{path}/probe").get_data(as_text=True)
    assert "Connection successful" in page
    assert "show_headers" in page


@pytest.mark.parametrize("name", ["mel", "vic", "otto"])
def test_the_queue_is_not_there_for_others(browser: In, submit: Any, name: str) -> None:
    server_id = submit()
    person = browser(name)
    for path in (QUEUE, f"{QUEUE}/{server_id}", f"{DECIDE}?verdict=approve&chosen={server_id}"):
        assert person.client.get(path).status_code == 404
    assert person.post(DECIDE, verdict="approve", chosen=server_id).status_code == 404
    assert person.post(f"{QUEUE}/{server_id}/probe").status_code == 404
    assert "Review queue" not in person.client.get("/servers").get_data(as_text=True)


def test_the_menu_counts_what_waits(browser: In, submit: Any) -> None:
    submit()
    assert (
        text_of(browser("vera").open("/servers").select_one("#review-count"))
        == "1 waiting for review"
    )
    assert browser("mel").open("/servers").select_one(f"nav a[href='{MINE}']")


def test_the_queue_page_costs_the_same_however_many_wait(
    browser: In, submit: Any, database: Database
) -> None:
    ada = browser("ada")
    costs = []
    for number in range(6):
        submit(f"n{number}")
        with counted(database) as statements:
            ada.open(QUEUE)
        costs.append(len(statements))
    assert costs[1] == costs[-1]


def test_the_question_of_an_approval_names_the_host_that_gets_secrets(
    browser: In, client: As, submit: Any
) -> None:
    """It is the proposed one, not the one that is live."""
    server_id = submit(static_headers={"X-Key": "SECRET"})
    decided(client, server_id, "approve")
    change = {"url": "https://other.example/mcp", "static_headers": {"X-Key": "SECRET-new"}}
    assert client("mel").put(f"{ROOT}/register/{server_id}", change).status_code == 200
    asked = text_of(
        browser("ada").open(f"{DECIDE}?verdict=approve&chosen={server_id}").select_one("main form")
    )
    assert "would be sent to https://other.example" in asked
