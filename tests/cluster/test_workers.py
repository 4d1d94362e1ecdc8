"""Two workers share what is due, and one that is killed or stalls leaves it to the other
(R-MP-05)."""

import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from portal.store.database import Database
from portal.store.models import HealthRecord, Server, now
from tests.conftest import Write
from tests.support.cluster.topology import Cluster
from tests.support.cluster.upstream import Upstream, upstreams
from tests.support.factories import make_server

MANY = 100
ONE_WORKERS_MOST = 16  # servers that one worker asks side by side
HELLO = "server/discover"  # what the portal says first
LEASE = timedelta(minutes=2)


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


def stored(database: Database, server_id: str) -> Any:
    with database.session() as session:
        columns = (Server.health_status, Server.probe_due_at, Server.probe_started_at)
        return session.execute(select(*columns).where(Server.server_id == server_id)).one()


def looks(database: Database, server_id: str) -> list[str]:
    with database.session() as session:
        found = (
            select(HealthRecord.status)
            .where(HealthRecord.server_id == server_id)
            .order_by(HealthRecord.checked_at)
        )
        return list(session.scalars(found))


def only_the_first_begins(both: Cluster, upstream: Upstream, write: Write, name: str) -> None:
    """The first worker has claimed a new server, and waits for its answer."""
    both.workers[1].stop()
    upstream.answers.clear()
    with write() as session:
        make_server(session, name, url=upstream.url(name))
    assert upstream.until(lambda: upstream.asked[name, HELLO] == 1)


def lease_is_over(write: Write, server_id: str) -> None:
    """What two minutes do."""
    with write() as session:
        session.execute(
            update(Server).where(Server.server_id == server_id).values(probe_due_at=now())
        )


def test_each_due_server_is_probed_by_one_of_two_workers(
    both: Cluster, upstream: Upstream, write: Write, database: Database
) -> None:
    for worker in both.workers:
        worker.signal(signal.SIGSTOP)
    with write() as session:
        for number in range(MANY):
            make_server(session, f"many{number}", url=upstream.url(f"many{number}"))
    upstream.answers.clear()
    for worker in both.workers:
        worker.signal(signal.SIGCONT)
    assert upstream.until(lambda: upstream.together > ONE_WORKERS_MOST), "both are at it"
    upstream.answers.set()
    assert upstream.until(
        lambda: all(upstream.asked[f"many{number}", "tools/list"] for number in range(MANY))
    )
    for number in range(MANY):
        name = f"many{number}"
        assert looks(database, f"id-{name}") == ["healthy"]
        assert upstream.asked[name, "tools/list"] == 1, "its tools are compared once, too"
        assert upstream.asked[name, HELLO] == 2, "once for each of them"


def test_what_a_killed_worker_had_claimed_is_the_others_after_the_lease(
    both: Cluster, upstream: Upstream, write: Write, database: Database
) -> None:
    first, second = both.workers
    only_the_first_begins(both, upstream, write, "orphan")
    first.kill()
    claimed = stored(database, "id-orphan")
    assert claimed.probe_due_at == claimed.probe_started_at + LEASE
    upstream.answers.set()
    second.start()
    lease_is_over(write, "id-orphan")
    assert upstream.until(lambda: upstream.asked["orphan", HELLO] == 2)
    await_health(upstream, database, "id-orphan", "healthy")


def test_what_a_worker_saw_before_it_stalled_is_not_written_over_what_another_saw_since(
    both: Cluster, upstream: Upstream, write: Write, database: Database
) -> None:
    first, second = both.workers
    upstream.status = 500
    only_the_first_begins(both, upstream, write, "stalled")
    first.signal(signal.SIGSTOP)
    upstream.status = 200
    upstream.answers.set()
    second.start()
    lease_is_over(write, "id-stalled")
    await_health(upstream, database, "id-stalled", "healthy")
    second.stop()
    first.signal(signal.SIGCONT)
    with write() as session:
        make_server(session, "next", url=upstream.url("next"))
    await_health(
        upstream, database, "id-next", "healthy"
    )  # it has ended its round, and begun another
    assert looks(database, "id-stalled") == ["healthy"]


def await_health(upstream: Upstream, database: Database, server_id: str, status: str) -> None:
    """Look until the stored health is that; the pause between two looks is a wait for the upstream
    to be asked."""
    end = now() + timedelta(seconds=60)
    while stored(database, server_id).health_status != status:
        assert now() < end, stored(database, server_id)
        upstream.until(lambda: False, 0.05)
