"""Two workers share what is due, and one that is killed or stalls leaves it to the other (R-MP-05)."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.store.database import Database
from portal.store.models import HealthRecord, Server, now
from tests.cluster.topology import Cluster
from tests.cluster.upstream import Upstream, upstreams
from tests.factories import make_server

MANY = 100
ONE_WORKERS_MOST = 16  # servers that one worker asks side by side
HELLO = "server/discover"  # what the portal says first
LEASE = timedelta(minutes=2)
WriteThere = Callable[[], AbstractContextManager[Session]]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstreams() as made:
        yield made


@pytest.fixture
def both(running: Cluster) -> Iterator[Cluster]:
    """The cluster, with both workers running before and after."""
    yield running
    for worker in running.workers:
        if worker.is_running:
            worker.kill()
        worker.start()


def probes(upstream: Upstream, name: str) -> int:
    return upstream.asked[name, HELLO]


def stored(database: Database, server_id: str) -> Any:
    with database.session() as session:
        columns = (Server.health_status, Server.probe_due_at, Server.probe_started_at)
        return session.execute(select(*columns).where(Server.server_id == server_id)).one()


def looks(database: Database, server_id: str) -> list[str]:
    with database.session() as session:
        found = select(HealthRecord.status).where(HealthRecord.server_id == server_id).order_by(HealthRecord.checked_at)
        return list(session.scalars(found))


def lease_is_over(write_there: WriteThere, server_id: str) -> None:
    """What two minutes do."""
    with write_there() as session:
        session.execute(update(Server).where(Server.server_id == server_id).values(probe_due_at=now()))


def test_each_due_server_is_probed_by_one_of_two_workers(
    both: Cluster, upstream: Upstream, write_there: WriteThere, its_database: Database
) -> None:
    for worker in both.workers:
        worker.signal(signal.SIGSTOP)
    with write_there() as session:
        for number in range(MANY):
            make_server(session, f"many{number}", url=upstream.url(f"many{number}"))
    upstream.answers.clear()
    for worker in both.workers:
        worker.signal(signal.SIGCONT)
    assert upstream.until(lambda: upstream.together > ONE_WORKERS_MOST), "both are at it"
    upstream.answers.set()
    assert upstream.until(lambda: all(upstream.asked[f"many{number}", "tools/list"] for number in range(MANY)))
    for number in range(MANY):
        name = f"many{number}"
        assert looks(its_database, f"id-{name}") == ["healthy"]
        assert upstream.asked[name, "tools/list"] == 1, "its tools are compared once, too"
        assert upstream.asked[name, HELLO] == 2, "once for each of them"


def test_what_a_killed_worker_had_claimed_is_the_others_after_the_lease(
    both: Cluster, upstream: Upstream, write_there: WriteThere, its_database: Database
) -> None:
    first, second = both.workers
    second.stop()
    upstream.answers.clear()
    with write_there() as session:
        make_server(session, "orphan", url=upstream.url("orphan"))
    assert upstream.until(lambda: probes(upstream, "orphan") == 1)
    first.kill()
    claimed = stored(its_database, "id-orphan")
    assert claimed.probe_due_at == claimed.probe_started_at + LEASE
    upstream.answers.set()
    second.start()
    lease_is_over(write_there, "id-orphan")
    assert upstream.until(lambda: probes(upstream, "orphan") == 2)
    await_health(upstream, its_database, "id-orphan", "healthy")


def test_what_a_worker_saw_before_it_stalled_is_not_written_over_what_another_saw_since(
    both: Cluster, upstream: Upstream, write_there: WriteThere, its_database: Database
) -> None:
    first, second = both.workers
    second.stop()
    upstream.answers.clear()
    upstream.status = 500
    with write_there() as session:
        make_server(session, "stalled", url=upstream.url("stalled"))
    assert upstream.until(lambda: probes(upstream, "stalled") == 1)
    first.signal(signal.SIGSTOP)
    upstream.status = 200
    upstream.answers.set()
    second.start()
    lease_is_over(write_there, "id-stalled")
    await_health(upstream, its_database, "id-stalled", "healthy")
    second.stop()
    first.signal(signal.SIGCONT)
    with write_there() as session:
        make_server(session, "next", url=upstream.url("next"))
    await_health(upstream, its_database, "id-next", "healthy")  # it has ended its round, and begun another
    assert looks(its_database, "id-stalled") == ["healthy"]


def await_health(upstream: Upstream, database: Database, server_id: str, status: str) -> None:
    """Look until the stored health is that; the pause between two looks is a wait for the upstream to be asked."""
    end = datetime.now().astimezone() + timedelta(seconds=60)
    while stored(database, server_id).health_status != status:
        assert datetime.now().astimezone() < end, stored(database, server_id)
        upstream.until(lambda: False, 0.05)
