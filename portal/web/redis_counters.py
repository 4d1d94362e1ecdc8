"""Shared counters of rate limits in Redis.

Redis contains only these counters. Everything else, including short-lived data (sessions, OAuth
flows, codes, temporary servers), is in the database. So Redis may fail or lose data at any time.
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from limits.storage import MemoryStorage, RedisStorage
from redis.exceptions import RedisError

from portal.telemetry import metrics
from portal.web.database_counters import half_of

log = logging.getLogger("portal.redis")
T = TypeVar("T")

SCHEME = "portal"
_PATIENCE = 0.25
_LOOK_AGAIN = 1.0


class RedisCounters(RedisStorage):
    """flask-limiter storage `portal:redis://…`, which does not raise Redis errors.

    If Redis does not respond, one request waits at most 250 ms. The process then counts in its own
    memory with half of each limit, since it does not know the counts of other processes. A thread
    checks once per second whether Redis is available again.
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - required by the library

    def __init__(self, uri: str, **_options: object) -> None:
        super().__init__(
            uri.removeprefix(f"{SCHEME}:"),
            key_prefix="portal",
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            retry=None,  # type: ignore[arg-type]
        )
        self._own = MemoryStorage()
        self._away = threading.Event()
        self._lock = threading.Lock()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count one request, and return whether it is within the limit."""
        return self._shared_or_own(
            lambda: super(RedisCounters, self).acquire_entry(key, limit, expiry, amount),
            lambda: self._own.acquire_entry(key, half_of(limit), expiry, amount),
        )

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the oldest counted request (Unix time, seconds) and the count."""
        return self._shared_or_own(
            lambda: super(RedisCounters, self).get_moving_window(key, limit, expiry),
            lambda: self._own.get_moving_window(key, half_of(limit), expiry),
        )

    def check(self) -> bool:
        """Return whether Redis is available, without a request if it is known to be unavailable.

        It counts once instead of using `PING`, which also succeeds on a full or read-only Redis.
        """
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
            "Redis unavailable (%s): each process counts separately with half of each limit",
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
        log.warning("Redis available: limits are shared again")

    def _counts(self) -> bool:
        try:
            super().acquire_entry("readiness", 1, 1)
        except (RedisError, OSError):
            return False
        return True
