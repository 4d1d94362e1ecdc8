"""What is changed through one web process holds in the next request to any other (R-MP-01, R-MP-02,
R-MP-03)."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx2
import pytest

from portal.store.database import Database
from tests.conftest import CREW, KEYS
from tests.support.cluster.topology import Cluster
from tests.support.factories import PASSWORD
from tests.support.oauth.browsing import HttpBrowser
from tests.support.peers import TRUST

TIMES = 2  # that each member is asked: it is two processes, which take turns
T = TypeVar("T")


class Members:
    """Changes through one of the two, and reads through both."""

    def __init__(self, running: Cluster, first: int) -> None:
        self.here, self.there = running.web[first].url, running.web[1 - first].url

    def change(self, method: str, path: str, body: object = None, *, as_: str = "ada") -> Any:
        """Change something through the one; what it answers."""
        answer = httpx2.request(
            method, f"{self.here}{path}", json=body, headers=by(as_), timeout=30, verify=TRUST
        )
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def read(self, path: str, what: Callable[[httpx2.Response], T], *, as_: str = "ada") -> T:
        """What the other one answers, and then both, again and again: always the same."""
        urls = TIMES * [self.there, self.here]
        found = [
            what(httpx2.get(f"{url}{path}", headers=by(as_), timeout=30, verify=TRUST))
            for url in urls
        ]
        assert all(seen == found[0] for seen in found), found
        return found[0]


def by(who: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS.get(who, who)}"}


@pytest.fixture(params=[0, 1], ids=["one-to-two", "two-to-one"])
def members(request: pytest.FixtureRequest, running: Cluster, database: Database) -> Members:
    return Members(running, request.param)


@pytest.fixture
def server(members: Members) -> Iterator[str]:
    """A server that nobody was granted."""
    body = {"server_name": "moving", "transport": "http", "url": "http://127.0.0.1:9/mcp"}
    server_id = members.change("POST", "/v1/mcp/server", body)["server_id"]
    yield server_id
    members.change("DELETE", f"/v1/mcp/server/{server_id}")
    assert members.read(f"/v1/mcp/server/{server_id}", status) == 404


@pytest.fixture
def person(members: Members) -> Iterator[tuple[str, str]]:
    """A person of this test alone: their id, and a key of theirs."""
    body = {"email": "kim@example.com", "role": "internal_user", "password": PASSWORD}
    user_id = members.change("POST", "/v1/users", body)["user_id"]
    yield (
        user_id,
        members.change("POST", "/v1/keys", {"key_alias": "of Kim", "user_id": user_id})["key"],
    )
    members.change("DELETE", f"/v1/users/{user_id}")


def signed_in(url: str) -> HttpBrowser:
    browser = HttpBrowser()
    page = browser.submit(
        browser.visit(f"{url}/login"), "Sign in", email="kim@example.com", password=PASSWORD
    )
    assert page.status == 200
    return browser


def status(answer: httpx2.Response) -> int:
    return answer.status_code


def names(answer: httpx2.Response) -> set[str]:
    return {row["server_name"] for row in answer.json()}


def test_a_server_is_edited(members: Members, server: str) -> None:
    for text in ("once", "twice"):
        members.change("PUT", "/v1/mcp/server", {"server_id": server, "description": text})
        assert (
            members.read(f"/v1/mcp/server/{server}", lambda answer: answer.json()["description"])
            == text
        )


def test_a_live_server_is_rejected_and_approved_again(members: Members) -> None:
    body = {"server_name": "proposed", "transport": "http", "url": "http://127.0.0.1:9/mcp"}
    server_id = members.change("POST", "/v1/mcp/server/register", body, as_="mel")["server_id"]
    members.change("PUT", f"/v1/mcp/server/{server_id}/approve")
    members.change(
        "PATCH", f"/v1/teams/{CREW}", {"object_permission": {"mcp_servers": [server_id]}}
    )
    assert members.read("/v1/mcp/server", names, as_="mel") == {"proposed"}
    members.change("PUT", f"/v1/mcp/server/{server_id}/reject", {"review_notes": "Not any more."})
    assert members.read("/v1/mcp/server", names, as_="mel") == set()
    members.change("DELETE", f"/v1/mcp/server/{server_id}")


def test_a_grant_is_given_and_taken(members: Members, server: str) -> None:
    for granted in ([server], [], [server]):
        members.change(
            "PATCH", f"/v1/teams/{CREW}", {"object_permission": {"mcp_servers": granted}}
        )
        assert members.read("/v1/mcp/server", names, as_="mel") == (
            {"moving"} if granted else set()
        )


def test_a_key_is_revoked(members: Members, person: tuple[str, str]) -> None:
    issued = members.change("POST", "/v1/keys", {"key_alias": "second", "user_id": person[0]})
    assert members.read("/v1/mcp/network/client-ip", status, as_=issued["key"]) == 200
    members.change("DELETE", f"/v1/keys/{issued['key_id']}")
    assert members.read("/v1/mcp/network/client-ip", status, as_=issued["key"]) == 401
    assert members.read("/v1/mcp/network/client-ip", status, as_=person[1]) == 200


def test_a_role_changes(members: Members, person: tuple[str, str]) -> None:
    user_id, key = person
    for role, expected in (
        ("internal_user", 403),
        ("proxy_admin_viewer", 200),
        ("internal_user", 403),
    ):
        members.change("PATCH", f"/v1/users/{user_id}", {"role": role})
        assert members.read("/v1/users?limit=1", status, as_=key) == expected


def test_a_person_is_switched_off(members: Members, person: tuple[str, str]) -> None:
    user_id, key = person
    with signed_in(members.there) as browser:
        members.change("PATCH", f"/v1/users/{user_id}", {"is_active": False})
        for url in (members.there, members.here):
            assert browser.visit(f"{url}/profile").url.startswith(f"{url}/login")
    assert members.read("/v1/me", status, as_=key) == 401


@pytest.mark.usefixtures("person")
def test_who_signs_out_everywhere_else_is_signed_out_there(members: Members) -> None:
    with signed_in(members.there) as elsewhere, signed_in(members.here) as browser:
        assert elsewhere.visit(f"{members.here}/profile").url == f"{members.here}/profile"
        browser.submit(browser.visit(f"{members.here}/profile"), "Sign out all other sessions")
        for url in (members.there, members.here):
            assert elsewhere.visit(f"{url}/profile").url.startswith(f"{url}/login")
            assert browser.visit(f"{url}/profile").url == f"{url}/profile"


def test_settings_change(members: Members, server: str) -> None:
    members.change("PATCH", f"/v1/teams/{CREW}", {"object_permission": {"mcp_servers": []}})
    for mode, seen in (("view_all", True), ("restricted", False)):
        members.change("PATCH", "/v1/settings", {"user_mcp_management_mode": mode})
        assert ("moving" in members.read("/v1/mcp/server", names, as_="mel")) is seen


def test_required_fields_change(members: Members) -> None:
    body = {"server_name": "lacking", "transport": "http", "url": "http://127.0.0.1:9/mcp"}
    members.change("PATCH", "/v1/settings", {"mcp_required_fields": ["description"]})
    for url in (members.there, members.here):
        answer = httpx2.post(
            f"{url}/v1/mcp/server/register", json=body, headers=by("mel"), timeout=30
        )
        assert answer.status_code == 400, answer.text
    members.change("PATCH", "/v1/settings", {"mcp_required_fields": []})


def test_trusted_proxies_change(members: Members) -> None:
    def seen_from(url: str) -> str:
        headers = {**by("ada"), "X-Forwarded-For": "192.0.2.7, 198.51.100.9"}
        return str(
            httpx2.get(f"{url}/v1/mcp/network/client-ip", headers=headers, timeout=30).json()["ip"]
        )

    for trusted, address in ((["198.51.100.0/24"], "192.0.2.7"), ([], "198.51.100.9")):
        members.change("PATCH", "/v1/settings", {"trusted_proxies": trusted})
        assert {seen_from(url) for url in TIMES * [members.there, members.here]} == {address}


def test_the_public_list_changes(members: Members, server: str) -> None:
    members.change("PATCH", "/v1/settings", {"enable_mcp_registry": True})
    for listed in ([server], []):
        members.change("POST", "/v1/mcp/make_public", {"mcp_server_ids": listed})
        assert members.read("/v0.1/servers", lambda answer: len(answer.json()["servers"])) == len(
            listed
        )
    members.change("PATCH", "/v1/settings", {"enable_mcp_registry": False})
    assert members.read("/v0.1/servers", status) == 404
