"""Where the audit cannot be written nothing is changed, and the answer says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from portal.store.database import Database
from tests.conftest import NOTES, Client
from tests.faults.conftest import Note

As = Callable[[str | None], Client]
TOLD = {
    "is not there": "database schema does not match this version",
    "is locked": "The portal’s database is busy",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def audit_that(how: str, database: Database) -> Iterator[None]:
    """The table of events under another name, or held by somebody else's transaction."""
    if how == "is not there":
        with database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit_events RENAME TO audit_events_away"))
        yield
        with database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit_events_away RENAME TO audit_events"))
        return
    with database.session(writes=True) as other:
        other.execute(text("SELECT 1"))
        if database.engine.dialect.name == "postgresql":
            other.execute(text("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE"))
        yield


@pytest.mark.parametrize("how", list(TOLD))
def test_no_change_without_its_event(
    client: As, signed_in: As, database: Database, how: str, note: Note
) -> None:
    ada = client("ada")
    browser = signed_in("ada").with_csrf()
    before = ada.get(f"/v1/mcp/server/{NOTES}").get_json()
    with audit_that(how, database):
        refused = [
            ada.put("/v1/mcp/server", {"server_id": NOTES, "description": "changed"}),
            browser.post(f"/servers/{NOTES}/delete"),
        ]
        for answer in refused:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5"), answer.text
            assert TOLD[how] in answer.text
    after = ada.get(f"/v1/mcp/server/{NOTES}").get_json()
    assert (after["description"], after["updated_at"]) == (
        before["description"],
        before["updated_at"],
    )
    assert (
        ada.put("/v1/mcp/server", {"server_id": NOTES, "description": "changed"}).status_code == 202
    )
    note(
        f"the audit {how}",
        f"changes over API and page, {database.engine.dialect.name}",
        len(refused),
    )
