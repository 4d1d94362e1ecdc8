"""Paging, and what lists cost: the number of statements does not grow with the catalog."""

from collections.abc import Callable

import pytest
from sqlalchemy import insert, select

from portal.store.database import Database
from portal.store.models import AccessGroup, AccessGroupServer, Server, ServerVariable
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.counting import counted
from tests.support.factories import make_group, make_server, make_user

As = Callable[[str | None], Client]
LISTS = ("/v1/users", "/v1/teams", "/v1/keys", "/v1/access-groups", "/v1/me/keys")


def add_servers(database: Database, numbers: range) -> None:
    """Many servers at once, each with a variable to fill in, in the access group `all`."""
    rows = [{"server_id": f"s{n}", "server_name": f"s{n}", "sort_key": f"s{n}"} for n in numbers]
    ids = [{"server_id": row["server_id"]} for row in rows]
    with database.session(writes=True) as session:
        group = {"access_group_id": session.scalar(select(AccessGroup.access_group_id))}
        variable = {"position": 0, "name": "OWN", "scope": "user", "is_required": True}
        session.execute(
            insert(Server), [{**row, "transport": "http", "is_byok": True} for row in rows]
        )
        session.execute(insert(ServerVariable), [{**row, **variable} for row in ids])
        session.execute(insert(AccessGroupServer), [{**row, **group} for row in ids])
        session.commit()


def test_lists_take_as_many_statements_for_510_servers_as_for_10(
    client: As, write: Write, database: Database
) -> None:
    with write() as session:
        make_group(session, "all")
    client("ada").patch(f"/v1/teams/{CREW}", {"object_permission": {"mcp_access_groups": ["all"]}})
    paths = ("/v1/mcp/server", "/v1/mcp/server?limit=200", "/v1/mcp/user-env-vars/status", "/v1/me")
    asked = [(name, path) for name in ("ada", "vera", "mel") for path in paths]
    for name, path in asked:
        assert (
            client(name).get(path).status_code == 200
        )  # notes the use of the key, which is done once
    costs = []
    for numbers in (range(10), range(10, 510)):
        add_servers(database, numbers)
        for name, path in asked:
            with counted(database) as statements:
                answer = client(name).get(path)
            assert answer.status_code == 200
            assert path != "/v1/mcp/server" or len(answer.get_json()) >= numbers.stop
            costs.append((name, path, len(statements)))
    few = costs[: len(asked)]
    many = costs[len(asked) :]
    assert many == few


def test_the_server_list_is_whole_or_comes_in_pages(client: As, write: Write) -> None:
    with write() as session:
        for name in ("b", "A", "z", "y"):
            make_server(session, name)
    whole = [row["server_id"] for row in client("ada").get("/v1/mcp/server").get_json()]
    assert whole == ["id-A", "id-b", NOTES, "id-y", "id-z"]
    path: str | None = "/v1/mcp/server?limit=2&team_id="
    pages = []
    while path:
        answer = client("ada").get(path)
        pages.append([row["server_id"] for row in answer.get_json()])
        link = answer.headers.get("Link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link.partition(">")[0][1:]
    assert pages == [whole[:2], whole[2:4], whole[4:]]


def test_a_page_that_is_exactly_full_is_the_last(client: As) -> None:
    assert "Link" not in client("ada").get("/v1/mcp/server?limit=1").headers


def test_other_lists_come_in_pages_by_cursor(client: As, write: Write) -> None:
    with write() as session:
        for number in range(4):
            make_user(session, f"u{number}")
            make_group(session, f"g{number}")
    found = []
    cursor = ""
    while cursor is not None:
        page = client("vera").get(f"/v1/users?limit=4&cursor={cursor}").get_json()
        assert set(page) == {"items", "next_cursor"}
        assert len(page["items"]) <= 4
        found += [user["user_id"] for user in page["items"]]
        cursor = page["next_cursor"]
    assert found == sorted(["ada", "vera", "mel", "vic", "otto", "u0", "u1", "u2", "u3"])


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=-1", "limit=x", "limit=", "limit=1e2", "limit=٣"]
)
def test_a_limit_that_is_none_is_422(client: As, query: str) -> None:
    for path in ("/v1/mcp/server", *LISTS):
        answer = client("ada").get(f"{path}?{query}")
        assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, "limit")


_THREE_PARTS = "WyJhIiwgImIiLCAiYyJd"
_NUL = "WyJcdTAwMDAiLCAiXHUwMDAwIl0="


@pytest.mark.parametrize(
    "cursor", ["x", "%ff", "WzFd", "W10=", "bnVsbA==", _THREE_PARTS, _NUL, "é", "[" * 9000]
)
def test_a_cursor_that_is_not_ours_is_422(client: As, cursor: str) -> None:
    for path in ("/v1/mcp/server", *LISTS):
        answer = client("ada").get(f"{path}?cursor={cursor}")
        assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, "cursor")


def test_a_limit_is_refused_after_the_person_is(client: As) -> None:
    assert client("mel").get("/v1/users?limit=x").status_code == 403


@pytest.mark.parametrize(
    "path", ["/v1/mcp/server", "/v1/mcp/server?limit=1", "/v1/mcp/user-env-vars/status"]
)
def test_a_list_that_the_caller_holds_is_sent_again_only_when_it_has_changed(
    client: As, path: str
) -> None:
    first = client("ada").get(path)
    assert first.headers["ETag"].startswith("W/")
    assert first.headers["Cache-Control"] == "no-store"
    held = {"If-None-Match": first.headers["ETag"]}
    again = client("ada").get(path, headers=held)
    assert (again.status_code, again.data) == (304, b"")
    needs = {"env_vars": [{"name": "OWN", "scope": "user"}], "static_headers": {"X-Own": "${OWN}"}}
    change = {"server_id": NOTES, "alias": "another", **needs}
    assert client("ada").put("/v1/mcp/server", change).status_code == 202
    changed = client("ada").get(path, headers=held)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]
    assert "another" in changed.text
