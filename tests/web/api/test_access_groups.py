"""Access groups over the API."""

from collections.abc import Callable

from tests.conftest import CREW, NOTES, Client, Write
from tests.support.factories import make_server
from tests.web.api.test_users import detail_of

As = Callable[[str | None], Client]


def test_an_access_group_names_its_servers_and_grants_them(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "weather")
    body = {"name": "tools", "description": "all", "mcp_server_ids": ["weather", "id-weather"]}
    made = client("ada").post("/v1/access-groups", body).get_json()
    group_id = made["access_group_id"]
    assert made == {**body, "access_group_id": group_id, "mcp_server_ids": ["id-weather"]}
    client("ada").patch(f"/v1/teams/{CREW}", {"access_group_ids": [group_id]})
    assert client("mel").get("/v1/me").get_json()["server_ids"] == [NOTES, "id-weather"]
    changed = client("ada").patch(
        f"/v1/access-groups/{group_id}", {"description": None, "mcp_server_ids": []}
    )
    assert (changed.get_json()["description"], changed.get_json()["mcp_server_ids"]) == (None, [])
    assert client("mel").get("/v1/me").get_json()["server_ids"] == [NOTES]
    assert detail_of(client("ada").post("/v1/access-groups", {"name": "tools"})) == (
        409,
        "conflict",
        "name",
    )
