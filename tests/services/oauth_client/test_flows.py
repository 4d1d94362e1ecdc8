"""Browser redirects under way: one use, one browser, ten minutes, and nothing to read in the
database."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.domain.principals import OPERATOR
from portal.services.access.sessions import sweep_sessions
from portal.services.oauth_client import flows
from portal.store.database import Database
from portal.store.models import now
from portal.store.oauth_tables import OAuthFlow
from tests.conftest import Write


def _begin(write: Write, browser: str | None = "browser-1", **more: Any) -> tuple[str, str]:
    with write() as session:
        return flows.begin_flow(
            session, "connect", {"verifier": "SECRET-verifier"}, browser=browser, **more
        )


def _take(session: Session, state: str, browser: str | None = "browser-1") -> flows.Flow | None:
    return flows.take_flow(session, state, kinds=("connect",), browser=browser)


def _age(write: Write, flow_id: str, **columns: object) -> None:
    with write() as session:
        session.execute(update(OAuthFlow).where(OAuthFlow.flow_id == flow_id).values(**columns))


def test_of_many_at_once_one_takes_a_flow(database: Database, write: Write) -> None:
    """R-OAUTH-14."""
    _, state = _begin(write)
    ready = Barrier(8)

    def take(_: int) -> bool:
        ready.wait()
        with database.session(writes=True) as session:
            taken = _take(session, state)
            session.commit()
            return taken is not None

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(take, range(8))) == [False] * 7 + [True]


def test_a_flow_comes_back_whole_and_once(write: Write) -> None:
    flow_id, state = _begin(write, user_id="mel", server_id="id-notes")
    with write() as session:
        flow = _take(session, state)
    assert flow is not None
    assert (flow.flow_id, flow.kind, flow.user_id, flow.server_id) == (
        flow_id,
        "connect",
        "mel",
        "id-notes",
    )
    assert flow.contents == {"verifier": "SECRET-verifier"}
    assert "SECRET" not in repr(flow)
    with write() as session:
        assert _take(session, state) is None


@pytest.mark.parametrize("browser", ["browser-2", "", None])
def test_another_browser_neither_takes_nor_spoils_it(write: Write, browser: str | None) -> None:
    """R-OAUTH-18."""
    flow_id, state = _begin(write)
    with write() as session:
        assert _take(session, state, browser) is None
        assert flows.peek_flow(session, flow_id, kinds=("connect",), browser=browser) is None
        assert _take(session, state) is not None


def test_a_flow_of_a_program_is_bound_to_no_browser(write: Write) -> None:
    _, state = _begin(write, browser=None)
    with write() as session:
        assert _take(session, state, "any") is not None
    with pytest.raises(ValueError, match="bound"):
        _begin(write, browser="")


@pytest.mark.parametrize("state", ["", "nobody's", "\x00", "\ud800", "x" * 100_000, "' OR 1=1 --"])
def test_a_made_up_state_or_id_is_nobodys(write: Write, state: str) -> None:
    _begin(write)
    with write() as session:
        assert _take(session, state) is None
        assert flows.peek_flow(session, state, kinds=("connect",), browser=state) is None


def test_a_flow_of_another_kind_is_not_taken(write: Write) -> None:
    flow_id, state = _begin(write)
    with write() as session:
        assert (
            flows.take_flow(session, state, kinds=("broker", "sign_in"), browser="browser-1")
            is None
        )
        assert flows.peek_flow(session, flow_id, kinds=("broker",), browser="browser-1") is None


def test_after_ten_minutes_it_is_over(write: Write) -> None:
    """R-OAUTH-17."""
    flow_id, state = _begin(write)
    with write() as session:
        row = session.get_one(OAuthFlow, flow_id)
        assert (
            timedelta(minutes=9)
            < row.expires_at - row.created_at
            <= timedelta(minutes=10, seconds=1)
        )
    _age(write, flow_id, expires_at=now() - timedelta(seconds=1))
    with write() as session:
        assert _take(session, state) is None
        assert flows.peek_flow(session, flow_id, kinds=("connect",), browser="browser-1") is None


def test_nothing_of_it_can_be_read_in_the_database(write: Write) -> None:
    flow_id, state = _begin(write)
    with write() as session:
        row = session.get_one(OAuthFlow, flow_id)
        stored = repr(
            {column.name: getattr(row, column.name) for column in OAuthFlow.__table__.columns}
        )
    for secret in (state, "browser-1", "SECRET"):
        assert secret not in stored


def test_contents_open_for_their_own_flow_only(write: Write) -> None:
    """Sealed for one place: moved to another row they are worth nothing."""
    (one, _), (other, state) = _begin(write), _begin(write, user_id="mel")
    with write() as session:
        sealed = session.get_one(OAuthFlow, one).sealed
    _age(write, other, sealed=sealed)
    with write() as session:
        taken = _take(session, state)
        assert taken is not None
        assert not taken.contents


def test_how_it_ended_can_be_read_and_its_secrets_are_gone(write: Write) -> None:
    flow_id, state = _begin(write)
    with write() as session:
        assert _take(session, state)
        flows.finish_flow(session, flow_id, {"connected": True})
    with write() as session:
        flow = flows.peek_flow(session, flow_id, kinds=("connect",), browser="browser-1")
        assert flow is not None
        assert (flow.status, flow.outcome, flow.contents) == ("over", {"connected": True}, {})
        assert session.get_one(OAuthFlow, flow_id).sealed == b""


def test_the_flows_of_a_server_or_a_person_end_with_them(write: Write) -> None:
    """R-OAUTH-16."""
    of_mel = _begin(write, user_id="mel", server_id="id-other")[1]
    of_notes = _begin(write, user_id="otto", server_id="id-notes")[1]
    of_nobody = _begin(write)[1]
    with write() as session:
        flows.forget_flows(session, user_id="mel")
        flows.forget_flows(session, server_id="id-notes")
        assert [_take(session, state) is not None for state in (of_mel, of_notes, of_nobody)] == [
            False,
            False,
            True,
        ]


def test_the_worker_sweeps_what_ran_out(write: Write) -> None:
    late: Callable[[timedelta], dict[str, object]] = lambda by: {"expires_at": now() - by}  # noqa: E731
    minute = timedelta(minutes=1)
    hour = timedelta(hours=1)
    days = timedelta(days=2)
    cases = {
        "fresh": {},
        "pending, late": late(minute),
        "taken, late": {"status": "taken", **late(minute)},
        "taken, long ago": {"status": "taken", **late(hour)},
        "over, late": {"status": "over", **late(hour)},
        "over, long ago": {"status": "over", **late(days)},
    }
    names = {}
    for name, columns in cases.items():
        flow_id, _ = _begin(write)
        names[flow_id] = name
        if columns:
            _age(write, flow_id, **columns)
    with write() as session:
        sweep_sessions(session, OPERATOR)
        left = {names[flow_id] for flow_id in session.scalars(select(OAuthFlow.flow_id))}
    assert left == {"fresh", "taken, late", "over, late"}
