"""Definitions that are held for 300 s to be tried with OAuth before they are saved (behaviours
TMP-01 to 16)."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from portal.app import create_app, open_database
from portal.domain.principals import OPERATOR
from portal.processes.web import do_round
from portal.services.access.principals import principal_for_user
from portal.services.oauth_client import held_definitions
from portal.services.oauth_client.discovery import authorization_of
from portal.services.oauth_client.registration import client_of
from portal.services.secrets.server_definition import opened
from portal.services.servers import unsaved
from portal.services.upstreams.resolve import build, config_of
from portal.settings import Settings
from portal.store.database import Database
from portal.store.models import AuditEvent, Server
from portal.store.oauth_tables import OAuthClientRegistration, ServerAuthorization, TemporaryServer
from tests.conftest import NOTES, Client, Write
from tests.support.factories import NOBODY_LISTENS, make_server
from tests.support.oauth.recording import RecordingServer

As = Callable[[str | None], Client]
PATH = "/v1/mcp/server/oauth/session"
BODY = {
    "server_name": "draft",
    "url": f"{NOBODY_LISTENS}/draft",
    "transport": "http",
    "auth_type": "oauth2",
    "credentials": {
        "client_id": "drafted",
        "client_secret": "SECRET-of-the-draft",
        "scopes": ["read"],
    },
    "static_headers": {"X-Team": "SECRET-header"},
    "mcp_access_groups": ["nobody-made-it"],
}
STORED = {
    "client_id": "stored-id",
    "client_secret": "SECRET-stored",
    "scopes": ["all"],
    "auth_value": "SECRET-value",
}


def held(write: Write, server_id: str) -> dict[str, Any] | None:
    """The credentials of a definition as they would be sent; None where none is held."""
    with write() as session:
        row = unsaved.load_temporary(session, server_id)
        return dict(opened(session, row, credentials=True).credentials) if row is not None else None


def count(write: Write, table: type) -> int:
    with write() as session:
        return session.query(table).count()


def outlive(write: Write, server_id: str, by: timedelta = timedelta(seconds=301)) -> None:
    with write() as session:
        kept = session.get(TemporaryServer, server_id)
        assert kept is not None
        kept.expires_at -= by


def test_tmp_01_it_is_answered_without_credentials_and_in_no_list(client: As, write: Write) -> None:
    answer = client("ada").post(PATH, BODY)
    assert answer.status_code == 200
    server = answer.get_json()
    assert (server["server_name"], server["alias"], server["credentials"]) == (
        "draft",
        "draft",
        None,
    )
    assert (server["url"], server["static_headers"]) == (
        BODY["url"],
        BODY["static_headers"],
    ), "the shape of an Admin"
    assert "SECRET-of-the-draft" not in answer.get_data(as_text=True)
    ada = client("ada")
    assert [row["server_id"] for row in ada.get("/v1/mcp/server").get_json()] == [NOTES]
    assert ada.get(f"/v1/mcp/server/{server['server_id']}").status_code == 404
    assert ada.get("/v1/mcp/server/draft").status_code == 404
    assert "draft" not in ada.get("/v1/mcp/registry.json").get_data(as_text=True)
    assert ada.get("/v1/mcp/access_groups").get_json() == {"access_groups": []}, (
        "a group is made when one saves"
    )
    assert count(write, Server) == 1
    assert held(write, server["server_id"]) == BODY["credentials"]


@pytest.mark.parametrize("who", ["vera", "mel", "vic", "otto", "kit"])
def test_tmp_01_only_an_admin_may(client: As, write: Write, who: str) -> None:
    assert client(who).post(PATH, BODY).status_code == 403
    assert client(None).post(PATH, BODY).status_code == 401
    assert count(write, TemporaryServer) == 0


def test_tmp_03_the_credentials_of_the_stored_server_are_inherited_and_never_shown(
    client: As, write: Write
) -> None:
    with write() as session:
        saved = make_server(session, "saved", auth_type="oauth2", credentials=STORED)
    answer = client("ada").post(PATH, {**BODY, "server_id": saved, "credentials": None})
    assert (answer.status_code, answer.get_json()["credentials"]) == (200, None)
    assert "SECRET-stored" not in answer.get_data(as_text=True)
    assert held(write, saved) == STORED
    client("ada").post(PATH, {**BODY, "server_id": saved})
    assert held(write, saved) == BODY["credentials"], (
        "those that are sent take their place, all of them"
    )


def test_tmp_03_they_are_not_taken_to_another_host(client: As, write: Write) -> None:
    with write() as session:
        saved = make_server(session, "saved", auth_type="oauth2", credentials=STORED)
    body = {**BODY, "server_id": saved}
    del body["credentials"]
    for elsewhere in (
        {"url": "https://evil.example/mcp"},
        {"token_url": "https://evil.example/token"},
    ):
        answer = client("ada").post(PATH, body | elsewhere)
        assert (answer.status_code, answer.get_json()["detail"]["error"]) == (
            409,
            "credentials_would_move",
        )
        assert held(write, saved) is None
        sent = client("ada").post(PATH, {**BODY, "server_id": saved} | elsewhere)
        assert sent.status_code == 200
        assert held(write, saved) == BODY["credentials"]
        with write() as session:
            held_definitions.delete_definition(session, saved)


def test_tmp_05_and_06_it_lasts_300_seconds_and_the_same_id_begins_them_anew(
    client: As, write: Write
) -> None:
    ada = client("ada")
    server_id = ada.post(PATH, BODY).get_json()["server_id"]
    outlive(write, server_id, timedelta(seconds=290))
    assert held(write, server_id)
    changed = {
        **BODY,
        "server_id": server_id,
        "description": "newer",
        "credentials": {"client_id": "newer"},
    }
    assert ada.post(PATH, changed).get_json()["description"] == "newer"
    outlive(write, server_id, timedelta(seconds=290))
    assert held(write, server_id) == {"client_id": "newer"}
    outlive(write, server_id, timedelta(seconds=11))
    assert held(write, server_id) is None
    assert ada.post(PATH, {**BODY, "server_id": server_id}).status_code == 200, (
        "one that ran out can be made again"
    )
    assert held(write, server_id) == BODY["credentials"]


def test_tmp_07_another_process_has_it_at_once(
    settings: Settings, client: As, write: Write
) -> None:
    server_id = client("ada").post(PATH, BODY).get_json()["server_id"]
    other = open_database(settings)
    second = Client(
        create_app(settings, database=other).test_client(), {"Authorization": f"Bearer {_ADA}"}
    )
    with other.session() as session:
        row = unsaved.load_temporary(session, server_id)
        assert row is not None
        assert opened(session, row).urls["url"] == BODY["url"]
    assert (
        second.post(
            PATH, {**BODY, "server_id": server_id, "description": "by the other"}
        ).status_code
        == 200
    )
    other.engine.dispose()
    with write() as session:
        row = unsaved.load_temporary(session, server_id)
        assert row is not None
        assert row.description == "by the other"


_ADA = "sk-SECRET-key-of-ada-0123456789"


def test_tmp_10_it_is_held_to_the_rules_of_one_that_is_saved(client: As, write: Write) -> None:
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"alias": "no/slashes"}, 400, "invalid_request"),
        ({"server_name": "a" * 65}, 400, "invalid_request"),
        ({"url": None}, 422, "invalid"),
        ({"url": "ftp://example.org/"}, 400, "invalid_request"),
        ({"server_id": "all-team-mcpservers"}, 400, "reserved_id"),
        ({"server_id": "a/b"}, 400, "invalid_request"),
        ({"static_headers": {"Host": "x"}}, 400, "invalid_request"),
        ({"transport": "pigeon"}, 422, "invalid"),
        ({"transport": "stdio", "command": "npx", "args": ["x"]}, 400, "stdio_not_allowed"),
        ({"credentials": []}, 422, "invalid"),
        ({"timeout": 0}, 422, "invalid"),
    ]
    for change, status, error in wrong:
        answer = client("ada").post(PATH, BODY | change)
        assert (answer.status_code, answer.get_json()["detail"]["error"]) == (status, error), change
    assert count(write, TemporaryServer) == 0


def test_tmp_13_the_id_of_a_saved_server_is_kept_and_its_row_is_never_overwritten(
    client: As, write: Write
) -> None:
    before = client("ada").get(f"/v1/mcp/server/{NOTES}").get_json()
    answer = client("ada").post(PATH, {**BODY, "server_id": NOTES, "server_name": "notes"})
    assert answer.get_json()["server_id"] == NOTES
    after = client("ada").get(f"/v1/mcp/server/{NOTES}").get_json()
    volatile = ("last_health_check", "status", "health_check_reason", "health_check_error")
    assert [after[n] for n in after if n not in volatile] == [
        before[n] for n in before if n not in volatile
    ]
    assert (
        client("mel").get(f"/v1/mcp/server/{NOTES}").get_json()["auth_type"] == before["auth_type"]
    )


def test_tmp_14_two_at_once_are_both_answered(client: As, write: Write) -> None:
    answers: list[int] = []
    together = threading.Barrier(4)

    def post() -> None:
        asking = client("ada")
        together.wait()
        answers.append(asking.post(PATH, {**BODY, "server_id": "at-once"}).status_code)

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 4
    assert count(write, TemporaryServer) == 1
    assert held(write, "at-once") == BODY["credentials"]


def test_tmp_14_who_comes_second_adopts_what_the_first_holds(
    database: Database, client: As, write: Write
) -> None:
    """The race itself: the second had looked before the first wrote."""
    with write() as session:
        ada = principal_for_user(session, "ada", None)
        looked = session.get
        first = {"fields": {"server_name": "first", "url": BODY["url"], "transport": "http"}}

        def blind(entity: Any, ident: Any, **options: Any) -> Any:
            found = looked(entity, ident, **options)
            if entity is TemporaryServer and options.get("with_for_update"):
                session.get = looked  # type: ignore[method-assign]
                held_definitions.hold(session, OPERATOR, "raced", first)
                session.expunge_all()
            return found

        session.get = blind  # type: ignore[method-assign]
        kept = held_definitions.hold(
            session, ada, "raced", {"fields": {**first["fields"], "server_name": "second"}}
        )
        row = unsaved.load_temporary(session, kept.server_id)
        assert row is not None
        assert row.server_name == "first"


def test_tmp_15_the_worker_sweeps_what_is_over_and_nothing_else(
    database: Database, client: As, write: Write
) -> None:
    for server_id in ("over", "live"):
        client("ada").post(PATH, {**BODY, "server_id": server_id})
    outlive(write, "over")
    do_round(database, tidies=True)
    with write() as session:
        assert [row.server_id for row in session.query(TemporaryServer)] == ["live"]


@pytest.mark.parametrize("scopes", [["read", "write"], []])
def test_tmp_16_scopes_alone_do_not_stop_the_stored_client_from_being_inherited(
    client: As, write: Write, scopes: list[str]
) -> None:
    with write() as session:
        saved = make_server(session, "saved", auth_type="oauth2", credentials=STORED)
    sent = {"scopes": scopes, "upstream_resource": "https://api.example"}
    assert (
        client("ada").post(PATH, {**BODY, "server_id": saved, "credentials": sent}).status_code
        == 200
    )
    assert held(write, saved) == {**STORED, "scopes": scopes}


def test_secrets_are_sealed_and_in_no_record(client: As, write: Write) -> None:
    client("ada").post(PATH, {**BODY, "server_id": "sealed"})
    with write() as session:
        stored = str(session.execute(text("select * from temporary_servers")).all())
        events = session.query(AuditEvent).filter(AuditEvent.action == "definition held")
        trail = str([event.details for event in events])
    assert "credentials" in trail
    assert "SECRET" not in stored
    assert "SECRET" not in trail


def test_what_oauth_finds_out_about_it_stays_with_it(
    client: As, write: Write, recording_as: RecordingServer, database: Database
) -> None:
    """Discovery and registration once, for every process; no row of the catalog's tables; all gone
    with it."""
    body = {
        "server_name": "draft",
        "url": recording_as.url,
        "transport": "http",
        "auth_type": "oauth2",
    }
    server_id = client("ada").post(PATH, body).get_json()["server_id"]
    clients = set()
    for _ in range(2):
        with database.session(writes=True) as session:
            row = _loaded(session, server_id)
            found = authorization_of(session, row, afresh=True)
            clients.add(client_of(session, row, found.server).client_id)
            assert found.server.issuer == recording_as.issuer
            assert build(config_of(session, row), {}, key="at").headers == {
                "Authorization": "Bearer at"
            }
    assert len(clients) == len(recording_as.seen("register")) == 1
    assert count(write, ServerAuthorization) == count(write, OAuthClientRegistration) == 0
    outlive(write, server_id)
    assert held(write, server_id) is None


def test_only_those_with_admin_view_may_use_it(client: As, write: Write) -> None:
    server_id = client("ada").post(PATH, BODY).get_json()["server_id"]
    with write() as session:
        for name, may in (("ada", True), ("vera", True), ("mel", False)):
            asking = principal_for_user(session, name, None)
            assert (unsaved.find_temporary(session, asking, server_id) is not None) is may


def _loaded(session: Session, server_id: str) -> Server:
    row = unsaved.load_temporary(session, server_id)
    assert row is not None
    assert row not in session
    return row
