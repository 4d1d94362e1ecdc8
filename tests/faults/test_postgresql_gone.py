"""PostgreSQL is stopped and started again while the portal serves."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.faults.conftest import Note
from tests.support.faults.postgres import OwnPostgres, own_postgres
from tests.support.faults.site import BY_KEY, Site, is_alive, until

ROUNDS = 2
SERVER = {
    "server_id": "before",
    "server_name": "before",
    "transport": "http",
    "url": "http://127.0.0.1:9/mcp",
}


@pytest.fixture
def postgres() -> Iterator[OwnPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="portal-faults-", dir="/tmp"))
    try:
        with own_postgres(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def started(tmp_path: Path, postgres: OwnPostgres) -> Iterator[Site]:
    site = Site(tmp_path, postgres.url)
    site.start()
    site.start("worker")
    yield site
    site.close()


def test_everything_says_so_meanwhile_and_goes_on_afterwards(
    started: Site, postgres: OwnPostgres, note: Note
) -> None:
    address = started.address
    asked = 0
    assert started.api("POST", "/v1/mcp/server", json=SERVER).status_code == 201
    # A process that is still starting ends without a database, and is started again by whoever
    # looks after it.
    until(lambda: is_looked_at(started, "before"), "the worker is at work")
    with started.signed_in() as browser:
        typed = started.typed(browser, "typed")
        for _ in range(ROUNDS):
            postgres.stop()
            piece = {"HX-Request": "true"}
            pages = [
                browser.http.get(f"{address}/servers"),
                browser.http.get(f"{address}/servers", headers=piece),
                browser.http.post(f"{address}/servers/new", data=typed),
                browser.http.post(f"{address}/servers/new", data=typed, headers=piece),
                browser.http.get(f"{address}/login"),
            ]
            programs = [
                started.api("GET", "/v1/mcp/server"),
                started.api("POST", "/v1/mcp/server", json=SERVER),
                httpx2.get(
                    f"{address}/v1/me", headers={"X-API-Key": "sk-nobody-has-this-key-0000"}
                ),
                httpx2.post(
                    f"{address}/oauth/token",
                    data={"grant_type": "authorization_code"},
                    headers=BY_KEY,
                ),
            ]
            for answer in (*pages, *programs):
                assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5"), (
                    answer.text
                )
                assert "is not responding" in answer.text
                assert "set-cookie" not in answer.headers
            assert all(answer.json() for answer in programs)
            assert httpx2.get(f"{address}/healthz").status_code == 200
            assert httpx2.get(f"{address}/readyz").status_code == 503
            asked += len(pages) + len(programs) + 2
            postgres.start()
            # The very next requests: connections of before lie in the pools of both processes.
            for _ in range(16):
                assert started.names() == ["before"]
                assert "before" in browser.visit(f"{address}/servers").text
            assert started.is_ready()
        worker = started.worker_pid()
        assert worker is not None
        assert is_alive(worker)
        due = started.api(
            "POST", "/v1/mcp/server", json={**SERVER, "server_id": "later", "server_name": "later"}
        )
        assert due.status_code == 201
        until(
            lambda: is_looked_at(started, "later"),
            "the worker looks at a server that was added afterwards",
        )
    assert (
        "Traceback"
        not in started.processes["serve"].output() + started.processes["worker"].output()
    )
    started.verified()
    note("PostgreSQL stopped and started", "9 kinds of request, and both probes", asked)


def is_looked_at(site: Site, server_id: str) -> bool:
    """Whether somebody looked at the server; the list contacts nobody itself."""
    listed = site.api("GET", "/v1/mcp/server").json()
    return any(server["last_health_check"] for server in listed if server["server_id"] == server_id)
