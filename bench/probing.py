"""The grid's rate while a worker checks a thousand servers that are down."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, create_engine, text

from bench import running
from bench.measuring import Target, press
from bench.questions import page_of
from bench.seeding import ADMIN, seal_url, seed
from portal.services.servers.grid import PAGE_SIZE

DEAD = 1_000
_SECONDS = 6.0
_PATIENCE = 60.0
_NOBODY = "http://127.0.0.1:9/mcp"
_PLAIN = (
    "delete from server_variables",
    "delete from server_secrets where field = 'static_headers'",
    "update servers set auth_type = 'none', is_byok = false",
)


@dataclass(frozen=True)
class Kept:
    """The grid's requests a second without and with the checks, and the checks a second."""

    alone: float
    beside: float
    checked: float

    @property
    def share(self) -> float:
        """The share of its rate that the grid kept."""
        return self.beside / self.alone


def measure_beside_checks(folder: Path) -> Kept:
    """Measure the rate before, during and after checks.

    The worker is the one that `portal serve` runs on SQLite, and always has servers to check.
    """
    seeded = seed(folder, DEAD, PAGE_SIZE)
    engine = create_engine(seeded.environment["PORTAL_DATABASE_URL"], connect_args={"timeout": 30})
    with engine.begin() as connection:
        for statement in _PLAIN:
            connection.execute(text(statement))
        for number in range(DEAD):
            seal_url(connection, number, _NOBODY)
    with running.portal({**seeded.environment, "PORTAL_ALLOW_PRIVATE_UPSTREAMS": "true"}) as portal:
        before, beside, after = (
            Target.get("grid", portal, "/servers", page_of(ADMIN)) for _ in range(3)
        )
        press([before], at_once=2, seconds=_SECONDS, rounds=1)
        with _all_due(engine) as checks:
            press([beside], at_once=2, seconds=_SECONDS, rounds=1)
            checked = checks()
        press([after], at_once=2, seconds=_SECONDS, rounds=1)
    engine.dispose()
    return Kept((before.rate + after.rate) / 2, beside.rate, checked)


@contextlib.contextmanager
def _all_due(engine: Engine) -> Iterator[Callable[[], float]]:
    """Make all servers due all the time; yield a function that returns checks per second."""
    stopped = threading.Event()

    def due(at: datetime) -> None:
        with engine.begin() as connection:
            connection.execute(
                text("update servers set probe_due_at = :at"), {"at": at.isoformat(" ")}
            )

    def keep() -> None:
        while not stopped.wait(1):
            due(datetime.now(UTC) - timedelta(seconds=1))

    def checks() -> float:
        with engine.connect() as connection:
            done = connection.execute(text("select count(*) from health_records")).scalar_one()
        return float(done) / (time.monotonic() - begin)

    due(datetime.now(UTC) - timedelta(seconds=1))
    keeper = threading.Thread(target=keep)
    keeper.start()
    begin = time.monotonic()
    while not checks():  # the worker checks every two seconds
        time.sleep(0.05)
        if time.monotonic() - begin > _PATIENCE:
            raise SystemExit("the worker checked nothing")
    begin = time.monotonic()
    try:
        yield checks
    finally:
        stopped.set()
        keeper.join()
        due(datetime.now(UTC) + timedelta(days=1))
