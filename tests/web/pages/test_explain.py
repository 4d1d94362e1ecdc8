"""Explain access in the browser and over the API: verdicts, the deciding one, and the missing step
as one button."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from portal.domain.principals import OPERATOR
from portal.services.access import keys, users
from portal.services.access.keys import KeyDraft
from portal.services.servers import crud
from portal.services.servers.grants import ObjectPermission
from portal.store.models import Server
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of
from tests.support.factories import make_server, make_team, make_user

Browsing = Callable[[str], Browser]
As = Callable[[str | None], Client]


def explained(client: As, **asked: str) -> Any:
    answer = client("ada").get("/v1/access/explain", query_string=asked)
    assert answer.status_code == 200, answer.get_json()
    return answer.get_json()


def test_the_api_says_each_rule_and_which_decides(client: As) -> None:
    found = explained(client, user_id="mel", server_id="notes")
    assert set(found) == {"allowed", "decided_by", "rules", "next_step"}
    assert (found["allowed"], found["decided_by"], found["next_step"]) == (True, "grants", None)
    verdicts = {rule["rule"]: rule["verdict"] for rule in found["rules"]}
    assert verdicts == {
        "active": "passes",
        "address": "passes",
        "open_to_all": "not_met",
        "admin_view": "not_met",
        "grants": "grants",
    }
    assert any("Team crew is granted the server" in rule["why"] for rule in found["rules"])


@pytest.mark.parametrize(
    ("asked", "decided_by", "action"),
    [
        ({"user_id": "otto", "server_id": NOTES}, "grants", "open_user"),
        ({"user_id": "mel", "server_id": "hidden"}, "grants", "open_team"),
        (
            {"user_id": "mel", "server_id": "inside", "address": "203.0.113.7"},
            "address",
            "change_reach",
        ),
        ({"user_id": "ada", "server_id": "waiting"}, "active", "open_server"),
        ({"user_id": "mel", "server_id": NOTES, "tool": "delete"}, "allowed_tools", "edit_server"),
        ({"user_id": "gone", "server_id": NOTES}, "identity", "open_user"),
        ({"key_id": "spent", "server_id": NOTES}, "identity", "issue_key"),
        ({"key_id": "narrow", "server_id": NOTES}, "grants", "issue_key"),
        (
            {"key_id": "elsewhere", "server_id": NOTES, "tool": "find"},
            "allowed_routes",
            "issue_key",
        ),
        ({"key_id": "few", "server_id": NOTES, "tool": "find"}, "tool_permissions", "issue_key"),
    ],
)
def test_what_is_missing_is_one_step(
    client: As, write: Write, asked: dict[str, str], decided_by: str, action: str
) -> None:
    with write() as session:
        for name, fields in (
            ("hidden", {}),
            ("inside", {"available_on_public_internet": False}),
            ("waiting", {}),
        ):
            make_server(session, name, **fields)
        session.get_one(Server, "id-waiting").approval_status = "pending_review"
        crud.update_server(session, OPERATOR, NOTES, {"allowed_tools": ["find"]})
        make_user(session, "gone")
        users.change_user(session, OPERATOR, "gone", {"is_active": False})
        made = {
            "narrow": _key(session, mcp_servers=("hidden",)),
            "elsewhere": _key(session, ("/v1/me",)),
            "spent": _key(session),
            "few": _key(session, mcp_tool_permissions={"notes": ("other",)}),
        }
        keys.revoke_key(session, OPERATOR, made["spent"])
    if "key_id" in asked:
        asked = {**asked, "key_id": made[asked["key_id"]]}
    found = explained(client, **asked)
    assert (found["allowed"], found["decided_by"]) == (False, decided_by)
    assert found["next_step"]["action"] == action


def _key(session: Session, routes: tuple[str, ...] = (), **permission: Any) -> str:
    """A key of Mel's for the crew; answers its id."""
    draft = KeyDraft(
        key_alias="spare",
        user_id="mel",
        team_id=CREW,
        allowed_routes=routes,
        object_permission=ObjectPermission(**permission) if permission else None,
    )
    return keys.issue_key(session, OPERATOR, draft).view.key_id


@pytest.mark.parametrize(
    ("asked", "status", "field"),
    [
        ({"server_id": NOTES}, 422, "user_id"),
        ({"server_id": NOTES, "user_id": "mel", "key_id": "x"}, 422, "user_id"),
        ({"user_id": "mel"}, 422, "server_id"),
        ({"user_id": "mel", "server_id": NOTES, "address": "here"}, 422, "address"),
        ({"user_id": "nobody", "server_id": NOTES}, 404, "user_id"),
        ({"key_id": "nothing", "server_id": NOTES}, 404, "key_id"),
        ({"user_id": "mel", "server_id": "nowhere"}, 404, "server_id"),
    ],
)
def test_a_question_that_makes_no_sense_names_its_field(
    client: As, browser: Browsing, asked: dict[str, str], status: int, field: str
) -> None:
    answer = client("ada").get("/v1/access/explain", query_string=asked)
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (status, field)
    page = browser("ada").open("/admin/access", 422, query_string={**asked, "ask": "yes"})
    assert page.select_one("[data-error-summary]")


def test_the_page_finds_asks_and_leads_to_the_missing_step(browser: Browsing, write: Write) -> None:
    with write() as session:
        make_server(session, "hidden")
        make_team(session, "alpha", members=("otto",))
    ada = browser("ada")
    found = look_at(ada.post("/admin/access", find_server="hidd", user_id="otto"))
    assert [box["value"] for box in found.select("input[name=server_id]")] == ["id-hidden"]
    assert found.select_one("input[name=user_id][value=otto][checked]")
    answer = ada.post("/admin/access", user_id="otto", server_id="id-hidden", save="yes")
    assert answer.status_code == CHANGED
    page = ada.open(answer.location)
    assert "No: Otto cannot use hidden" in text_of(page)
    deciding = page.select("tr[aria-current]")
    assert [text_of(row.select_one("th")) for row in deciding] == ["Grants"]
    step = page.find(
        "a", string=lambda text: text and "Grant hidden to team alpha" in text
    ) or page.select_one("section .actions a.primary")
    form = ada.open(step["href"])
    assert form.select_one("input[name=servers][value=id-hidden]"), (
        "the form shows the server to tick"
    )


def test_a_read_only_admin_is_told_and_led_to_nothing_they_may_not_open(
    browser: Browsing, write: Write
) -> None:
    with write() as session:
        make_server(session, "inside", available_on_public_internet=False)
    asked = "user_id=mel&server_id=id-inside&address=203.0.113.7"
    page = browser("vera").open(f"/admin/access?{asked}")
    assert "ask an Admin" in text_of(page)
    assert not page.select_one("section .actions a")
    assert (
        browser("ada")
        .open(f"/admin/access?{asked}")
        .select_one("section .actions a")["href"]
        .endswith("/edit")
    )
    browser("mel").open(f"/admin/access?{asked}", 404)


def test_markup_in_names_stays_text(browser: Browsing, write: Write) -> None:
    with write() as session:
        make_team(session, "<b>bold</b>", members=("otto",), mcp_servers=(NOTES,))
    page = browser("ada").open(f"/admin/access?user_id=otto&server_id={NOTES}&tool=<i>x</i>")
    assert not page.select("main b, main i")
    assert "<b>bold</b>" in text_of(page)
