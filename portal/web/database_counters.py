"""Shared counters of rate limits in the portal's database, without Redis."""

import logging
from collections.abc import Callable
from typing import TypeVar

from flask import current_app, g, has_app_context
from limits.storage import MemoryStorage, MovingWindowSupport, Storage
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from portal.store import rate_counters
from portal.store.database import release
from portal.store.faults import fault_of
from portal.telemetry import metrics

log = logging.getLogger("portal.redis")
T = TypeVar("T")

URL = "portal-database://"


class DatabaseCounters(Storage, MovingWindowSupport):
    """flask-limiter storage in the portal's database, used without Redis.

    Each request is one statement in a short, separate transaction, so that it counts even if the
    request fails. The request's own transaction ends first, since on SQLite it may hold the write
    lock. If the database is locked, full or unavailable, the process counts in its own memory with
    half of each limit.
    """

    STORAGE_SCHEME = ["portal-database"]  # noqa: RUF012 - required by the library
    base_exceptions = SQLAlchemyError

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **_options: object
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._own = MemoryStorage()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count one request, and return whether it is within the limit."""
        return self._shared_or_own(
            lambda session: rate_counters.count_try(session, key, limit, expiry, amount),
            lambda: self._own.acquire_entry(key, half_of(limit), expiry, amount),
        )

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the oldest counted request (Unix time, seconds) and the count."""
        return self._shared_or_own(
            lambda session: rate_counters.tries_of(session, key, limit, expiry),
            lambda: self._own.get_moving_window(key, half_of(limit), expiry),
        )

    def reset(self) -> int | None:
        """Delete all counts: those in memory and, in an application context, in its database."""
        self._own.reset()
        if has_app_context():
            self._shared_or_own(rate_counters.forget_counts, lambda: None)
        return None

    def check(self) -> bool:
        """Return True: requests are also counted if the database is unavailable."""
        return True

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Raise `NotImplementedError`: fixed windows are not supported."""
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
                "database fault %s: this process counts separately with half of each limit", fault
            )
            metrics.count("portal_database_failures_total", fault)
            return own()


def half_of(limit: int) -> int:
    """Return the limit of a process that counts alone."""
    return max(1, limit // 2)
