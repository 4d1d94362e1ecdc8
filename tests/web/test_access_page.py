"""Explain access in the browser and over the API: verdicts, the deciding one, and the missing step as one button."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import CREW, NOTES, Client, Write
from tests.factories import make_key, make_server, make_team
from tests.web.browsing import CHANGED, Browser, look_at, text_of

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
        "active": "passes", "address": "passes", "open_to_all": "not_met", "admin_view": "not_met", "grants": "grants",
    }  # fmt: skip
    assert any("Team crew is granted the server" in rule["why"] for rule in found["rules"])


@pytest.mark.parametrize(
    ("asked", "decided_by", "action"),
    [
        ({"user_id": "otto", "server_id": NOTES}, "grants", "open_user"),
        ({"user_id": "mel", "server_id": "hidden"}, "grants", "open_team"),
        ({"user_id": "mel", "server_id": "inside", "address": "203.0.113.7"}, "address", "change_reach"),
        ({"user_id": "ada", "server_id": "waiting"}, "active", "open_server"),
        ({"user_id": "mel", "server_id": NOTES, "tool": "delete"}, "allowed_tools", "edit_server"),
        ({"user_id": "gone", "server_id": NOTES}, "identity", "open_user"),
        ({"key_id": "spent", "server_id": NOTES}, "identity", "issue_key"),
        ({"key_id": "narrow", "server_id": NOTES}, "grants", "issue_key"),
        ({"key_id": "elsewhere", "server_id": NOTES, "tool": "find"}, "allowed_routes", "issue_key"),
        ({"key_id": "few", "server_id": NOTES, "tool": "find"}, "tool_permissions", "issue_key"),
    ],
)
def test_what_is_missing_is_one_step(
    client: As, write: Write, asked: dict[str, str], decided_by: str, action: str
) -> None:
    from portal.domain.principals import OPERATOR
    from portal.services import keys, people
    from tests.factories import make_user

    with write() as session:
        for name, fields in (("hidden", {}), ("inside", {"available_on_public_internet": False}), ("waiting", {})):
            make_server(session, name, **fields)
        make_user(session, "gone")
        people.change_user(session, OPERATOR, "gone", {"is_active": False})
        drafts = {
            "narrow": {"mcp_servers": ("hidden",)}, "elsewhere": {"routes": ("/v1/me",)}, "spent": {},
            "few": {"mcp_tool_permissions": {"notes": ("other",)}},
        }  # fmt: skip
        for draft in drafts.values():
            make_key(session, user_id="mel", team_id=CREW, **draft)  # type: ignore[arg-type]
    ids = [key["key_id"] for key in _keys_of_mel(client)]
    made = dict(zip(drafts, ids, strict=True))
    client("ada").delete(f"/v1/keys/{made['spent']}")
    client("ada").put("/v1/mcp/server", {"server_id": NOTES, "allowed_tools": ["find"]})
    with write() as session:
        from portal.store.models import Server

        session.get_one(Server, "id-waiting").approval_status = "pending_review"
    if "key_id" in asked:
        asked = {**asked, "key_id": made[asked["key_id"]]}
    found = explained(client, **asked)
    assert (found["allowed"], found["decided_by"]) == (False, decided_by)
    assert found["next_step"]["action"] == action
    assert OPERATOR.name not in str(found)
    assert keys.KeyView is not None


def _keys_of_mel(client: As) -> list[dict[str, Any]]:
    return []
