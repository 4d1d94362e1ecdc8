"""Entries of the config file that the last start refused: told on the server's pages, until a start
takes them."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.services.operations.bootstrap import apply_config, refused_entries
from portal.store.models import AuditEvent, Server
from tests.conftest import Client, Write
from tests.support.browsing import Browser, text_of

Browsers = Callable[[str], Browser]
OLD = "http://127.0.0.1:9"
NEW = "http://127.0.0.1:10"
ENTRY: dict[str, Any] = {
    "url": f"{OLD}/mcp", "static_headers": {"X-Own": "${OWN}"}, "allow_all_keys": True,
    "env_vars": [{"name": "OWN", "scope": "user"}],
}  # fmt: skip
MOVED = {**ENTRY, "url": f"{NEW}/mcp"}


@pytest.fixture
def start(write: Write) -> Callable[..., list[str]]:
    """`start(entry)`: what every start of the portal does with the config file; answers what it
    refused."""

    def started(entry: object, name: str = "conf") -> list[str]:
        with write() as session:
            return apply_config(session, OPERATOR, {"mcp_servers": {name: entry}})

    return started


@pytest.fixture
def server_id(
    start: Callable[..., list[str]], write: Write, client: Callable[[str], Client]
) -> str:
    """A server of the config file, for which Mel stored a value."""
    assert start(ENTRY) == []
    with write() as session:
        found = session.scalars(select(Server.server_id).where(Server.origin == "config")).one()
    values = {"values": {"OWN": "SECRET"}}
    assert client("mel").post(f"/v1/mcp/server/{found}/user-env-vars", values).status_code == 200
    return found


def test_the_pages_of_the_server_say_what_would_move_and_what_to_do(
    start: Callable[..., list[str]], server_id: str, browser: Browsers
) -> None:
    assert len(start(MOVED)) == 1
    for name in ("ada", "vera"):
        asking = browser(name)
        for part in ("", "/configuration"):
            alert = asking.open(f"/servers/{server_id}{part}").select_one(".alert.bad")
            told = text_of(alert)
            for words in (
                "entry conf rejected",
                "Values of users (1 user)",
                OLD,
                NEW,
                "The server was not changed",
                "keep_credentials: true",
                "keep_credentials: false",
            ):
                assert words in told
        assert "Config file entry rejected" in text_of(asking.open("/servers"))
    mel = browser("mel")
    for path in (f"/servers/{server_id}", "/servers"):
        assert "refused" not in text_of(mel.open(path))


@pytest.mark.parametrize(
    "solved", [ENTRY, {**MOVED, "keep_credentials": True}, {**MOVED, "keep_credentials": False}]
)
def test_once_it_is_solved_nothing_is_said_any_more(
    start: Callable[..., list[str]], server_id: str, browser: Browsers, solved: dict[str, Any]
) -> None:
    assert len(start(MOVED)) == 1
    assert start(solved) == []
    ada = browser("ada")
    for path in (f"/servers/{server_id}", "/servers"):
        assert "refused" not in text_of(ada.open(path))


def test_a_server_that_is_no_longer_declared_takes_the_notice_with_it(
    start: Callable[..., list[str]], server_id: str, write: Write
) -> None:
    assert len(start(MOVED)) == 1
    assert start(ENTRY, "another") == []
    with write() as session:
        assert refused_entries(session, OPERATOR) == ()
        assert session.get(Server, server_id) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"transport": "carrier-pigeon"}, "carrier-pigeon"),
        ({"auth_type": "handshake"}, "handshake"),
        ({"url": "not an address"}, "URL"),
        (
            {"url": f"{NEW}/mcp", "keep_credentials": "yes"},
            "keep_credentials must be true or false",
        ),
        ({"static_headers": "X-Own"}, ""),
    ],
)
def test_an_entry_with_a_fault_leaves_the_server_and_what_people_stored_as_they_were(
    start: Callable[..., list[str]],
    server_id: str,
    write: Write,
    browser: Browsers,
    client: Callable[[str], Client],
    changes: dict[str, Any],
    why: str,
) -> None:
    [fault] = start({**ENTRY, **changes})
    assert why in fault
    told = text_of(browser("ada").open(f"/servers/{server_id}").select_one(".alert.bad"))
    assert "entry conf rejected" in told
    assert "Correct the entry" in told
    with write() as session:
        assert session.get_one(Server, server_id).address == OLD
        refusals = select(AuditEvent.outcome).where(AuditEvent.action == "config server refused")
        assert session.scalars(refusals).all() == ["refused"]
    assert (
        client("mel").get(f"/v1/mcp/server/{server_id}/user-env-vars").get_json()["missing_count"]
        == 0
    )


def test_a_file_without_a_mapping_of_servers_removes_none(server_id: str, write: Write) -> None:
    with write() as session:
        [fault] = apply_config(session, OPERATOR, {"mcp_servers": [ENTRY]})
    assert fault.startswith("mcp_servers: ")
    with write() as session:
        assert session.get(Server, server_id)
