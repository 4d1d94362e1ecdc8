"""A key that somebody made for themselves reaches what they reach, on every door, from the next
request on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from portal.domain.principals import OPERATOR
from portal.services.access import impact, keys, principals, teams, users
from portal.services.access.keys import KeyDraft
from portal.services.servers.grants import ObjectPermission
from portal.services.tools import toolsets
from portal.services.tools.toolsets import ToolRef
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.factories import make_key, make_server, make_team

As = Callable[[str | None], Client]
WIKI = "id-wiki"


@dataclass
class Doors:
    """What a key finds at every door, for one server."""

    listed: bool
    got: int
    called: int
    healthy: bool
    is_mine: bool
    explained: bool
    toolsets: list[str]


def own_key(
    write: Write, name: str, *, team: str | None = None, **permission: Any
) -> tuple[str, str]:
    """A key that a person makes for themselves: its id and its secret."""
    with write() as session:
        person = principals.principal_for_user(session, name, "127.0.0.1")
        draft = KeyDraft(
            key_alias="own", team_id=team, object_permission=ObjectPermission(**permission)
        )
        issued = keys.issue_own_key(session, person, draft)
    return issued.view.key_id, issued.key


def doors(client: As, key: tuple[str, str], server_id: str) -> Doors:
    key_id, secret = key
    asking = client(secret)
    explained = client("ada").get(
        "/v1/access/explain", query_string={"key_id": key_id, "server_id": server_id}
    )
    call = asking.post("/v1/mcp/tools/call", {"server_id": server_id, "name": "add"})
    me = asking.get("/v1/me")
    listed = asking.get("/v1/mcp/server")
    health = asking.get("/v1/mcp/server/health")
    granted = asking.get("/v1/mcp/toolset")
    if listed.status_code == 401:
        assert {answer.status_code for answer in (call, me, health, granted)} == {401}
        return Doors(False, 401, 401, False, False, explained.get_json()["allowed"], [])
    return Doors(
        server_id in [row["server_id"] for row in listed.get_json()],
        asking.get(f"/v1/mcp/server/{server_id}").status_code,
        call.status_code,
        server_id in [row["server_id"] for row in health.get_json()],
        server_id in me.get_json()["server_ids"],
        explained.get_json()["allowed"],
        [row["toolset_name"] for row in granted.get_json()],
    )


def is_open(found: Doors) -> bool:
    """Whether every door says that the server is there; they must agree."""
    told = (
        found.listed,
        found.got == 200,
        found.called not in (401, 403, 404),
        found.healthy,
        found.is_mine,
    )
    assert len({*told, found.explained}) == 1, found
    return told[0]


def leave(session: Any) -> None:
    teams.remove_member(session, OPERATOR, CREW, "mel")


def take_the_grant(session: Any) -> None:
    teams.change_team(session, OPERATOR, CREW, {}, permission=ObjectPermission())


def delete_the_team(session: Any) -> None:
    teams.delete_team(session, OPERATOR, CREW)


def deactivate(session: Any) -> None:
    users.change_user(session, OPERATOR, "mel", {"is_active": False}, None)


def delete_the_person(session: Any) -> None:
    users.delete_user(session, OPERATOR, "mel")


ENDINGS = {
    "left the team": (leave, {"personal": 403, "limited": 403, "of the team": 401}),
    "the team lost the grant": (
        take_the_grant,
        {"personal": 403, "limited": 403, "of the team": 403},
    ),
    "the team is deleted": (delete_the_team, {"personal": 403, "limited": 403, "of the team": 401}),
    "deactivated": (deactivate, {"personal": 401, "limited": 401, "of the team": 401}),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_has_ended_for_the_owner_has_ended_for_their_keys(
    client: As, write: Write, ending: str
) -> None:
    end, answers = ENDINGS[ending]
    made = {
        "personal": own_key(write, "mel"), "limited": own_key(write, "mel", mcp_servers=(NOTES,)),
        "of the team": own_key(write, "mel", team=CREW),
    }  # fmt: skip
    assert all(is_open(doors(client, key, NOTES)) for key in made.values())
    with write() as session:
        end(session)
    for kind, key in made.items():
        asked = client(key[1]).get(f"/v1/mcp/server/{NOTES}")
        assert asked.status_code == answers[kind], kind
        if not (ending == "the team is deleted" and kind == "of the team"):  # that key is gone
            assert not is_open(doors(client, key, NOTES)), kind


def test_a_person_who_is_deleted_takes_their_keys_along(client: As, write: Write) -> None:
    key = own_key(write, "mel")
    with write() as session:
        delete_the_person(session)
    assert client(key[1]).get("/v1/me").status_code == 401


def test_what_the_owner_gains_a_personal_key_gains_and_a_limited_one_does_not(
    client: As, write: Write
) -> None:
    personal = own_key(write, "mel")
    limited = own_key(write, "mel", mcp_servers=(NOTES,))
    with write() as session:
        make_server(session, "wiki")
        make_team(session, "writers", members=("mel",), mcp_servers=(WIKI,))
    assert is_open(doors(client, personal, WIKI))
    assert client(personal[1]).get("/v1/mcp/server?team_id=team-writers").status_code == 200
    assert not is_open(doors(client, limited, WIKI))


def test_a_role_is_lost_with_the_next_request(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "wiki")
    bare = own_key(write, "ada")
    narrow = own_key(write, "ada", mcp_servers=(WIKI,))
    tools = own_key(write, "ada", mcp_tool_permissions={WIKI: ("read",)})
    assert is_open(doors(client, bare, WIKI))
    assert not is_open(doors(client, tools, NOTES)), "tools that are named limit an Admin's key too"
    assert client(bare[1]).get("/v1/users").status_code == 200
    with write() as session:
        users.change_user(session, OPERATOR, "vera", {"role": "proxy_admin"}, None)
        users.change_user(session, OPERATOR, "ada", {"role": "internal_user"}, None)
    for key in (bare, narrow, tools):
        assert client(key[1]).get("/v1/users").status_code == 403
        assert client(key[1]).get(f"/v1/mcp/server/{WIKI}").status_code == 403
    with write() as session:
        users.change_user(session, OPERATOR, "mel", {"role": "proxy_admin"}, None)
    assert client(own_key(write, "mel")[1]).get("/v1/users").status_code == 200


def test_tools_and_toolsets_are_those_of_both(client: As, write: Write) -> None:
    key = own_key(write, "mel", mcp_tool_permissions={NOTES: ("add", "read")})
    personal = own_key(write, "mel")
    with write() as session:
        made = toolsets.create_toolset(
            session, OPERATOR, "adding", None, [ToolRef(NOTES, "add")]
        ).toolset_id
        teams.change_team(
            session,
            OPERATOR,
            CREW,
            {},
            permission=ObjectPermission(
                mcp_servers=(NOTES,), mcp_tool_permissions={NOTES: ("add",)}, mcp_toolsets=(made,)
            ),
        )
    for name, allowed in (("add", True), ("read", False), ("other", False)):
        for asking in (key, personal):
            query = {"key_id": asking[0], "server_id": NOTES, "tool": name}
            assert (
                client("ada").get("/v1/access/explain", query_string=query).get_json()["allowed"]
                is allowed
            ), name
            call = client(asking[1]).post("/v1/mcp/tools/call", {"server_id": NOTES, "name": name})
            assert (call.status_code != 403) is allowed, name
    assert (
        doors(client, key, NOTES).toolsets == doors(client, personal, NOTES).toolsets == ["adding"]
    )
    with write() as session:
        leave(session)
    assert doors(client, personal, NOTES).toolsets == []


def test_what_an_admin_grants_to_a_key_stands_until_it_is_changed(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "wiki")
        issued = keys.issue_key(
            session,
            OPERATOR,
            KeyDraft(user_id="mel", object_permission=ObjectPermission(mcp_servers=(WIKI,))),
        )
        old = make_key(session, user_id="otto")
    key = (issued.view.key_id, issued.key)
    with write() as session:
        leave(session)
    assert is_open(doors(client, key, WIKI))
    assert client(old).get("/v1/me").get_json()["server_ids"] == [], (
        "without grants such a key follows nobody"
    )
    own = own_key(write, "mel", mcp_servers=())
    path = f"/v1/keys/{own[0]}"
    assert client("ada").patch(path, {"key_alias": "renamed"}).get_json()["follows_owner"] is True
    changed = client("ada").patch(path, {"object_permission": {"mcp_servers": [WIKI]}}).get_json()
    assert (
        changed["follows_owner"],
        changed["reach"]["basis"],
        changed["reach"]["server_count"],
    ) == (
        False,
        "grants",
        1,
    )
    assert is_open(doors(client, own, WIKI))
    again = {**changed, "follows_owner": True}
    assert client("ada").patch(path, again).get_json()["reach"]["server_count"] == 0
    assert not is_open(doors(client, own, WIKI))
    with write() as session:
        deactivate(session)
    assert client(key[1]).get("/v1/me").status_code == 401


def test_getting_a_key_and_sending_it_back_changes_nothing(client: As, write: Write) -> None:
    for key in (
        own_key(write, "mel"),
        own_key(write, "mel", mcp_servers=(NOTES,)),
        own_key(write, "mel", team=CREW),
    ):
        before = client("ada").get(f"/v1/keys/{key[0]}").get_json()
        assert client("ada").patch(f"/v1/keys/{key[0]}", before).get_json() == before


def test_the_list_says_what_each_key_reaches_and_why(
    client: As, signed_in: Callable[[str], Client], write: Write
) -> None:
    made = {
        "owner": own_key(write, "mel"),
        "owner_and_limits": own_key(write, "mel", mcp_servers=(NOTES,)),
        "nothing": own_key(write, "mel", team=CREW),
    }
    with write() as session:
        leave(session)
        make_team(session, "others", members=("mel",), mcp_servers=(NOTES,))
    by_id = {
        row["key_id"]: row["reach"]
        for row in signed_in("mel").get("/v1/me/keys").get_json()["items"]
    }
    reaches = {basis: by_id[key_id] for basis, (key_id, _) in made.items()}
    assert {basis: reach["basis"] for basis, reach in reaches.items()} == {
        basis: basis for basis in made
    }
    assert [reach["server_count"] for reach in reaches.values()] == [1, 1, 0]
    assert reaches["owner"]["why"] == "Follows you: everything you can use."
    assert "you are not a member of team crew" in reaches["nothing"]["why"]
    told = client("ada").get(f"/v1/keys/{made['nothing'][0]}").get_json()["reach"]["why"]
    assert "Mel is not a member of team crew" in told
    explained = (
        client("ada")
        .get("/v1/access/explain", query_string={"key_id": made["nothing"][0], "server_id": NOTES})
        .get_json()
    )
    assert explained["decided_by"] == "identity"
    assert "not a member" in explained["rules"][0]["why"]
    assert explained["next_step"]["action"] == "open_team"


def test_a_key_for_a_team_that_its_owner_is_not_in_is_not_made(client: As, write: Write) -> None:
    answer = client("ada").post("/v1/keys", {"user_id": "otto", "team_id": CREW})
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (400, "team_id")
    assert (
        client("mel").post("/v1/me/keys", {"follows_owner": False}).get_json()["detail"]["field"]
        == "follows_owner"
    )


def test_counts_of_keys_are_of_those_that_still_open_something(client: As, write: Write) -> None:
    with write() as session:
        before = impact.of_team(session, OPERATOR, CREW).live_keys
        assert before == 3  # mel's, vic's and kit's
        leave(session)
        assert impact.of_team(session, OPERATOR, CREW).live_keys == 1
    personal = own_key(write, "vic")
    with write() as session:
        assert impact.of_team(session, OPERATOR, CREW).live_keys == 2, (
            "and those that follow a member"
        )
        keys.revoke_key(session, OPERATOR, personal[0])
        assert impact.of_team(session, OPERATOR, CREW).live_keys == 1


# Keys may be required to end


def test_new_keys_end_within_the_days_that_are_set_and_older_ones_are_listed(
    client: As, write: Write
) -> None:
    older = own_key(write, "mel")
    for bad in (0, -1, 3651, "30", 1.5, True):
        refused = client("ada").patch("/v1/settings", {"key_max_age_days": bad})
        assert (refused.status_code, refused.get_json()["detail"]["field"]) == (
            422,
            "key_max_age_days",
        ), bad
    assert (
        client("ada").patch("/v1/settings", {"key_max_age_days": 30}).get_json()["key_max_age_days"]
        == 30
    )
    for ends in (None, "2099-01-01T00:00:00Z"):
        for path, body in (
            ("/v1/keys", {"user_id": "mel"}),
            ("/v1/me/keys", {"object_permission": {"mcp_servers": [NOTES]}}),
        ):
            refused = client("mel" if "me" in path else "ada").post(
                path, {**body, "expires_at": ends}
            )
            assert (refused.status_code, refused.get_json()["detail"]["field"]) == (
                400,
                "expires_at",
            )
            assert "30 days" in refused.get_json()["detail"]["message"]
    path = f"/v1/keys/{older[0]}"
    listed = client("ada").get(path).get_json()
    assert listed["complies"] is False
    assert client(older[1]).get("/v1/me").status_code == 200
    assert client("ada").patch(path, listed).status_code == 200, "what is left as it is may stay"
    assert client("ada").patch(path, {"expires_at": "2098-01-01T00:00:00Z"}).status_code == 400
    assert (
        client("ada")
        .patch("/v1/settings", {"key_max_age_days": None})
        .get_json()["key_max_age_days"]
        is None
    )
    assert client("ada").get(path).get_json()["complies"] is True


def test_keys_are_listed_by_age_and_by_last_use_page_by_page(client: As, write: Write) -> None:
    for _ in range(3):
        own_key(write, "mel")
    for query in ("sort=age", "sort=last_used"):
        found = list[dict[str, Any]]()
        cursor = ""
        while cursor is not None:
            page = client("ada").get(f"/v1/keys?{query}&limit=2&cursor={cursor}").get_json()
            found = [*found, *page["items"]]
            cursor = page["next_cursor"]
        assert len({key["key_id"] for key in found}) == len(found) == 9
        times = [
            key["created_at" if query == "sort=age" else "last_used_at"] or "" for key in found
        ]
        assert times == sorted(times)
    unused = client("ada").get("/v1/keys?unused=true").get_json()["items"]
    assert {key["last_used_at"] for key in unused} == {None}
    for query, field in (("sort=name", "sort"), ("unused=maybe", "unused")):
        refused = client("ada").get(f"/v1/keys?{query}")
        assert (refused.status_code, refused.get_json()["detail"]["field"]) == (422, field)
