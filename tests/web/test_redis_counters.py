"""Rate limits over two portal processes and one Redis, which hangs, dies and comes back."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import requests

from tests.cli.test_cli import wait_until
from tests.support.peers import (
    StartedProcess,
    bare_environment,
    free_port,
    start_process,
    unavailable,
)

LIMIT = 30  # of GET /login/{provider}, a minute and address
AWAY = "unavailable: rate limits are counted per process"
SECONDS = 30.0


class Pair:
    """Two processes of one operator, and the Redis between them."""

    def __init__(self, folder: Path, redis_server: str) -> None:
        self._binary, self._folder, self.redis_port = redis_server, folder, free_port()
        self.processes: list[tuple[str, StartedProcess]] = []

    def start_redis(self, running: ExitStack) -> StartedProcess:
        argv = [
            self._binary,
            "--port",
            str(self.redis_port),
            "--save",
            "",
            "--dir",
            str(self._folder),
        ]
        return running.enter_context(start_process(argv, bare_environment(), self.redis_port))

    def start_portals(self, running: ExitStack) -> None:
        for name in ("one", "two"):
            port = free_port()
            environment = bare_environment(
                PORTAL_DATABASE_URL=f"sqlite:///{self._folder / name / 'portal.db'}",
                PORTAL_SECRET_KEY="the same for both processes of one operator",
                PORTAL_REDIS_URL=f"redis://127.0.0.1:{self.redis_port}/0",
                PORTAL_CHEAP_HASHING="true",
                PORTAL_METRICS="true",
            )
            argv = [
                sys.executable,
                "-m",
                "portal.cli",
                "serve",
                "--workers",
                "1",
                "--port",
                str(port),
            ]
            started = running.enter_context(start_process(argv, environment, port, seconds=60))
            self.processes.append((f"http://127.0.0.1:{port}", started))

    def tries(self, count: int) -> list[int]:
        """The statuses of `count` tries, by turns at the one and the other."""
        addresses = [self.processes[turn % 2][0] for turn in range(count)]
        return [
            requests.get(f"{address}/login/nobody", timeout=10).status_code for address in addresses
        ]

    def told(self) -> set[str]:
        """What /readyz of each says of Redis; all of them are ready."""
        answers = [requests.get(f"{address}/readyz", timeout=10) for address, _ in self.processes]
        assert [answer.status_code for answer in answers] == [200, 200]
        return {answer.json()["redis"] for answer in answers}

    def away(self) -> list[bool]:
        """Whether the metrics of each tell that Redis is away."""
        texts = [
            requests.get(f"{address}/metrics", timeout=10).text for address, _ in self.processes
        ]
        return ["portal_redis_away 1.0" in text for text in texts]

    def wait_for(self, word: str) -> None:
        assert wait_until(lambda: self.told() == {word}, self.processes[0][1].process, SECONDS), (
            self.told()
        )


@pytest.fixture(scope="module")
def redis_server() -> str:
    binary = Path("/usr/bin/redis-server")
    return str(binary) if binary.exists() else unavailable("redis-server")


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_limits_are_shared_and_outlive_redis(
    tmp_path: Path, redis_server: str, running: ExitStack
) -> None:
    """One story, for starting two portals takes seconds: shared, hanging, back, killed, back."""
    pair = Pair(tmp_path, redis_server)
    first_redis = pair.start_redis(running)
    pair.start_portals(running)
    assert pair.told() == {"ok"}
    assert pair.tries(LIMIT + 6) == [404] * LIMIT + [429] * 6, "both count together"
    store = redis.Redis(port=pair.redis_port)
    names = [key.decode() for key in store.scan_iter()]
    assert [name for name in names if "sign_in.start" in name] == [
        "portal:LIMITER/127.0.0.1/sign_in.start/30/1/minute"
    ]

    first_redis.process.send_signal(signal.SIGSTOP)
    # Half of the limit in each process: nobody is locked out for Redis' sake, and nothing is
    # unlimited.
    assert pair.tries(LIMIT + 6) == [404] * LIMIT + [429] * 6
    assert pair.told() == {AWAY}
    assert pair.away() == [True, True]
    first_redis.process.send_signal(signal.SIGCONT)
    pair.wait_for("ok")
    assert pair.tries(2) == [429, 429], "what was counted before still counts"

    first_redis.process.kill()
    first_redis.process.wait()
    assert pair.tries(2) == [404, 404]
    pair.wait_for(AWAY)
    pair.start_redis(running)
    pair.wait_for("ok")
    assert pair.tries(LIMIT + 6) == [404] * LIMIT + [429] * 6, "an empty Redis begins anew"
    assert pair.away() == [False, False]
    for _, started in pair.processes:
        assert started.output().count("Redis unavailable") == 2, started.output()
        assert started.output().count("Redis available") == 2, started.output()
