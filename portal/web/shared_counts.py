"""The counts of rate limits in Redis, which all processes share; without it each process counts for itself.

Redis holds nothing but these counts: what must not be lost is in the database, whatever its life (sessions, OAuth
flows, codes, temporary servers). So Redis may go away, be emptied or come back at any time.
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from limits.storage import MemoryStorage, RedisStorage
from redis.exceptions import RedisError

from portal.telemetry import metrics

log = logging.getLogger("portal.redis")
T = TypeVar("T")

SCHEME = "portal"
_PATIENCE = 0.25
_LOOK_AGAIN = 1.0


class SharedCounts(RedisStorage):
    """flask-limiter's storage, named `portal:redis://…`; never raises for Redis' sake.

    The first request that Redis does not answer waits 250 ms at most. From then on this process counts in its own
    memory, with half of each limit, for it knows nothing of the others (R-RATE-04). A thread looks once a second
    whether Redis is back, so that no request has to.
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - the library's way to register

    def __init__(self, uri: str, **_options: object) -> None:
        super().__init__(
            uri.removeprefix(f"{SCHEME}:"), key_prefix="portal", socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE, retry=None,  # type: ignore[arg-type]
        )  # fmt: skip
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
        """Whether Redis takes a count now, asked with the same patience; where it is known to be away, without asking.

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
        log.warning("Redis is away (%s): each process counts for itself, half of each limit", type(error).__name__)
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


def _half(limit: int) -> int:
    return max(1, limit // 2)
