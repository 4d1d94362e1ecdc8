"""Public servers, and the address that the address rule sees (behaviours PUB, REG-05 to 11)."""

from collections.abc import Callable

import pytest

from tests.conftest import KEYS, NOTES, Client, Portal, Write
from tests.support.factories import make_server

As = Callable[[str | None], Client]
PUBLISH = "/v1/mcp/make_public"
ADDRESS = "/v1/mcp/network/client-ip"


@pytest.fixture(autouse=True)
def _more(write: Write) -> None:
    with write() as session:
        make_server(session, "weather", mcp_info={"logo_url": "https://l.example/l.png"})


def public_of(client: As) -> dict[str, object]:
    return {
        r["server_id"]: (r["mcp_info"] or {}).get("is_public")
        for r in client("mel").get("/v1/mcp/server").get_json()
    }


def test_pub_02_and_aud_04_the_list_is_replaced_and_the_record_says_by_whom(client: As) -> None:
    client("ada").post(PUBLISH, {"mcp_server_ids": [NOTES]})
    answer = client("ada").post(PUBLISH, {"mcp_server_ids": ["id-weather"]})
    assert (answer.status_code, answer.get_json()) == (
        202,
        {
            "message": "1 MCP server is now public.",
            "public_mcp_servers": ["id-weather"],
            "updated_by": "ada",
        },
    )
    assert client("ada").get("/v1/settings").get_json()["public_mcp_servers"] == ["id-weather"]
    last = client("ada").get("/v1/audit?action=public").get_json()["items"][0]
    assert (last["actor_id"], last["details"]["changes"]) == (
        "ada",
        {"public_mcp_servers": {"before": [NOTES], "after": ["id-weather"]}},
    )


def test_pub_03_one_unknown_id_is_named_and_nothing_changes(client: As) -> None:
    client("ada").post(PUBLISH, {"mcp_server_ids": [NOTES]})
    answer = client("ada").post(PUBLISH, {"mcp_server_ids": ["id-weather", "nowhere"]})
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (404, "not_found")
    assert "nowhere" in answer.get_json()["detail"]["message"]
    assert client("ada").get("/v1/settings").get_json()["public_mcp_servers"] == [NOTES]


def test_pub_04_and_05_rows_tell_that_they_are_public(client: As) -> None:
    client("ada").post(PUBLISH, {"mcp_server_ids": [NOTES]})
    rows = {r["server_id"]: r["mcp_info"] for r in client("ada").get("/v1/mcp/server").get_json()}
    assert rows == {
        NOTES: {"is_public": True},
        "id-weather": {"logo_url": "https://l.example/l.png", "is_public": False},
    }
    assert client("ada").post(PUBLISH, {"mcp_server_ids": []}).status_code == 202
    assert public_of(client) == {NOTES: None}


@pytest.mark.parametrize(
    "body", [{}, {"mcp_server_ids": None}, {"mcp_server_ids": "id-notes"}, {"mcp_server_ids": [1]}]
)
def test_pub_08_a_body_without_the_list_is_422(client: As, body: object) -> None:
    answer = client("ada").post(PUBLISH, body)
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, "mcp_server_ids")


@pytest.mark.parametrize("name", ["vera", "mel", "kit"])
def test_only_an_admin_publishes(client: As, name: str) -> None:
    assert client(name).post(PUBLISH, {"mcp_server_ids": [NOTES]}).status_code == 403


def seen(asking: Client, peer: str, forwarded: str | None = None) -> object:
    headers = {"X-Forwarded-For": forwarded} if forwarded is not None else {}
    return asking.get(ADDRESS, headers=headers, environ_overrides={"REMOTE_ADDR": peer}).get_json()[
        "ip"
    ]


def test_reg_10_the_address_is_the_sockets_and_a_stranger_is_told_nothing(client: As) -> None:
    assert seen(client("otto"), "203.0.113.7") == "203.0.113.7"
    assert seen(client("otto"), "203.0.113.7", "10.0.0.1") == "203.0.113.7"
    assert client(None).get(ADDRESS).status_code == 401


def test_reg_08_a_trusted_proxy_is_believed(portal_with: Callable[..., Portal]) -> None:
    trusting = portal_with(trusted_proxies=("10.1.0.0/16",))
    asking = Client(trusting.app.test_client(), {"X-API-Key": KEYS["otto"]})
    assert seen(asking, "10.1.0.9", "198.51.100.4") == "198.51.100.4"
    assert seen(asking, "10.1.0.9", "6.6.6.6, 198.51.100.4, 10.1.0.8") == "198.51.100.4"
    assert seen(asking, "10.2.0.9", "198.51.100.4") == "10.2.0.9"


@pytest.mark.parametrize(
    ("ranges", "address", "internal"),
    [
        ([], "172.31.0.1", True),
        ([], "172.32.0.1", False),
        ([], "::1", True),
        ([], "::ffff:10.0.0.1", True),
        ([], "", False),
        ([], "not an address", False),
        (["203.0.113.0/24"], "203.0.113.7", True),
        (["203.0.113.0/24"], "10.0.0.1", False),
    ],
)
def test_reg_05_and_11_which_addresses_are_internal(
    client: As, write: Write, ranges: list[str], address: str, internal: bool
) -> None:
    with write() as session:
        make_server(session, "inner", allow_all_keys=True, available_on_public_internet=False)
    assert (
        client("ada")
        .patch("/v1/settings", {"mcp_internal_ip_ranges": ranges, "confirm_external": True})
        .status_code
        == 200
    )
    found = (
        client("otto").get("/v1/mcp/server", environ_overrides={"REMOTE_ADDR": address}).get_json()
    )
    assert [row["server_id"] for row in found] == (["id-inner"] if internal else [])
