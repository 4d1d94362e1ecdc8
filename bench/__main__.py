"""`python -m bench`: how the portal's pages and answers grow with the number of servers, and against bare Flask."""

import contextlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench.measuring import Target, measure
from bench.running import running
from bench.seeding import ADMIN, MEMBER, NARROW, Seeded, seed
from portal.services.grid import PAGE_SIZE

FEW, MANY = 100, 10_000
AIM_GROWTH, AIM_OF_BARE = 1.25, 0.60
ATTEMPTS = 3
REQUESTS = 100
FIRST_PAGE = "grid, Admin"
RESULTS = Path(__file__).parent / "RESULTS.md"

Pairs = dict[str, tuple[Target, Target]]


def main() -> int:
    """Run, print and write the results; 1 where the first page of the grid grows beyond the aim every time."""
    begin, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="portal-bench-") as folder, contextlib.ExitStack() as stack:
        few, many = (seed(Path(folder), servers, PAGE_SIZE) for servers in (FEW, MANY))
        print(f"seeded in {time.monotonic() - begin:.1f} s", flush=True)
        ports = [stack.enter_context(running("wsgi:app", seeded.environment)) for seeded in (few, many)]
        path = many.environment["PORTAL_DATABASE_URL"].removeprefix("sqlite:///")
        bare_port = stack.enter_context(running("bench.bare:app", {"BARE_DATABASE": path}))
        pairs = {name: _pair(name, ports, (few, many)) for name in _QUESTIONS}
        bare = _bare(bare_port, pairs[FIRST_PAGE][1])
        text, grew = "", True
        for attempt in range(1, ATTEMPTS + 1):
            # What decides is looked at again; the rest keeps its figures of the first attempt.
            measured = pairs.values() if attempt == 1 else [pairs[FIRST_PAGE]]
            measure([bare, *(target for pair in measured for target in pair)], REQUESTS)
            text, grew = _table(pairs, bare), _growth(pairs[FIRST_PAGE]) > AIM_GROWTH
            print(f"\nattempt {attempt}\n{text}", flush=True)
            if not grew:
                break
    _write(text, load)
    print(f"\n{time.monotonic() - begin:.0f} s, written to bench/{RESULTS.name}")
    if grew:
        print(f"✗ the grid's first page grows by more than {AIM_GROWTH} in {ATTEMPTS} attempts", file=sys.stderr)
    return int(grew)


def _page(user_id: str) -> dict[str, str]:
    return {"Cookie": f"portal={Seeded.cookie(user_id)}"}


def _api(user_id: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {Seeded.key(user_id)}"}


_FRAGMENT = {"HX-Request": "true"}
_LIST = "/v1/mcp/server?limit=50"
_STATUS = "/v1/mcp/user-env-vars/status"
_QUESTIONS: dict[str, tuple[str, Mapping[str, str]]] = {
    FIRST_PAGE: ("/servers", _page(ADMIN)),
    "grid, Member with 60 %": ("/servers", _page(MEMBER)),
    "grid, Member with 20 servers": ("/servers", _page(NARROW)),
    "its last page, Admin": ("/servers?cursor={last}", _page(ADMIN)),
    "its fragment, Admin": ("/servers", _page(ADMIN) | _FRAGMENT),
    "its fragment, Member": ("/servers", _page(MEMBER) | _FRAGMENT),
    "API list of 50, Admin": (_LIST, _api(ADMIN)),
    "API list of 50, Member": (_LIST, _api(MEMBER)),
    "API status, Admin": (_STATUS, _api(ADMIN)),
    "API status, Member with 20": (_STATUS, _api(NARROW)),
}


def _pair(name: str, ports: list[int], seeded: tuple[Seeded, Seeded]) -> tuple[Target, Target]:
    path, headers = _QUESTIONS[name]
    few, many = (
        Target(name, port, path.format(last=s.last_page), headers) for port, s in zip(ports, seeded, strict=True)
    )
    return few, many


def _bare(port: int, like: Target) -> Target:
    """The bare page, filled up to as many bytes as the page `like`."""
    like.ask()
    plain = Target("bare", port, "/")
    plain.ask()
    card, rest = divmod(max(0, like.size - plain.size), PAGE_SIZE)
    return Target("bare Flask, one Core query", port, f"/?card={card}&rest={rest}")


def _growth(pair: tuple[Target, Target]) -> float:
    return pair[1].p50 / pair[0].p50


def _table(pairs: Pairs, bare: Target) -> str:
    lines = [
        f"| | {FEW:,}: p50 | p99 | KB | {MANY:,}: p50 | p99 | KB | p50 ratio | bytes ratio |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, (few, many) in pairs.items():
        cells = (f"{t.p50:.1f} | {t.p99:.1f} | {t.size / 1000:.1f}" for t in (few, many))
        lines.append(f"| {name} | {' | '.join(cells)} | {_growth((few, many)):.2f} | {many.size / few.size:.2f} |")
    page = pairs[FIRST_PAGE][1]
    lines.append(f"| {bare.name} | | | | {bare.p50:.1f} | {bare.p99:.1f} | {bare.size / 1000:.1f} | | |")
    lines += [
        "",
        f"Growth of the grid's first page from {FEW:,} to {MANY:,} servers: {_growth(pairs[FIRST_PAGE]):.2f} "
        f"(aim: at most {AIM_GROWTH}).",
        f"The grid's rate is {bare.p50 / page.p50:.0%} of bare Flask's with the same bytes (aim: {AIM_OF_BARE:.0%}).",
        "The status answer lists every server that asks for a value, so it grows with them.",
    ]
    return "\n".join(lines)


def _write(text: str, load: float) -> None:
    cores = len(os.sched_getaffinity(0))
    RESULTS.write_text(
        f"# The bench\n\n"
        f"`make bench` on {datetime.now(UTC):%Y-%m-%d}: {cores} cores, Python {platform.python_version()}, SQLite, one "
        f"gunicorn process each,\none connection, {REQUESTS} requests to each in turns, load average {load:.1f} before "
        f"it began. Times are milliseconds;\ntrust the ratios, not the figures.\n\n{text}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
