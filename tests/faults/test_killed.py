"""kill -9 of a web process, of the master and of the worker, in the middle of writes."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Note
from tests.support.faults.load import Writers, faults_of, open_engine
from tests.support.faults.site import IN_FULL, Site, children, is_alive, kill, until

SEED = 20261127
# Under `make test` once of each kind and two web processes more; moments are random, so that more
# finds more.
VICTIMS = ["web", "master", "worker", "front", "web"] * (4 if IN_FULL else 1)

COPIES = 20 if IN_FULL else 4


@pytest.fixture(params=["sqlite", "postgresql"])
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    on_files = request.param == "sqlite"
    site = Site(tmp_path, "" if on_files else request.getfixturevalue("own_postgres_url"))
    start(site)
    yield site
    site.close()


def start(site: Site) -> None:
    site.start()
    if not site.embedded:
        site.start("worker")


def hurt(site: Site, victim: str) -> None:
    """Kill one process, and wait until the portal is whole again; what a supervisor would start
    again is started."""
    if victim == "web":
        before = site.web_pids()
        kill(random.choice(before))
        until(
            lambda: len(site.web_pids()) == len(before) and site.web_pids() != before,
            "another web process",
        )
    elif victim == "front":
        front = site.front_pid()
        if front is not None:  # only in embedded mode
            kill(front)
            until(lambda: site.front_pid() not in (None, front), "the front is started again")
    elif victim == "master":
        orphans = children(site.processes["serve"].pid)
        kill(site.processes["serve"].pid)
        site.processes["serve"].process.wait()
        until(
            lambda: not any(map(is_alive, orphans)),
            "web processes and worker end with their master",
        )
        site.stop("serve")
        site.start("serve")
    else:
        worker = site.worker_pid()
        assert worker is not None
        kill(worker)
        if site.embedded:
            until(lambda: site.worker_pid() not in (None, worker), "the worker is started again")
        else:
            site.stop("worker")
            site.start("worker")


def test_what_was_acknowledged_is_whole_after_every_death(started: Site, note: Note) -> None:
    random.seed(SEED)
    writers = Writers(started)
    writers.prepare()
    engine = open_engine(started.environment["PORTAL_DATABASE_URL"])
    for victim in VICTIMS:
        begun = writers.acknowledged.count
        with writers.busy() as acknowledged:
            until(lambda: acknowledged.count > begun + 10, "some writes", seconds=120)  # noqa: B023
            time.sleep(random.uniform(0, 0.2))  # the moment is what varies: nothing is waited for
            hurt(started, victim)
        assert faults_of(engine, acknowledged) == []
    assert started.is_ready()
    engine.dispose()
    started.verified()
    kind = "SQLite" if started.embedded else "PostgreSQL"
    note(
        f"kill -9 under load, {kind}",
        f"web, master, worker; {acknowledged.count} writes",
        len(VICTIMS),
    )


def test_a_copy_of_the_files_has_all_that_was_acknowledged_before(
    site: Site, tmp_path: Path, note: Note
) -> None:
    """As a disk is after a loss of power: everything stands still, the files are copied, and the
    copies are opened."""
    random.seed(SEED)
    site.start()
    writers = Writers(site)
    writers.prepare()
    copies = []
    with writers.busy() as acknowledged:
        for number in range(COPIES):
            begun = acknowledged.count
            until(lambda: acknowledged.count > begun + 10, "some writes", seconds=120)  # noqa: B023
            time.sleep(random.uniform(0, 0.2))
            copy = tmp_path / f"copy{number}"
            copy.mkdir()
            known = acknowledged.so_far()
            os.killpg(site.processes["serve"].pid, signal.SIGSTOP)
            for name in (
                "portal.db",
                "portal.db-wal",
                "portal.db.revocations",
                "portal.db.revocations.head",
            ):
                shutil.copyfile(tmp_path / name, copy / name)
            known.to_delete = set(acknowledged.to_delete)
            os.killpg(site.processes["serve"].pid, signal.SIGCONT)
            copies.append((Site(copy), known))
    for copied, known in copies:
        engine = open_engine(copied.environment["PORTAL_DATABASE_URL"])
        assert faults_of(engine, known) == []
        engine.dispose()
    copied.verified()
    note("loss of power, SQLite", f"copies under load; {acknowledged.count} writes", COPIES)
