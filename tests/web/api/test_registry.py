"""The public registry: LiteLLM's `registry.json` and the official API v0.1 (behaviours REG-01, 02,
14)."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from sqlalchemy import update

from portal.store.database import Database
from portal.store.models import Server
from tests.conftest import NOTES, Client, Portal, Write
from tests.support.counting import counted
from tests.support.factories import make_server

As = Callable[[str | None], Client]
PLAIN = "/v1/mcp/registry.json"
OFFICIAL = "/v0.1/servers"
NAMESPACE = "local.127-0-0-1"
SCHEMA = json.loads((Path(__file__).with_name("server.schema.json")).read_text())
META = "io.modelcontextprotocol.registry/official"


@pytest.fixture
def enabled(client: As, write: Write) -> Client:
    """A stranger, where the registry is on, and lists `notes` and `Weather`, not `unlisted`."""
    with write() as session:
        make_server(session, "Weather", description="w" * 200, url="http://127.0.0.1:9/SECRET-path")
        make_server(session, "unlisted")
    ada = client("ada")
    assert ada.patch("/v1/settings", {"enable_mcp_registry": True}).status_code == 200
    assert (
        ada.post("/v1/mcp/make_public", {"mcp_server_ids": ["id-Weather", NOTES]}).status_code
        == 202
    )
    return client(None)


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return [entry["server"]["name"] for entry in answer.get_json()["servers"]]


@pytest.mark.parametrize(
    "path", [PLAIN, OFFICIAL, f"{OFFICIAL}/{NAMESPACE}%2Fnotes/versions", "/hub"]
)
def test_reg_01_it_is_off_until_an_admin_enables_it(client: As, path: str) -> None:
    client("ada").post("/v1/mcp/make_public", {"mcp_server_ids": [NOTES]})
    assert client(None).get(path).status_code == 404
    if path != "/hub":
        assert client("ada").get(path).get_json()["detail"]["error"] == "not_found"


def test_reg_02_the_portal_comes_first_then_what_is_listed_by_name(enabled: Client) -> None:
    answer = enabled.get(PLAIN)
    assert names(answer) == ["mcp-portal", "notes", "Weather"]
    own, notes, _ = (entry["server"] for entry in answer.get_json()["servers"])
    assert own["remotes"] == [{"type": "streamable-http", "url": "http://127.0.0.1:8000/mcp"}]
    assert notes == {
        "name": "notes",
        "title": "notes",
        "description": "The MCP server notes",
        "version": "1.0.0",
        "remotes": [{"type": "streamable-http", "url": "http://127.0.0.1:8000/notes/mcp"}],
    }


@pytest.mark.parametrize("path", [PLAIN, OFFICIAL, "/hub"])
def test_r_authz_16_nothing_is_told_but_what_is_listed_and_active(
    enabled: Client, write: Write, path: str
) -> None:
    """Not what is merely reachable, nothing of where a server is, and nothing that is under
    review."""
    with write() as session:
        session.execute(
            update(Server).where(Server.server_id == NOTES).values(approval_status="pending_review")
        )
    text = enabled.get(path, environ_overrides={"REMOTE_ADDR": "203.0.113.7"}).get_data(
        as_text=True
    )
    assert "Weather" in text
    for hidden in ("unlisted", "notes", "SECRET", "id-Weather", "127.0.0.1:9"):
        assert hidden not in text


def test_an_internal_server_that_is_listed_is_told_to_everybody(
    enabled: Client, write: Write
) -> None:
    """Rule 4.7: the address rule lets in what is listed as public."""
    with write() as session:
        session.execute(
            update(Server)
            .where(Server.server_id == NOTES)
            .values(available_on_public_internet=False)
        )
    assert f"{NAMESPACE}/notes" in names(
        enabled.get(OFFICIAL, environ_overrides={"REMOTE_ADDR": "203.0.113.7"})
    )


@pytest.mark.parametrize("path", [PLAIN, OFFICIAL])
def test_reg_14_a_server_that_cannot_be_listed_is_left_out(
    enabled: Client, client: As, write: Write, path: str
) -> None:
    with write() as session:
        make_server(session, "odd", server_id="ü:odd", server_name=None)
    client("ada").post("/v1/mcp/make_public", {"mcp_server_ids": ["ü:odd", NOTES]})
    assert [name.rpartition("/")[2] for name in names(enabled.get(path))][-1:] == ["notes"]
    assert "odd" not in enabled.get(path).get_data(as_text=True)


def test_every_entry_is_a_valid_server_json(enabled: Client) -> None:
    page = enabled.get(OFFICIAL).get_json()
    assert page["metadata"] == {"count": 2}
    for entry in page["servers"]:
        jsonschema_rs.validate(SCHEMA, entry["server"])
        assert entry["_meta"][META]["status"] == "active"
        assert entry["_meta"][META]["isLatest"] is True
    assert page["servers"][1]["server"]["description"] == "w" * 99 + "…"


def test_the_schema_of_this_test_refuses_what_the_documentation_refuses() -> None:
    good = {"name": "com.example/a", "description": "d", "version": "1.0.0"}
    jsonschema_rs.validate(SCHEMA, good)
    for bad in (
        {"name": "a"},
        {"description": "d" * 101},
        {"description": ""},
        {"version": "^1.0"},
        {"version": None},
    ):
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(SCHEMA, {**good, **bad})


def test_pages_are_followed_to_the_end(enabled: Client) -> None:
    first = enabled.get(f"{OFFICIAL}?limit=1")
    assert names(first) == [f"{NAMESPACE}/notes"]
    cursor = first.get_json()["metadata"]["nextCursor"]
    second = enabled.get(f"{OFFICIAL}?limit=1&cursor={cursor}")
    assert names(second) == [f"{NAMESPACE}/Weather"]
    assert "nextCursor" not in second.get_json()["metadata"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("search=weath", ["Weather"]),
        ("search=WWWW", ["Weather"]),
        ("search=127-0-0-1/no", ["notes"]),
        ("search=%25", []),
        ("version=latest", ["notes", "Weather"]),
        ("version=1.0.1", ["notes", "Weather"]),
        ("version=9.9", []),
        ("updated_since=2020-01-01T00:00:00Z", ["notes", "Weather"]),
        ("updated_since=2999-01-01T00:00:00%2B02:00", []),
    ],
)
def test_what_is_asked_for_narrows_the_list(enabled: Client, query: str, found: list[str]) -> None:
    assert names(enabled.get(f"{OFFICIAL}?{query}")) == [f"{NAMESPACE}/{name}" for name in found]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "updated_since=yesterday"]
)
def test_a_bad_question_is_told_so(enabled: Client, query: str) -> None:
    answer = enabled.get(f"{OFFICIAL}?{query}")
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (
        422,
        query.partition("=")[0],
    )


def test_a_server_that_is_listed_today_counts_as_changed_today(
    enabled: Client, client: As, write: Write
) -> None:
    """Readers that ask for what is new since their last visit learn of it."""
    with write() as session:
        session.execute(update(Server).values(updated_at=datetime(2020, 1, 1, tzinfo=UTC)))
    client("ada").post("/v1/mcp/make_public", {"mcp_server_ids": [NOTES, "id-unlisted"]})
    assert names(enabled.get(f"{OFFICIAL}?updated_since=2021-01-01T00:00:00Z")) == [
        f"{NAMESPACE}/unlisted"
    ]


@pytest.mark.parametrize("name", [f"{NAMESPACE}%2Fnotes", f"{NAMESPACE}/notes"])
def test_one_server_has_its_present_version(enabled: Client, client: As, name: str) -> None:
    client("ada").put("/v1/mcp/server", {"server_id": NOTES, "description": "Takes notes"})
    latest = enabled.get(f"{OFFICIAL}/{name}/versions/latest").get_json()
    assert (latest["server"]["version"], latest["server"]["description"]) == (
        "1.0.2",
        "Takes notes",
    )
    assert enabled.get(f"{OFFICIAL}/{name}/versions/1.0.2").get_json() == latest
    assert enabled.get(f"{OFFICIAL}/{name}/versions").get_json()["servers"] == [latest]
    assert enabled.get(f"{OFFICIAL}/{name}/versions/1.0.1").status_code == 404


@pytest.mark.parametrize(
    "name",
    [f"{NAMESPACE}%2Funlisted", f"{NAMESPACE}%2Fnowhere", "com.other%2Fnotes", "notes", "%2F"],
)
def test_what_is_not_listed_does_not_exist(enabled: Client, name: str) -> None:
    answers = [enabled.get(f"{OFFICIAL}/{name}/versions{rest}") for rest in ("", "/latest")]
    assert [answer.status_code for answer in answers] == [404, 404]


@pytest.mark.parametrize(
    "path", [PLAIN, OFFICIAL, f"{OFFICIAL}/{NAMESPACE}%2Fnotes/versions/latest"]
)
def test_clients_in_browsers_may_read_it_and_need_not_read_it_twice(
    enabled: Client, path: str
) -> None:
    answer = enabled.get(path, headers={"Origin": "https://elsewhere.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    asked = enabled.ask(
        "OPTIONS", path, headers={"Access-Control-Request-Headers": "authorization"}
    )
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Methods"] == "GET, OPTIONS"
    assert asked.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
    again = enabled.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer sk-wrong"}, {"X-API-Key": "sk-wrong"}]
)
def test_a_credential_is_neither_needed_nor_looked_at(
    enabled: Client, headers: dict[str, str]
) -> None:
    """Copilot's command line blocks every server where its registry answers 401."""
    assert enabled.get(OFFICIAL, headers=headers).status_code == 200


def test_a_domain_becomes_the_namespace_and_the_gateway_the_remote(
    enabled: Client, portal_with: Callable[..., Portal]
) -> None:
    elsewhere = portal_with(
        public_url="https://portal.example.com", gateway_url="https://mcp.example.com/gw"
    )
    client = elsewhere.app.test_client()
    entries = client.get(OFFICIAL, base_url="https://portal.example.com").get_json()["servers"]
    assert entries[0]["server"]["name"] == "com.example.portal/notes"
    assert entries[0]["server"]["remotes"][0]["url"] == "https://mcp.example.com/gw/notes/mcp"


def test_a_page_of_many_takes_no_more_queries_than_a_page_of_one(
    enabled: Client, database: Database, write: Write
) -> None:
    def queries(path: str) -> int:
        with counted(database) as statements:
            assert enabled.get(path).status_code == 200
        return len(statements)

    paths = (PLAIN, f"{OFFICIAL}?limit=100", "/hub")
    few = [queries(path) for path in paths]
    with write() as session:
        for number in range(120):
            make_server(session, f"more_{number}")
        session.execute(update(Server).values(is_public=True))
    assert [queries(path) for path in paths] == few
    assert len(enabled.get(f"{OFFICIAL}?limit=100").get_json()["servers"]) == 100
