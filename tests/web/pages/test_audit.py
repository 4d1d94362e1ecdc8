"""The audit log, a server's activity, the export and the verification."""

import csv
import io
from collections.abc import Callable

import pytest
from sqlalchemy import event, text

from portal.domain.principals import OPERATOR
from portal.services import audit
from portal.services.access import users
from portal.services.audit import trail, verification
from portal.services.servers import crud
from portal.store.database import Database
from tests.conftest import NOTES, Client, Write
from tests.support.browsing import Browser, text_of
from tests.support.factories import make_server, make_user

Browsers = Callable[[str], Browser]


def test_the_log_tells_who_did_what_to_what_from_where(browser: Browsers, write: Write) -> None:
    with write() as session:
        users.change_user(session, OPERATOR, "otto", {"display_name": "Otto O."})
    page = browser("vera").open("/admin/audit")
    rows = [text_of(row) for row in page.select("tbody tr")]
    assert "vera@example.com" in rows[0]
    assert "127.0.0.1" in rows[0]
    assert "Signed in" in rows[0]
    assert "operator" in rows[1]
    assert "User changed" in rows[1]
    assert "display_name changed" in rows[1], "names of people are in no event"
    link = page.select_one("tbody tr:nth-of-type(2) td:last-child a")
    assert link
    assert link["href"] == "/admin/users/otto"


def test_what_people_store_is_told_by_the_servers_name(
    browser: Browsers, write: Write, client: Callable[[str], Client]
) -> None:
    with write() as session:
        variables = [{"name": "TOKEN", "scope": "user"}]
        make_server(
            session,
            "own",
            is_byok=True,
            auth_type="api_key",
            env_vars=variables,
            allow_all_keys=True,
        )
    path = "/v1/mcp/server/id-own"
    client("mel").post(f"{path}/user-env-vars", {"values": {"TOKEN": "SECRET"}})
    client("mel").post(f"{path}/user-credential", {"credential": "SECRET"})
    client("mel").post(f"{path}/oauth-user-credential", {"access_token": "SECRET"})
    for part in ("user-env-vars", "user-credential", "oauth-user-credential"):
        client("mel").delete(f"{path}/{part}")
    rows = [
        text_of(row) for row in browser("ada").open("/admin/audit?actor=mel").select("tbody tr")
    ]
    assert len(rows) == 6
    assert [row for row in rows if not row.endswith("Server own")] == []


def test_secrets_say_only_that_they_were_set(browser: Browsers, write: Write) -> None:
    with write() as session:
        make_server(session, "s", static_headers={"X-Key": "SECRET"})
    rows = text_of(browser("ada").open("/admin/audit?action=server+created&target=id-s"))
    assert "static_headers.X-Key set" in rows


def test_what_is_deleted_is_named_and_no_link(browser: Browsers, write: Write) -> None:
    with write() as session:
        crud.delete_server(session, OPERATOR, NOTES)
    row = browser("ada").open("/admin/audit?action=server+deleted").select_one("tbody tr")
    assert row
    assert "notes" in text_of(row)
    assert not row.select("td:last-child a")


def test_refusals_are_marked_with_the_reason(
    browser: Browsers, client: Callable[[str], Client]
) -> None:
    client("mel").delete(f"/v1/mcp/server/{NOTES}")
    page = browser("ada").open("/admin/audit?outcome=refused")
    assert len(page.select("tbody tr")) == 1
    row = text_of(page.select_one("tbody tr"))
    assert "Refused" in row
    assert "Only an Admin" in row


def test_filters_stand_in_the_address_and_in_the_form(browser: Browsers) -> None:
    page = browser("ada").open(
        "/admin/audit?actor=op&action=created&target=user&outcome=done&since=2020-01-01"
    )
    form = page.select_one("form[role=search]")
    assert form
    values = {field["name"]: field.get("value") for field in form.select("input")}
    assert values == {
        "actor": "op",
        "action": "created",
        "target": "user",
        "since": "2020-01-01",
        "until": "",
    }
    assert form.select_one("option[value=done][selected]")
    export = page.select_one('a[href^="/admin/audit.csv"]')
    assert export
    assert "actor=op" in str(export["href"])
    assert len(page.select("tbody tr")) == 5


def test_nothing_found_and_a_day_that_is_none(browser: Browsers) -> None:
    ada = browser("ada")
    empty = ada.open("/admin/audit?actor=zzz")
    assert "No matching events" in text_of(empty)
    assert not empty.select("table")
    wrong = ada.open("/admin/audit?since=soon", 422)
    field = wrong.select_one("#since")
    assert field
    assert field["aria-invalid"] == "true"
    assert "Enter a day as" in text_of(wrong.select_one("#since-error"))
    fragment = ada.open("/admin/audit?actor=zzz", headers={"HX-Request": "true"})
    assert not fragment.select("h1, form")


def test_pages_lead_on_and_back_with_their_filter(browser: Browsers, write: Write) -> None:
    with write() as session:
        for number in range(60):
            audit.record(session, OPERATOR, "tried", "test", str(number))
    ada = browser("ada")
    first = ada.open("/admin/audit?action=tried")
    following = first.select_one("a[rel=next]")
    assert following
    second = ada.open(str(following["href"]))
    assert [len(page.select("tbody tr")) for page in (first, second)] == [50, 10]
    back = second.select_one("a[rel=prev]")
    assert back
    assert back["href"] == "/admin/audit?action=tried"


def test_the_number_of_queries_does_not_grow_with_the_events(
    browser: Browsers, write: Write, database: Database
) -> None:
    counted: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *a: counted.append(a[2]))
    ada = browser("ada")
    numbers = []
    for _ in range(2):
        with write() as session:
            for number in range(40):
                audit.record(
                    session,
                    OPERATOR,
                    "tried",
                    "server",
                    NOTES,
                    changes={"x": {"before": 1, "after": number}},
                )
        for path in ("/admin/audit", f"/servers/{NOTES}/activity"):
            ada.open(path)
            counted.clear()
            ada.open(path)
            numbers.append(len(counted))
    assert numbers[:2] == numbers[2:]
    assert max(numbers) < 25


# Verifying


def test_an_admin_verifies_the_chain_and_the_page_says_up_to_where(browser: Browsers) -> None:
    ada = browser("ada")
    assert "has not been verified yet" in text_of(ada.open("/admin/audit"))
    assert ada.send("/admin/audit", "/admin/audit/verify").status_code == 303
    shown = text_of(ada.open("/admin/audit"))
    assert "Integrity verified up to event" in shown
    assert "events are intact." in shown


def test_what_the_walk_found_besides_faults_is_shown_after_verifying(
    browser: Browsers, write: Write
) -> None:
    ada = browser("ada")
    with write() as session:
        audit.record(session, OPERATOR, verification.OLDER, "database", None)
    ada.send("/admin/audit", "/admin/audit/verify")
    for asking in (ada, browser("vera")):
        page = asking.open("/admin/audit")
        assert "an older database had replaced a newer one" in text_of(
            page.select_one(".alert.warn")
        )
        assert "Integrity verified" in text_of(page)


def test_a_broken_chain_is_shown_in_red(browser: Browsers, database: Database) -> None:
    with database.session(writes=True) as session:
        session.execute(text("update audit_events set actor = 'forged' where sequence = 3"))
        session.commit()
    ada = browser("ada")
    ada.send("/admin/audit", "/admin/audit/verify")
    alert = ada.open("/admin/audit").select_one(".alert.bad")
    assert "Event 3 was modified." in text_of(alert)
    assert "2 events" in text_of(alert)


def test_a_read_only_admin_reads_and_does_not_verify(browser: Browsers) -> None:
    vera = browser("vera")
    assert not vera.open("/admin/audit").select('form[action="/admin/audit/verify"]')
    assert vera.post("/admin/audit/verify").status_code == 403


@pytest.mark.parametrize("name", ["mel", "vic", "otto"])
def test_for_everybody_else_nothing_is_there(browser: Browsers, name: str) -> None:
    asking = browser(name)
    for path in ("/admin/audit", "/admin/audit.csv", f"/servers/{NOTES}/activity"):
        assert asking.client.get(path).status_code == 404
    assert asking.post("/admin/audit/verify").status_code == 404
    assert not asking.open("/servers").select('a[href="/admin/audit"]')


# Export


def exported(browser: Browser, path: str = "/admin/audit.csv") -> list[dict[str, str]]:
    answer = browser.client.get(path)
    assert answer.status_code == 200
    assert answer.mimetype == "text/csv"
    assert "attachment" in answer.headers["Content-Disposition"]
    return list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))


def test_the_export_holds_all_that_matches(
    browser: Browsers, write: Write, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "_BATCH", 4)
    with write() as session:
        for number in range(9):
            audit.record(session, OPERATOR, "tried", "test", str(number))
    rows = exported(browser("vera"), "/admin/audit.csv?action=tried")
    assert [row["target_id"] for row in rows] == [str(number) for number in range(8, -1, -1)]
    everything = exported(browser("vera"))
    with database.session() as session:
        known = [e.event_hash for e in trail.export_events(session, OPERATOR, trail.EventFilter())]
    assert [row["event_hash"] for row in everything][-5:] == known[-5:]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_no_cell_is_a_formula(browser: Browsers, write: Write, start: str) -> None:
    name = f'{start}HYPERLINK("http://evil","x")'
    with write() as session:
        audit.record(session, OPERATOR, name, "test", name)
    (row,) = exported(browser("ada"), "/admin/audit.csv?target=test")
    assert (row["action"], row["target_id"]) == (f"'{name}", f"'{name}")


def test_a_filter_of_an_export_that_cannot_be_read_is_refused(browser: Browsers) -> None:
    assert browser("ada").client.get("/admin/audit.csv?since=soon").status_code == 422


# A server's own


def test_a_server_shows_what_was_done_to_it_and_to_no_other(
    browser: Browsers, write: Write, client: Callable[[str], Client]
) -> None:
    with write() as session:
        make_server(session, "other")
        make_user(session, NOTES)  # another kind of thing under the same id
    client("mel").delete(f"/v1/mcp/server/{NOTES}")
    vera = browser("vera")
    page = vera.open(f"/servers/{NOTES}/activity")
    assert [
        text_of(row.select_one("td:nth-of-type(2) > div > span")) for row in page.select("tbody tr")
    ] == [
        "DELETE /v1/mcp/server/<server_id> Refused",
        "Server created",
    ]
    tab = vera.open(f"/servers/{NOTES}").select_one('nav.tabs a[href$="/activity"]')
    assert text_of(tab) == "Activity"
    assert not browser("mel").open(f"/servers/{NOTES}").select('nav.tabs a[href$="/activity"]')
    assert vera.client.get("/servers/id-nobody-has/activity").status_code == 404
