"""Cold start and memory: the time from the command to the first page, and memory afterwards."""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from bench.running import Running
from bench.wire import Connection, Request

_STARTS = 5
_PAGES = 100
Start = Callable[[], AbstractContextManager[Running]]


@dataclass
class Started:
    """Seconds from each start to the first page, and resident megabytes after 100 pages."""

    seconds: list[float] = field(default_factory=list)
    serving: list[float] = field(default_factory=list)
    everything: list[float] = field(default_factory=list)

    @property
    def start(self) -> float:
        """The median start, in seconds."""
        return statistics.median(self.seconds)


def measure_starts(
    starts: Mapping[str, tuple[Start, Request]], times: int = _STARTS
) -> dict[str, Started]:
    """Start each several times, in turns."""
    found = {name: Started() for name in starts}
    for number in range(times):
        for name in starts if number % 2 else reversed(starts):
            start, request = starts[name]
            begin = time.perf_counter()
            with start() as running:
                asyncio.run(_pages(running.port, request, 1, begin + 120))
                found[name].seconds.append(time.perf_counter() - begin)
                asyncio.run(_pages(running.port, request, _PAGES, begin + 300))
                found[name].serving.append(running.memory())
                found[name].everything.append(running.memory(everything=True))
    return found


async def _pages(port: int, request: Request, number: int, end: float) -> None:
    """Send requests until `number` responses were 200; a server may accept too early."""
    connection = Connection(port)
    while number:
        answer, _ = await connection.ask(request)
        number -= answer.status == 200
        if answer.status != 200 and time.perf_counter() > end:
            raise SystemExit(f"{request.path} returned {answer.status}: {answer.body[:300]!r}")
    connection.close()
