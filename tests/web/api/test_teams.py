"""Teams over the API."""

from collections.abc import Callable

from tests.conftest import CREW, NOTES, Client, Write
from tests.support.factories import make_group, make_key
from tests.web.api.test_users import NOTHING

As = Callable[[str | None], Client]


def test_a_team_has_this_shape_and_its_members_come_and_go(client: As, write: Write) -> None:
    with write() as session:
        group = make_group(session, "g", (NOTES,))
    body = {
        "team_id": "t",
        "team_alias": "T",
        "members_with_roles": [{"user_id": "mel", "role": "admin"}],
        "access_group_ids": [group],
        "metadata": {"cost": 1},
        "object_permission": {"mcp_access_groups": ["g"]},
    }
    made = client("ada").post("/v1/teams", body).get_json()
    assert made == {**body, "object_permission": {**NOTHING, "mcp_access_groups": ["g"]}}
    added = client("ada").post("/v1/teams/t/members", {"user_id": "otto", "role": "user"})
    assert added.status_code == 201
    assert {m["user_id"]: m["role"] for m in added.get_json()["members_with_roles"]} == {
        "mel": "admin",
        "otto": "user",
    }
    assert client("ada").delete("/v1/teams/t/members/mel").status_code == 204
    assert client("ada").delete("/v1/teams/t/members/mel").status_code == 404
    assert client("ada").get("/v1/teams/t").get_json()["members_with_roles"] == [
        {"user_id": "otto", "role": "user"}
    ]
    assert (
        client("ada")
        .patch("/v1/teams/t", {"members_with_roles": []})
        .get_json()["members_with_roles"]
        == []
    )


def test_a_team_that_goes_takes_its_keys_with_it(client: As, write: Write) -> None:
    with write() as session:
        key = make_key(session, team_id=CREW)
    assert client(key).get("/v1/me").status_code == 200
    assert client("ada").delete(f"/v1/teams/{CREW}").status_code == 204
    assert client(key).get("/v1/me").status_code == client("mel").get("/v1/me").status_code == 401
