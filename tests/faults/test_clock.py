"""The clock is put back an hour while the portal runs, and a host whose clock is an hour ahead of
the others."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text, update

from portal.services.oauth_client.flows import begin_flow, sweep_flows, take_flow
from portal.store.models import now
from portal.store.oauth_tables import OAuthFlow
from tests.conftest import Write
from tests.faults.conftest import Note
from tests.support.faults.load import open_engine
from tests.support.faults.site import Site, until
from tests.support.peers import ROOT, unavailable

HOUR = timedelta(hours=1)


@pytest.fixture
def clock(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose clock is as far off as the file `clock` says."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        unavailable("libfaketime")
    (tmp_path / "clock").write_text("+0")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "PYTHONPATH": str(ROOT / "tests" / "programs" / "under_faketime"),
    }


def added(site: Site, name: str) -> None:
    body = {
        "server_id": name,
        "server_name": name,
        "transport": "http",
        "url": "http://127.0.0.1:9/mcp",
    }
    answer = site.api("POST", "/v1/mcp/server", json=body)
    assert answer.status_code == 201, answer.text


def looked_at(site: Site, name: str) -> datetime | None:
    """When the server was looked at last; the list contacts nobody itself."""
    answer = site.api("GET", "/v1/mcp/server")
    assert answer.status_code == 200, answer.text
    at = next(
        server["last_health_check"] for server in answer.json() if server["server_id"] == name
    )
    return datetime.fromisoformat(at) if at else None


def stored(site: Site, query: str) -> list[str]:
    engine = open_engine(site.environment["PORTAL_DATABASE_URL"])
    with engine.connect() as connection:
        found = [str(value) for value in connection.scalars(text(query))]
    engine.dispose()
    return found


def test_an_hour_back_ends_no_session_and_stops_no_worker(
    site: Site, clock: dict[str, str], tmp_path: Path, note: Note
) -> None:
    site.environment |= clock
    site.start()
    added(site, "before")
    began = until(lambda: looked_at(site, "before"), "the worker looks at a server")
    with site.signed_in() as browser:
        (tmp_path / "clock").write_text("-1h")
        assert "before" in browser.visit(f"{site.address}/servers").text
        added(site, "after")
        until(
            lambda: looked_at(site, "after"),
            "the worker looks at a server that was added afterwards",
        )
        until(lambda: looked_at(site, "before") < began, "and again at the one of before")  # type: ignore[operator]
        assert (
            browser.http.post(
                f"{site.address}/servers/new", data=site.typed(browser, "typed")
            ).status_code
            == 303
        )
        # Twelve hours from now and idle from now, and not an hour more.
        latest = (
            f"{began - HOUR / 2:%Y-%m-%d %H:%M:%S}",
            f"{began + 12 * HOUR - HOUR / 2:%Y-%m-%d %H:%M:%S}",
        )
        seen = stored(site, "SELECT max(last_seen_at) FROM sessions WHERE user_id IS NOT NULL")
        ends = stored(site, "SELECT max(expires_at) FROM sessions WHERE user_id IS NOT NULL")
        assert (seen[0] < latest[0], ends[0] < latest[1]) == (True, True), (seen, ends, latest)
    assert site.names() == ["after", "before", "typed"]
    assert "Traceback" not in site.processes["serve"].output()
    site.verified()
    note("clock back an hour", "under web processes and worker", 1)


def test_what_ran_out_is_not_valid_again(write: Write, note: Note) -> None:
    with write() as session:
        _, state = begin_flow(session, "sign-in", {}, browser="browser")
        # As it looks to a clock that was put back an hour.
        session.execute(update(OAuthFlow).values(expires_at=now() + HOUR))
        assert take_flow(session, state, kinds=("sign-in",), browser="browser") is None
        sweep_flows(session)
        assert session.query(OAuthFlow).count() == 0
    note("clock back an hour", "with a redirect under way", 1)


@pytest.fixture
def hosts(tmp_path: Path, own_postgres_url: str, clock: dict[str, str]) -> Iterator[list[Site]]:
    """Two hosts with a web master and a worker each; the clock of the second is an hour ahead."""
    with ExitStack() as stack:
        sites = [Site(tmp_path, own_postgres_url) for _ in range(2)]
        (tmp_path / "clock").write_text("+1h")
        sites[1].environment |= clock
        for site in sites:
            stack.callback(site.close)
            site.start()
            site.start("worker")
        yield sites


def test_a_host_an_hour_ahead_signs_nobody_out_and_repeats_no_work(
    hosts: list[Site], note: Note
) -> None:
    right, ahead = hosts
    for first, second in ((right, ahead), (ahead, right)):
        with first.signed_in() as browser:
            for site in (second, first, second, first):
                assert browser.visit(f"{site.address}/servers").url == f"{site.address}/servers"
    added(right, "one")
    added(ahead, "two")
    until(lambda: looked_at(right, "one") and looked_at(right, "two"), "a worker looks at both")
    added(right, "three")
    until(lambda: looked_at(right, "three"), "a worker looks at the third")
    looks = "SELECT count(*) FROM health_records GROUP BY server_id"
    assert stored(right, looks) == ["1", "1", "1"]
    right.verified()
    ahead.verified()
    for site in hosts:
        assert (
            "Traceback" not in site.processes["serve"].output() + site.processes["worker"].output()
        )
    note("a host an hour ahead", "sign-ins, requests, writes and probes on both hosts", 1)
