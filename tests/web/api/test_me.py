"""Who one is, and one's own API keys (`/v1/me`)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.services.access.principals import hash_key
from portal.services.access.sessions import sweep_sessions
from portal.store.models import ApiKey, Grant, now
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.factories import make_key, make_server

As = Callable[[str | None], Client]


def test_who_asks_learns_who_they_are(
    client: As, signed_in: Callable[[str], Client], write: Write
) -> None:
    with write() as session:
        nobodys = make_key(session, team_id=CREW)
    mel, kit, of_team = (client(name).get("/v1/me").get_json() for name in ("mel", "kit", nobodys))
    assert set(mel) == {"user", "key", "teams", "restricted", "server_ids"}
    assert (mel["user"]["user_id"], mel["restricted"], mel["server_ids"]) == ("mel", False, [NOTES])
    assert mel["teams"] == [{"team_id": CREW, "team_alias": "crew"}]
    assert (kit["restricted"], kit["key"]["allowed_routes"]) == (True, ["/v1/mcp", "/v1/me"])
    assert (of_team["user"], of_team["server_ids"]) == (None, [NOTES])
    session_of_mel = signed_in("mel").get("/v1/me").get_json()
    assert (session_of_mel["key"], session_of_mel["server_ids"]) == (None, [NOTES])


def test_one_lists_and_ends_ones_own_keys_and_no_others(client: As) -> None:
    mine = client("mel").get("/v1/me/keys").get_json()["items"]
    assert {key["user_id"] for key in mine} == {"mel"}
    theirs = client("otto").get("/v1/me").get_json()["key"]["key_id"]
    assert client("mel").delete(f"/v1/me/keys/{theirs}").status_code == 403
    assert client("mel").delete("/v1/me/keys/nowhere").status_code == 403
    assert client("ada").delete(f"/v1/me/keys/{theirs}").status_code == 404
    restricted = next(key["key_id"] for key in mine if key["allowed_routes"])
    assert client("kit").delete(f"/v1/me/keys/{restricted}").status_code == 403
    assert client("mel").delete(f"/v1/me/keys/{restricted}").status_code == 204
    assert client("kit").get("/v1/me").status_code == 401


def test_a_signed_in_person_makes_a_key_for_themselves_only(
    signed_in: Callable[[str], Client], client: As
) -> None:
    mel = signed_in("mel").with_csrf()
    made = mel.post("/v1/me/keys", {"key_alias": "mine", "user_id": "ada", "team_id": CREW})
    assert (made.status_code, made.get_json()["user_id"]) == (201, "mel")
    assert client(made.get_json()["key"]).get("/v1/me").get_json()["server_ids"] == [NOTES]


@pytest.mark.parametrize(
    "wider",
    [
        {"object_permission": {"mcp_servers": ["weather"]}},
        {"object_permission": {"mcp_tool_permissions": {"weather": ["x"]}}},
        {"object_permission": {"mcp_access_groups": ["tools"]}},
        {"access_group_ids": ["tools"]},
        {"team_id": "team-of-others"},
    ],
)
def test_nobody_makes_a_key_that_is_wider_than_themselves(
    signed_in: Callable[[str], Client], write: Write, wider: dict[str, Any]
) -> None:
    with write() as session:
        make_server(session, "weather", mcp_access_groups=["tools"])
    assert signed_in("mel").with_csrf().post("/v1/me/keys", wider).status_code == 403


def test_a_key_makes_keys_that_end_with_it(client: As) -> None:
    draft = {"user_id": "mel", "follows_owner": True, "expires_at": "2099-01-01T00:00:00Z"}
    issued = client("ada").post("/v1/keys", draft).get_json()
    whole = issued["key"]
    key_id = issued["key_id"]
    notes = {"object_permission": {"mcp_servers": [NOTES]}}
    assert client(whole).post("/v1/me/keys", {}).status_code == 403
    made = (
        client(whole)
        .post("/v1/me/keys", {**notes, "expires_at": "2100-01-01T00:00:00Z"})
        .get_json()
    )
    assert made["expires_at"] == "2099-01-01T00:00:00Z"
    by_hand = client("mel").post("/v1/me/keys", notes).get_json()
    earlier = {"expires_at": "2098-01-01T00:00:00Z"}
    assert client("ada").patch(f"/v1/keys/{key_id}", earlier).status_code == 200
    assert (
        client("ada").get(f"/v1/keys/{made['key_id']}").get_json()["expires_at"]
        == earlier["expires_at"]
    )
    assert client(made["key"]).get("/v1/me").status_code == 200
    assert client("ada").delete(f"/v1/keys/{key_id}").status_code == 204
    assert (
        client(whole).get("/v1/me").status_code,
        client(made["key"]).get("/v1/me").status_code,
    ) == (401, 401)
    assert client(by_hand["key"]).get("/v1/me").status_code == 200


@pytest.mark.parametrize("owner", ["mel", "ada"])
def test_a_limited_key_changes_no_keys(client: As, write: Write, owner: str) -> None:
    """Whatever limits it: servers, tools of one, an access group, or routes."""
    with write() as session:
        make_server(session, "weather", mcp_access_groups=["tools"])
        victim = make_key(session, user_id=owner)
        victim_id = session.query(ApiKey).filter_by(key_hash=hash_key(victim)).one().key_id
        limited = [
            make_key(session, user_id=owner, mcp_servers=(NOTES,)),
            make_key(session, user_id=owner, mcp_tool_permissions={NOTES: ("read",)}),
            make_key(
                session,
                user_id=owner,
                mcp_servers=(NOTES,),
                mcp_tool_permissions={NOTES: ("read",)},
            ),
        ]
    for key in limited:
        for body in ({"object_permission": {"mcp_servers": [NOTES]}}, {}, {"follows_owner": True}):
            assert client(key).post("/v1/me/keys", body).status_code == 403
        assert client(key).get("/v1/me/keys").status_code == 200
        assert client(key).delete(f"/v1/me/keys/{victim_id}").status_code == 403
        assert client(key).delete(f"/v1/keys/{victim_id}").status_code == 403
    assert client(victim).get("/v1/me").status_code == 200


def test_a_key_limited_to_routes_changes_no_keys(client: As) -> None:
    assert (
        client("kit")
        .post("/v1/me/keys", {"object_permission": {"mcp_servers": [NOTES]}})
        .status_code
        == 403
    )


def test_an_expired_key_leaves_the_list_after_a_week(client: As, write: Write) -> None:
    """What clients are given for an hour (byok_flow.py) does not pile up; others of the person's
    keys stay."""
    ages = {"lives": None, "fresh": timedelta(days=6), "old": timedelta(days=7, minutes=1)}
    with write() as session:
        for name, age in ages.items():
            make_key(session, user_id="mel", secret=f"sk-SECRET-{name}", mcp_servers=(NOTES,))
            row = session.scalars(
                select(ApiKey).where(ApiKey.key_hash == hash_key(f"sk-SECRET-{name}"))
            ).one()
            row.key_alias, row.expires_at = name, now() - age if age else None
    with write() as session:
        sweep_sessions(session, OPERATOR)
    listed = {key["key_alias"] for key in client("mel").get("/v1/me/keys").get_json()["items"]}
    assert listed & ages.keys() == {"lives", "fresh"}
    with write() as session:
        held = set(session.scalars(select(Grant.holder_id).where(Grant.holder_kind == "key")))
        assert held <= set(session.scalars(select(ApiKey.key_id))), (
            "what it was granted goes with it"
        )
