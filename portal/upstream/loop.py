"""The background asyncio loop of a process, for synchronous code that waits for upstreams.

A loop per request would cost a TLS context and 50 ms, and increase the latency of concurrent
requests.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from portal.domain.errors import Busy, UpstreamTimeout

T = TypeVar("T")

# Host names are resolved in threads, which cannot be interrupted. There are enough of them that
# unresponsive resolvers do not block the rest.
RESOLVER_THREADS = 32
# Maximum wait of a caller for a free place: long enough for normal upstreams, short for pages.
TURN_SECONDS = 0.5


class _Places:
    """Limit of callers that wait at the same time, or no limit for None.

    After one caller has waited in vain, the next ones fail immediately until a place is free.
    """

    def __init__(self, most: int | None) -> None:
        self._free = None if most is None else threading.BoundedSemaphore(most)
        self._all_hang = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        if self._free is None:
            yield
            return
        if not self._free.acquire(timeout=0 if self._all_hang else TURN_SECONDS):
            self._all_hang = True
            raise Busy(
                "Too many requests are waiting for MCP servers that do not respond. Try again in a"
                " few seconds."
            )
        try:
            yield
        finally:
            self._all_hang = False
            self._free.release()


_places = _Places(None)


def limit(most: int) -> None:
    """Limit the callers of this process that wait at the same time; others get `Busy`.

    The remaining threads serve requests that need no upstream.
    """
    global _places
    _places = _Places(most)


class _Background:
    """The loop of this process, which starts on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = self._start()
            return self._loop

    @staticmethod
    def _start() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_default_executor(
            ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="upstream-resolver")
        )
        threading.Thread(target=loop.run_forever, name="upstream", daemon=True).start()
        return loop


_background = _Background()


def _forget() -> None:
    # A fork copies the loop without its thread, and possibly a locked lock. The child starts with
    # a new loop.
    global _background
    _background = _Background()


os.register_at_fork(after_in_child=_forget)


def run(coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
    """Run `coroutine` on the background loop and return its result, within `timeout` seconds.

    Raises the exceptions of the coroutine, `Busy` if too many callers wait, and `UpstreamTimeout`
    after the timeout. The coroutine is canceled after the timeout, and if the waiting thread is
    interrupted. Must not be called from the loop itself, which would deadlock.
    """
    loop = _background.loop()
    if _running_on(loop):
        coroutine.close()
        raise RuntimeError("run() was called from the background loop itself")
    try:
        with _places.taken():
            return _waited(asyncio.run_coroutine_threadsafe(coroutine, loop), timeout)
    except Busy:
        coroutine.close()
        raise


async def elsewhere(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` on the background loop, for another loop that its work must not delay.

    If the caller is canceled, the coroutine is canceled, too.
    """
    running = asyncio.run_coroutine_threadsafe(coroutine, _background.loop())
    return await asyncio.wrap_future(running)


def _waited(future: Future[T], timeout: float) -> T:
    try:
        return future.result(timeout)
    except TimeoutError:
        if future.done():  # raised by the coroutine itself
            raise
        raise UpstreamTimeout(f"No response within {timeout:g} s.") from None
    finally:
        future.cancel()


def _running_on(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
