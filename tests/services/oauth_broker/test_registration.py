"""Which client ids the broker knows, and how registrations make room for one another."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.domain.oauth_requests import is_metadata_document
from portal.services.access.principals import stranger
from portal.services.oauth_broker import registration
from portal.store.database import Database
from portal.store.models import new_id, now
from portal.store.oauth_tables import McpClient
from tests.conftest import Client, Write
from tests.support.oauth.asking import BACK, PUBLIC, authorize, code_for, departed, redeem

As = Callable[[str | None], Client]
Add = Callable[..., str]


def register(
    asking: Client, name: str = "App", path: str = "/guarded/register", **metadata: object
) -> str:
    answer = asking.post(path, {"client_name": name, "redirect_uris": [BACK], **metadata})
    assert answer.status_code == 201, answer.get_data(as_text=True)
    return str(answer.get_json()["client_id"])


def fault(answer: TestResponse) -> str:
    return str(answer.get_json()["detail"]["error"])


def fill(
    session: Session,
    count: int,
    age: timedelta,
    server_id: str | None = "id-guarded",
    *,
    used: bool = False,
) -> None:
    at = now() - age
    rows = [
        {
            "registration_id": new_id(),
            "server_id": server_id,
            "client_id": f"mcp-{new_id()}",
            "redirect_uris": [BACK],
            "created_at": at,
            "seen_at": at,
            "last_used_at": at if used else None,
        }
        for _ in range(count)
    ]
    session.execute(insert(McpClient), rows)


def has(write: Write, *client_ids: str) -> list[bool]:
    with write() as session:
        there = set(
            session.scalars(select(McpClient.client_id).where(McpClient.client_id.in_(client_ids)))
        )
    return [client_id in there for client_id in client_ids]


OPEN = {"delegate_auth_to_upstream": True}  # only there a stranger registers for one server
LOCAL = (
    "https://localhost/client.json",
    "https://127.0.0.1:8443/client.json",
    "https://10.1.2.3/client.json",
)
UNKNOWN = (
    "mcp-never-issued", "stored-id", "http://client.example/mcp.json", "https://client.example", "https://client.example/",
    "https://client.example/a#b", "https://me@client.example/a", "https://client.example/../a",
    "https://client.example/%2e%2e/a", "https://client.example:0/a", "https://client.example:x/a", "https:///a",
    "HTTPS://client.example/a", " https://client.example/a", "https://client.example/a b", "https://client.example\\a",
    "ftp://client.example/a", "javascript:alert(1)", "second",
)  # fmt: skip


@pytest.mark.parametrize("client_id", UNKNOWN)
def test_an_id_that_is_known_nowhere_is_refused(client: As, add: Add, client_id: str) -> None:
    add()
    answer = authorize(client("ada"), client_id=client_id)
    assert (answer.status_code, fault(answer)) == (400, "invalid_client")
    assert "Location" not in answer.headers
    assert "register again" in answer.get_json()["detail"]["message"]
    answer = redeem(client("ada"), "a-code", client_id=client_id)
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_client")
    refresh = {"grant_type": "refresh_token", "refresh_token": "r", "client_id": client_id}
    answer = client("ada").ask("POST", "/guarded/token", data=refresh)
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_client")


def test_an_id_that_is_too_long_is_refused(client: As, add: Add) -> None:
    add()
    assert (
        authorize(client("ada"), client_id="https://client.example/" + "a" * 490).status_code == 400
    )


def test_a_person_reads_it_on_a_page_that_leads_nowhere(
    client: As, signed_in: As, add: Add
) -> None:
    add()
    browser = signed_in("ada")
    answer = authorize(browser, base="/guarded", client_id="evicted")
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert "is unknown" in answer.get_data(as_text=True)


def test_registered_clients_and_addresses_of_metadata_are_known(client: As, add: Add) -> None:
    add()
    for known in (
        register(client(None)),
        register(client(None), path="/register"),
        "https://client.example/a?b=1",
    ):
        code = code_for(client("ada"), client_id=known)
        assert redeem(client("ada"), code, client_id=known).status_code == 200


def test_the_client_of_another_server_is_unknown_here(client: As, add: Add) -> None:
    add(**OPEN)
    add("second", **OPEN)
    other = register(client(None), path="/second/register")
    answer = authorize(client("ada"), client_id=other)
    assert (answer.status_code, fault(answer)) == (400, "invalid_client")
    assert departed(client("ada"), "/v1/mcp/server/oauth/id-second", client_id=other)


def test_who_registered_without_redirect_uris_is_sent_to_the_portal_only(
    client: As, add: Add
) -> None:
    add()
    placeholder = (
        client(None).post("/guarded/register", {"client_name": "X"}).get_json()["client_id"]
    )
    assert departed(client("ada"), client_id=placeholder, redirect_uri=f"{PUBLIC}/callback")
    assert authorize(client("ada"), client_id=placeholder).status_code == 400


def test_addresses_of_this_machine_are_known_in_embedded_mode_only(
    client: As, add: Add, database_kind: str
) -> None:
    add()
    for client_id in LOCAL:
        wanted = 307 if database_kind == "sqlite" else 400
        assert authorize(client("ada"), client_id=client_id).status_code == wanted, client_id
    assert not is_metadata_document("https://a.localhost/x", may_be_local=False)
    assert not is_metadata_document("https://[::1]/x", may_be_local=False)
    assert not is_metadata_document("https://localhost./x", may_be_local=False)


def test_equal_registrations_share_an_id_and_others_do_not(
    client: As, write: Write, add: Add
) -> None:
    add(**OPEN)
    add("second", **OPEN)
    uris = [BACK, "http://127.0.0.1:5000/cb"]
    first = register(client(None), redirect_uris=uris)
    same = register(client("mel"), redirect_uris=[*reversed(uris), BACK], unknown_field=1)
    assert first == same
    others = [
        register(client(None), "Another", redirect_uris=uris),
        register(client(None), redirect_uris=[BACK]),
        register(client(None), redirect_uris=uris, path="/second/register"),
        register(client(None), redirect_uris=uris, path="/register"),
        register(client(None), redirect_uris=uris, grant_types=["authorization_code"]),
    ]
    assert len({first, *others}) == 6
    with write() as session:
        assert session.scalar(select(func.count()).select_from(McpClient)) == 6


def test_equal_registrations_at_the_same_moment_are_one(
    client: As, database: Database, add: Add
) -> None:
    add()
    start = threading.Barrier(6)
    made = []

    def register_once() -> None:
        with database.session(writes=True) as session:
            start.wait()
            metadata = {"client_name": "Racer", "redirect_uris": [BACK]}
            asking = stranger(session, None)
            session.rollback()
            made.append(
                registration.register_stranger(session, asking, "guarded", metadata)["client_id"]
            )
            session.commit()

    threads = [threading.Thread(target=register_once) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len(set(made)) == 1


def test_unused_clients_make_room_the_oldest_first(client: As, write: Write, add: Add) -> None:
    add(**OPEN)
    oldest, used, under_way, fresh = (
        register(client(None), name) for name in ("Old", "Used", "Under way", "Fresh")
    )
    with write() as session:
        for client_id, age in ((oldest, 6), (used, 9), (under_way, 8)):
            at = now() - timedelta(hours=age)
            session.execute(
                update(McpClient)
                .where(McpClient.client_id == client_id)
                .values(created_at=at, seen_at=at)
            )
        session.execute(
            update(McpClient).where(McpClient.client_id == used).values(last_used_at=now())
        )
        fill(session, registration.MOST_UNUSED_OF_A_SERVER - 3, timedelta(hours=5))
    assert departed(client("ada"), client_id=under_way)
    newest = register(client(None), "Newest")
    assert has(write, oldest, used, under_way, fresh, newest) == [False, True, True, True, True]
    assert fault(authorize(client("ada"), client_id=oldest)) == "invalid_client"
    assert register(client(None), "Old") != oldest


def test_ten_thousand_registrations_lock_nobody_out(client: As, write: Write, add: Add) -> None:
    add(**OPEN)
    add("second", **OPEN)
    honest = register(client(None), "Honest")
    elsewhere = register(client(None), path="/second/register")
    with write() as session:
        fill(session, 300, timedelta(days=2), used=True)
        fill(session, 10_000, timedelta(0))
        fill(session, 3_000, timedelta(0), None)
    later = register(client(None), "Later")
    assert has(write, honest, elsewhere, later) == [True, True, True]
    for client_id in (honest, later):
        assert departed(client("ada"), client_id=client_id)
    with write() as session:
        session.execute(update(McpClient).values(seen_at=now() - timedelta(hours=1)))
        session.execute(
            update(McpClient).where(McpClient.client_id.in_((honest, later))).values(seen_at=now())
        )
    register(client(None), "After an hour")
    assert has(write, honest, later) == [True, True]
    with write() as session:
        unused = select(func.count()).select_from(McpClient).where(McpClient.last_used_at.is_(None))
        assert session.scalar(unused) <= registration.MOST_UNUSED
        assert session.scalar(unused.where(McpClient.server_id == "id-guarded")) <= 1_000
        assert (
            session.scalar(select(func.count()).where(McpClient.last_used_at.is_not(None))) == 300
        )
