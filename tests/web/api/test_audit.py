"""The record over the API, and what gets onto it: changes, refusals, sign-ins (`1-system.md`,
6)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from portal.services.audit import hash_chain
from portal.store.database import Database
from portal.store.models import AuditEvent
from tests.conftest import NOTES, Client, Write
from tests.support.factories import PASSWORD, make_server

As = Callable[[str | None], Client]
NOBODY = "id-nobody-has"


def listed(client: As, **wanted: Any) -> list[dict[str, Any]]:
    """The items of the list."""
    answer = client("vera").get("/v1/audit", query_string={"limit": "200", **wanted})
    assert answer.status_code == 200, answer.get_json()
    items: list[dict[str, Any]] = answer.get_json()["items"]
    return items


def test_admin_view_reads_and_nobody_else(client: As) -> None:
    event_id = listed(client)[0]["event_id"]
    for path in ("/v1/audit", f"/v1/audit/{event_id}"):
        found = {
            name: client(name).get(path).status_code
            for name in ("ada", "vera", "mel", "vic", "otto", "kit")
        }
        assert found == {"ada": 200, "vera": 200, "mel": 403, "vic": 403, "otto": 403, "kit": 403}
        assert client(None).get(path).status_code == 401


def test_one_event_is_that_of_the_list(client: As) -> None:
    item = listed(client)[0]
    assert client("ada").get(f"/v1/audit/{item['event_id']}").get_json() == item
    assert set(item) == {
        "event_id",
        "sequence",
        "at",
        "actor",
        "actor_id",
        "key_id",
        "address",
        "action",
        "target_kind",
        "target_id",
        "outcome",
        "details",
        "event_hash",
    }
    missing = client("ada").get(f"/v1/audit/{NOBODY}")
    assert (missing.status_code, missing.get_json()["detail"]["error"]) == (404, "not_found")


def test_the_list_is_newest_first_and_pages_lose_nothing(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "extra")
        session.execute(
            update(AuditEvent).values(at=datetime(2026, 1, 1, tzinfo=UTC))
        )  # all at one moment
    whole = [item["event_id"] for item in listed(client)]
    found: list[str] = []
    cursor = ""
    while True:
        page = (
            client("ada").get("/v1/audit", query_string={"limit": "3", "cursor": cursor}).get_json()
        )
        found += [item["event_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert found == whole
    assert len(set(found)) == len(found) > 6
    assert listed(client, limit="1")[0]["action"]


def test_newest_first(client: As) -> None:
    client("ada").put("/v1/mcp/server", {"server_id": NOTES, "description": "new"})
    times = [item["at"] for item in listed(client)]
    assert times == sorted(times, reverse=True)
    assert listed(client)[0]["action"] == "server changed"


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({"actor": "ADA"}, lambda e: e["actor_id"] == "ada"),
        ({"actor": "ada"}, lambda e: e["actor_id"] == "ada"),
        ({"action": "server ch"}, lambda e: e["action"] == "server changed"),
        ({"action": "100%"}, lambda e: False),
        ({"target": NOTES}, lambda e: e["target_id"] == NOTES),
        ({"target": "team"}, lambda e: e["target_kind"] == "team"),
        ({"outcome": "refused"}, lambda e: e["outcome"] == "refused"),
        (
            {"outcome": "done", "target": NOTES},
            lambda e: e["target_id"] == NOTES and e["outcome"] == "done",
        ),
        ({"since": "2999-01-01"}, lambda e: False),
        ({"until": "2000-01-01T00:00:00Z"}, lambda e: False),
    ],
)
def test_the_filters_narrow(
    client: As, wanted: dict[str, str], matches: Callable[[dict[str, Any]], bool]
) -> None:
    client("ada").put("/v1/mcp/server", {"server_id": NOTES, "description": "new"})
    client("mel").delete(f"/v1/mcp/server/{NOTES}")
    everything = listed(client)
    expected = [e["event_id"] for e in everything if matches(e)]
    assert [e["event_id"] for e in listed(client, **wanted)] == expected
    assert len(expected) < len(everything)


def test_a_day_counts_to_its_end(client: As) -> None:
    today = datetime.now(UTC).date()
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    assert len(listed(client, since=str(yesterday), until=str(datetime.now(UTC).date()))) == len(
        listed(client)
    )
    assert listed(client, until=str(yesterday - timedelta(days=1))) == []
    assert today


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"outcome": "maybe"}, "outcome"),
        ({"since": "yesterday"}, "since"),
        ({"until": "2026-13-01"}, "until"),
        ({"until": "9999-12-31"}, "until"),
        ({"since": "0001-01-01T00:00:00+23:00"}, "since"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "WyJ4Il0="}, "cursor"),
        ({"limit": "0"}, "limit"),
    ],
)
def test_what_cannot_be_read_is_named(client: As, wanted: dict[str, str], field: str) -> None:
    answer = client("ada").get("/v1/audit", query_string=wanted)
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, field)


# What gets onto it


@pytest.mark.parametrize(
    ("name", "method", "path", "kind", "target"),
    [
        ("mel", "POST", "/v1/mcp/server", "route", None),
        ("mel", "DELETE", f"/v1/mcp/server/{NOTES}", "server", NOTES),
        ("otto", "DELETE", f"/v1/mcp/server/{NOBODY}", "server", NOBODY),
        ("vera", "PATCH", "/v1/users/mel", "user", "mel"),
        ("vera", "PATCH", "/v1/settings", "route", None),
        ("kit", "POST", "/v1/users", "route", None),
    ],
)
def test_a_refused_change_is_on_record(
    client: As, name: str, method: str, path: str, kind: str, target: str | None
) -> None:
    before = len(listed(client))
    assert client(name).ask(method, path, json={}).status_code == 403
    found = listed(client)
    assert len(found) == before + 1
    event = found[0]
    assert (event["outcome"], event["target_kind"], event["target_id"]) == ("refused", kind, target)
    assert event["action"].startswith(f"{method} /v1/")
    assert event["actor_id"] == {"kit": "mel"}.get(name, name)
    assert event["key_id"]
    assert event["address"] == "127.0.0.1"


def test_a_refused_read_and_a_bad_key_are_not(client: As) -> None:
    before = len(listed(client))
    assert client("mel").get("/v1/users").status_code == 403
    assert client("sk-nobody-has-this").post("/v1/users", {}).status_code == 401
    assert client(None).post("/v1/users", {}).status_code == 401
    assert len(listed(client)) == before


def test_a_change_that_fails_is_neither_done_nor_refused(client: As) -> None:
    before = len(listed(client))
    assert (
        client("ada")
        .post("/v1/mcp/server", {"server_name": "bad/name", "url": "http://x"})
        .status_code
        == 400
    )
    assert len(listed(client)) == before


def test_a_page_that_hides_itself_records_what_was_tried(client: As, signed_in: Any) -> None:
    mel = signed_in("mel").with_csrf()
    assert mel.ask("POST", "/admin/users/new", data={}).status_code == 404
    event = listed(client)[0]
    assert (event["action"], event["outcome"], event["actor_id"]) == (
        "POST /admin/users/new",
        "refused",
        "mel",
    )
    assert event["key_id"] is None


def test_a_forged_form_is_not_on_record(client: As, signed_in: Any) -> None:
    mel = signed_in("mel")
    before = len(listed(client))
    assert mel.ask("POST", "/admin/users/new", data={}).status_code == 400
    assert len(listed(client)) == before


def test_signing_in_and_out_are_on_record(client: As, signed_in: Any) -> None:
    mel = signed_in("mel").with_csrf()
    assert mel.ask("POST", "/logout").status_code == 303
    out, came = listed(client)[:2]
    assert [(e["action"], e["actor_id"], e["outcome"]) for e in (came, out)] == [
        ("signed in", "mel", "done"),
        ("signed out", "mel", "done"),
    ]


@pytest.mark.parametrize("email", ["mel@example.com", "stranger@example.com"])
def test_a_failed_sign_in_tells_from_where_and_nothing_of_what_was_typed(
    app: Any, client: As, email: str
) -> None:
    browser = app.test_client()
    with browser.get("/login") as page:
        token = page.get_data(as_text=True).split('name="csrf_token" value="')[1].split('"')[0]
    fields = {"email": email, "password": f"not {PASSWORD}", "csrf_token": token}
    assert browser.post("/login", data=fields).status_code == 422
    event = listed(client)[0]
    assert (event["action"], event["outcome"], event["address"]) == (
        "sign-in failed",
        "refused",
        "127.0.0.1",
    )
    assert event["actor_id"] is None
    assert email not in str(event)
    assert "SECRET" not in str(event)


def test_a_change_whose_event_cannot_be_written_does_not_happen(
    client: As, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OperationalError("insert", {}, Exception("disk full"))

    monkeypatch.setattr(hash_chain, "append", broken)
    answer = client("ada").put("/v1/mcp/server", {"server_id": NOTES, "description": "unseen"})
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (503, "unavailable")
    assert "Content-Security-Policy" in answer.headers
    assert (
        client("mel").delete(f"/v1/mcp/server/{NOTES}").status_code == 403
    )  # a refusal needs no record to hold
    monkeypatch.undo()
    assert client("ada").get(f"/v1/mcp/server/{NOTES}").get_json()["description"] is None
