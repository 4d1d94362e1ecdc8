"""One asyncio loop a process, in a thread of its own, for synchronous code that has to wait for other machines.

A loop for each request would cost a TLS context and 50 ms each, and gives bad tails when requests run side by side.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from portal.domain.errors import UpstreamTimeout

T = TypeVar("T")

# Names are resolved in threads that cannot be interrupted: enough of them that dead resolvers do not starve the rest.
RESOLVER_THREADS = 32


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
        loop.set_default_executor(ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="upstream-resolver"))
        threading.Thread(target=loop.run_forever, name="upstream", daemon=True).start()
        return loop


_background = _Background()


def _forget() -> None:
    # A fork copies the loop but not its thread, and maybe a lock that nobody will release: begin anew in the child.
    global _background
    _background = _Background()


os.register_at_fork(after_in_child=_forget)


def run(coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
    """Run `coroutine` on the background loop and wait for its answer, at most `timeout` seconds.

    Raises what the coroutine raises, and UpstreamTimeout when the time is over; the coroutine is cancelled then, as it
    is when the waiting thread is interrupted. Must not be called from the loop itself: it would wait for itself.
    """
    loop = _background.loop()
    if _running_on(loop):
        coroutine.close()
        raise RuntimeError("run() was called from the background loop itself")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
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
