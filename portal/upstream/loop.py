"""One asyncio loop a process, in a thread of its own, for synchronous code that has to wait for
other machines.

A loop for each request would cost a TLS context and 50 ms each, and gives bad tails when requests
run side by side.
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

# Names are resolved in threads that cannot be interrupted: enough of them that dead resolvers do
# not starve the rest.
RESOLVER_THREADS = 32


# How long a caller waits for its turn: long enough for upstreams that answer, short for pages that
# wait behind it.
TURN_SECONDS = 0.5


class _Places:
    """How many callers of this process may wait at once; without a number all may.

    When one has waited for its turn in vain the next ones are sent away at once, until somebody is
    done.
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
                "Too many requests are waiting for MCP servers that do not answer. Try again in a"
                " few seconds."
            )
        try:
            yield
        finally:
            self._all_hang = False
            self._free.release()


_places = _Places(None)


def limit(most: int) -> None:
    """From here on at most `most` callers of this process wait at once, so that its other threads
    serve what asks no upstream; the next ones get `Busy`."""
    global _places
    _places = _Places(most)


class _Background:
    """The loop of this process, started at its first use."""

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
    # A fork copies the loop but not its thread, and maybe a lock that nobody will release: begin
    # anew in the child.
    global _background
    _background = _Background()


os.register_at_fork(after_in_child=_forget)


def run(coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
    """Run `coroutine` on the background loop and wait for its answer, at most `timeout` seconds.

    Raises what the coroutine raises, Busy where too many wait, and UpstreamTimeout when the time is
    over; the coroutine is cancelled then, as it is when the waiting thread is interrupted. Must not
    be called from the loop itself: it would wait for itself.
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


def _waited(future: Future[T], timeout: float) -> T:
    try:
        return future.result(timeout)
    except TimeoutError:
        if future.done():  # the coroutine's own
            raise
        raise UpstreamTimeout(f"There was no answer within {timeout:g} s.") from None
    finally:
        future.cancel()


def _running_on(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
