"""One background loop a process, that a fork does not break."""

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from portal.domain.errors import UpstreamTimeout
from portal.upstream.loop import run
from tests.support.upstream.raw import PROMPT


async def _thread() -> int:
    return threading.get_ident()


def test_everything_runs_on_one_loop_beside_the_caller() -> None:
    with ThreadPoolExecutor(4) as pool:
        threads = set(pool.map(lambda _: run(_thread(), 5), range(8)))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_what_the_coroutine_raises_comes_out() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(fail(), 5)


def test_a_coroutine_that_takes_too_long_is_cancelled() -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    began = time.monotonic()
    with pytest.raises(UpstreamTimeout, match=r"0\.05 s"):
        run(hang(), 0.05)
    assert cancelled.wait(PROMPT)
    assert time.monotonic() - began < PROMPT


def test_a_time_out_of_the_coroutine_itself_is_not_mistaken_for_ours() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        run(fail(), 5)


def test_the_loop_does_not_wait_for_itself() -> None:
    async def nested() -> None:
        run(_thread(), 1)

    with pytest.raises(RuntimeError, match="itself"):
        run(nested(), 5)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_worker_gets_a_loop_of_its_own() -> None:
    """gunicorn loads the app, maybe uses the loop, and forks: the copy of the loop has no thread
    behind it."""
    run(_thread(), 5)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run(_thread(), 5)
            os.write(writing, b"answered")
        finally:
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 100) == b"answered"
    os.close(reading)
    os.waitpid(child, 0)
    assert run(_thread(), 5)
