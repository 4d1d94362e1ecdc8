"""Targets that take turns, so that noise affects all alike: one request at a time, or eight."""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.running import Running
from bench.wire import Answer, Connection, Request

_TURN = 10
"""The number of requests per turn; the server's CPU time is read before and after."""


@dataclass(eq=False)
class Target:
    """Something that is requested repeatedly; `make` builds the request from a number.

    Times are in milliseconds.
    """

    name: str
    server: Running
    make: Callable[[int], Request]
    expect: tuple[int, ...] = (200,)
    times: list[float] = field(default_factory=list)
    pressed: list[float] = field(default_factory=list)
    """Times with several requests at once."""
    rate: float = 0.0
    """Requests a second with several at once."""
    size: int = 0
    last: Answer | None = None
    cpu: float = 0.0
    """CPU milliseconds of the server's processes per request."""
    asked: int = 0

    @classmethod
    def get(
        cls, name: str, server: Running, path: str, headers: dict[str, str] | None = None
    ) -> "Target":
        """Return a target with the same address every time."""
        request = Request(path, headers or {})
        return cls(name, server, lambda _: request)

    async def ask(self, connection: Connection) -> float:
        """Send one request, and return its milliseconds. Exits for an unexpected status."""
        request = self.make(self.asked)
        self.asked += 1
        self.last, taken = await connection.ask(request)
        if self.last.status not in self.expect:
            raise SystemExit(
                f"{self.name}: {request.method} {request.path} returned {self.last.status}:"
                f" {self.last.body[:300]!r}"
            )
        self.size = len(self.last.body)
        return taken

    @property
    def p50(self) -> float:
        """The median, one request at a time."""
        return statistics.median(self.times)

    @property
    def p99(self) -> float:
        """The 99th percentile, one request at a time."""
        return percentile(self.times, 99)


def percentile(times: Sequence[float], percent: int) -> float:
    """Return the percentile `percent` of the times."""
    if len(times) < 2:
        return sum(times)
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


def measure(targets: Sequence[Target], requests: int, *, warm_up: int = 5) -> None:
    """Send `requests` requests to each target, one at a time, in turns of alternating order."""
    asyncio.run(_quietly(_measure(targets, requests, warm_up)))


def press(targets: Sequence[Target], *, at_once: int, seconds: float, rounds: int = 2) -> None:
    """Send requests to each target from `at_once` connections, `seconds` per round, in turns."""
    asyncio.run(_quietly(_press(targets, at_once, seconds, rounds)))


async def _quietly(work: Awaitable[None]) -> None:
    """Run the work without garbage collection."""
    gc.collect()
    gc.disable()
    try:
        await work
    finally:
        gc.enable()


async def _measure(targets: Sequence[Target], requests: int, warm_up: int) -> None:
    connections = [Connection(target.server.port) for target in targets]
    pairs = list(zip(targets, connections, strict=True))
    for target, connection in pairs:
        for _ in range(warm_up):
            await target.ask(connection)
    spent = dict.fromkeys(map(id, targets), 0.0)
    for turn in range(0, requests, _TURN):
        for target, connection in pairs if turn // _TURN % 2 else reversed(pairs):
            before = target.server.cpu_seconds()
            for _ in range(min(_TURN, requests - turn)):
                target.times.append(await target.ask(connection))
            spent[id(target)] += target.server.cpu_seconds() - before
    for target, connection in pairs:
        target.cpu = spent[id(target)] * 1000 / requests
        connection.close()


async def _press(targets: Sequence[Target], at_once: int, seconds: float, rounds: int) -> None:
    for number in range(rounds):
        for target in targets if number % 2 else reversed(targets):
            begin = time.monotonic()
            before = len(target.pressed)
            await asyncio.gather(*(_keep_asking(target, begin + seconds) for _ in range(at_once)))
            target.rate += (len(target.pressed) - before) / (time.monotonic() - begin) / rounds


async def _keep_asking(target: Target, end: float) -> None:
    connection = Connection(target.server.port)
    target.pressed.append(await target.ask(connection))  # at least one
    while time.monotonic() < end:
        target.pressed.append(await target.ask(connection))
    connection.close()
