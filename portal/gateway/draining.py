"""The requests that a process forwards, and their end when the process stops."""

import asyncio
from collections.abc import Callable
from typing import Any

SECONDS_FOR_CALLS = 15.0
"""How long running calls can continue after the stop. Streams that stay open end at once."""


class Forwarding:
    """A request that is being forwarded by `work`."""

    def __init__(self, work: "asyncio.Future[Any]", stays_open: Callable[[], bool]) -> None:
        self.work, self.stays_open = work, stays_open
        self.is_ended = False

    def end(self) -> None:
        """End the request, because the process stops."""
        if not self.work.done():
            self.is_ended = True
            self.work.cancel()


class UnderWay:
    """The forwarded requests of a process."""

    def __init__(self) -> None:
        self._all: set[Forwarding] = set()

    def add(self, forwarding: Forwarding) -> None:
        """Remember a request, until `remove`."""
        self._all.add(forwarding)

    def remove(self, forwarding: Forwarding) -> None:
        """Forget a request."""
        self._all.discard(forwarding)

    def stop(self, seconds: float) -> None:
        """End streams that stay open at once, and all other requests after `seconds`."""
        for forwarding in tuple(self._all):
            if forwarding.stays_open():
                forwarding.end()
        asyncio.get_running_loop().call_later(seconds, self._end_all)

    def _end_all(self) -> None:
        for forwarding in tuple(self._all):
            forwarding.end()
