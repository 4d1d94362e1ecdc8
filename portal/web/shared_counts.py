"""The counts of rate limits, which all processes share: in Redis, or where none is set in the
database.

Redis holds nothing but these counts: what must not be lost is in the database, whatever its life
(sessions, OAuth flows, codes, temporary servers). So Redis may go away, be emptied or come back at
any time.
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from flask import current_app, g, has_app_context
from limits.storage import MemoryStorage, MovingWindowSupport, RedisStorage, Storage
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from portal.store import counts
from portal.store.database import release
from portal.store.faults import fault_of
from portal.telemetry import metrics

log = logging.getLogger("portal.redis")
T = TypeVar("T")

SCHEME = "portal"
IN_DATABASE = "portal-database://"
_PATIENCE = 0.25
_LOOK_AGAIN = 1.0


class SharedCounts(RedisStorage):
    """flask-limiter's storage, named `portal:redis://…`; never raises for Redis' sake.

    The first request that Redis does not answer waits 250 ms at most. From then on this process
    counts in its own memory, with half of each limit, for it knows nothing of the others. A thread
    looks once a second whether Redis is back, so that no request has to.
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - the library's way to register

    def __init__(self, uri: str, **_options: object) -> None:
        super().__init__(
            uri.removeprefix(f"{SCHEME}:"),
            key_prefix="portal",
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            retry=None,  # type: ignore[arg-type]
        )
        self._own = MemoryStorage()
        self._away, self._lock = threading.Event(), threading.Lock()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count one more try; whether it is within the limit."""
        return self._shared_or_own(
            lambda: super(SharedCounts, self).acquire_entry(key, limit, expiry, amount),
            lambda: self._own.acquire_entry(key, _half(limit), expiry, amount),
        )

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest try that still counts was (seconds since 1970), and how many count."""
        return self._shared_or_own(
            lambda: super(SharedCounts, self).get_moving_window(key, limit, expiry),
            lambda: self._own.get_moving_window(key, _half(limit), expiry),
        )

    def check(self) -> bool:
        """Whether Redis takes a count now, asked with the same patience; where it is known to be
        away, without asking.

        Counting is tried, not `PING`: a Redis that is full or read-only answers that."""
        return not self._away.is_set() and self._counts()

    def _shared_or_own(self, shared: Callable[[], T], own: Callable[[], T]) -> T:
        if not self._away.is_set():
            try:
                return shared()
            except (RedisError, OSError) as error:
                self._go_away(error)
        return own()

    def _go_away(self, error: Exception) -> None:
        with self._lock:
            if self._away.is_set():
                return
            self._away.set()
            metrics.move("portal_redis_away", 1)
        log.warning(
            "Redis is away (%s): each process counts for itself, half of each limit",
            type(error).__name__,
        )
        threading.Thread(target=self._watch, name="redis-watch", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while not self._counts():
            pause.wait(_LOOK_AGAIN)
        self._own.reset()
        self._away.clear()
        metrics.move("portal_redis_away", -1)
        log.warning("Redis is back: limits are shared again")

    def _counts(self) -> bool:
        try:
            super().acquire_entry("readiness", 1, 1)
        except (RedisError, OSError):
            return False
        return True


class DatabaseCounts(Storage, MovingWindowSupport):
    """flask-limiter's storage where no Redis is set: the database of the application that asks, for
    all its processes.

    Each try is one statement in a short transaction of its own, so that it counts whatever becomes
    of the request, and the request's own transaction ends before: on SQLite it may hold the lock
    that is needed here. Where the database is locked, full or gone, this process counts in its own
    memory, half of each limit, as without Redis.
    """

    STORAGE_SCHEME = ["portal-database"]  # noqa: RUF012 - the library's way to register
    base_exceptions = SQLAlchemyError

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **_options: object
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._own = MemoryStorage()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count one more try; whether it is within the limit."""
        return self._shared_or_own(
            lambda session: counts.count_try(session, key, limit, expiry, amount),
            lambda: self._own.acquire_entry(key, _half(limit), expiry, amount),
        )

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Since when the tries that still count do so (seconds since 1970), and how many count."""
        return self._shared_or_own(
            lambda session: counts.tries_of(session, key, limit, expiry),
            lambda: self._own.get_moving_window(key, _half(limit), expiry),
        )

    def reset(self) -> int | None:
        """Forget all counts: those in memory, and within an application those of its database."""
        self._own.reset()
        if has_app_context():
            self._shared_or_own(counts.forget_counts, lambda: None)
        return None

    def check(self) -> bool:
        """Always: where the database does not answer, tries are counted all the same."""
        return True

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Not used: it counts fixed windows."""
        raise NotImplementedError

    get = get_expiry = clear = incr  # type: ignore[assignment]

    @staticmethod
    def _shared_or_own(shared: Callable[[Session], T], own: Callable[[], T]) -> T:
        if "session" in g:
            release(g.session)
        try:
            with current_app.extensions["database"].counting() as session:
                return shared(session)
        except SQLAlchemyError as error:
            fault = fault_of(error)
            if fault is None:
                raise
            log.warning(
                "the database is %s: this process counts for itself, half of each limit", fault
            )
            metrics.count("portal_database_failures_total", fault)
            return own()


def _half(limit: int) -> int:
    return max(1, limit // 2)
