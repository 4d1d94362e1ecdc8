"""One keep-alive connection a target, targets taking turns request by request, so that noise meets all alike."""

import gc
import http.client
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Target:
    """Something that is asked over and over; times are milliseconds."""

    name: str
    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    size: int = 0
    _connection: http.client.HTTPConnection | None = None

    def ask(self) -> float:
        """One request; the milliseconds until the last byte was there. Ends the run for any answer but 200."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        begin = time.perf_counter()
        self._connection.request("GET", self.path, headers=dict(self.headers))
        response = self._connection.getresponse()
        body = response.read()
        taken = (time.perf_counter() - begin) * 1000
        if response.status != 200:
            raise SystemExit(f"{self.name}: GET {self.path} answered {response.status}: {body[:300]!r}")
        self.size = len(body)
        return taken

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.times)

    @property
    def p99(self) -> float:
        """All but one in a hundred were faster."""
        return statistics.quantiles(self.times, n=100)[98]


def measure(targets: Sequence[Target], requests: int, *, warm_up: int = 5) -> None:
    """Ask each target `requests` times in turns, forwards and backwards alternately; earlier times are forgotten."""
    for target in targets:
        target.times.clear()
        for _ in range(warm_up):
            target.ask()
    gc.collect()
    gc.disable()
    try:
        for number in range(requests):
            for target in targets if number % 2 else reversed(targets):
                target.times.append(target.ask())
    finally:
        gc.enable()
