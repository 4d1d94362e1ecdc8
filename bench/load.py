"""`make bench-load`: a company's users and programs for five minutes.

The load generator and the servers share the cores. PostgreSQL and Redis are those of TEST_PG_URL
and TEST_REDIS_URL; BENCH_SECONDS is the duration.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill as wrap
from urllib.parse import urlsplit

import psycopg

from bench import running
from bench.acting import Actor, Person, Program, Tally, act_all
from bench.crowd import PEOPLE, SERVERS, TEAMS, VALUES, Member, fill
from bench.measuring import percentile
from bench.results import WIDTH, describe, table, write
from bench.seeding import KEY_RING
from bench.wire import Request, ask_once

_PEOPLE = 200
_PROGRAMS = 50
_DATABASE = "portal_bench_load"
# The ramp: each step takes this many seconds. The last rate before errors or a p99 of a second is
# the highest.
_FIRST_RATE = 6.0
_STEP = 1.4
_STEPS = 10
_STEP_SECONDS = 8.0
_PATIENCE_MS = 1_000.0
_SHARE_OF_MOST = 0.7
_AIM_MEMORY = 1.05


@dataclass
class _Cluster:
    """Two `portal serve` and a `portal worker`."""

    portals: list[running.Running] = field(default_factory=list)
    worker: running.Running = field(default_factory=lambda: running.Running(0, 0))
    echo: str = ""

    def memory(self) -> float:
        """Return the resident megabytes of all their processes."""
        return sum(member.memory(everything=True) for member in (*self.portals, self.worker))

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU time of the web processes, and of the worker."""
        return sum(portal.cpu_seconds() for portal in self.portals), self.worker.cpu_seconds()


@dataclass
class _Sampled:
    """The resources used during the load."""

    memory: list[float] = field(default_factory=list)
    web: float = 0.0
    worker: float = 0.0
    load: float = 0.0
    machine: float = 0.0
    seconds: float = 0.0

    def window(self, fifth: int) -> float:
        """Return the mean memory of a fifth of the time; for five minutes, of a minute."""
        size = max(1, len(self.memory) // 5)
        return statistics.fmean(
            self.memory[(fifth - 1) * size : fifth * size if fifth < 5 else None]
        )


def main() -> int:
    """Fill, ramp up, load, print and write; return the number of gross faults."""
    before = os.getloadavg()[0]
    seconds = float(os.environ.get("BENCH_SECONDS") or 300)
    with _database() as url, _cluster(url) as cluster:
        return asyncio.run(_run(cluster, seconds, before))


async def _run(cluster: _Cluster, seconds: float, before: float) -> int:
    begin = time.monotonic()
    ports = [portal.port for portal in cluster.portals]
    people = [
        Person(Member(n * (PEOPLE // _PEOPLE)), ports[n % 2], cluster.echo) for n in range(_PEOPLE)
    ]
    for person in people:
        await person.sign_in()
    programs = [
        Program(Member(n * (PEOPLE // _PROGRAMS) + 7), ports[n % 2], cluster.echo)
        for n in range(_PROGRAMS)
    ]
    await _warm_up(people)
    print(f"{len(people)} users signed in, {time.monotonic() - begin:.0f} s", flush=True)
    most, steps = await _ramp([*people, *programs])
    rate = most * _SHARE_OF_MOST
    print(f"{seconds:.0f} s of {rate:.1f} actions a second", flush=True)
    sampling = asyncio.create_task(_sample(cluster, seconds))
    tally = await act_all([*people, *programs], rate, seconds)
    sampled = await sampling
    flat = sampled.window(5) / sampled.window(2)
    said = (
        "PostgreSQL and Redis, two `portal serve` with two processes each, and a `portal"
        f" worker`. The load generator and the servers share the cores. {SERVERS:,} servers,"
        f" {PEOPLE:,} people, {TEAMS} teams, {VALUES:,} stored values."
    )
    parts = (
        describe(before, said),
        _about(seconds, rate, most, steps),
        _actions(tally),
        _costs(sampled, flat),
    )
    write("make bench-load", "\n\n".join(parts))
    for error, times in Counter(tally.errors).most_common(20):
        print(f"✗ {times} × {error}", file=sys.stderr)
    return len(tally.errors) + (flat > _AIM_MEMORY * 2)


async def _warm_up(people: list[Person]) -> None:
    """Let each process contact an upstream once, to load what that needs."""
    for first in range(0, 40, 4):
        some = people[first : first + 4]
        await asyncio.gather(
            *(p.connection.ask(p.request("playground, list of tools", 0)[0]) for p in some)
        )


async def _ramp(actors: list[Actor]) -> tuple[float, str]:
    """Return the highest rate without errors, or the first one, and a summary of the steps."""
    borne = _FIRST_RATE
    steps = []
    for step in range(_STEPS):
        rate = _FIRST_RATE * _STEP**step
        tally = await act_all(actors, rate, _STEP_SECONDS)
        p99 = percentile(tally.all, 99)
        steps.append(f"{rate:.0f}: {p99:.0f}")
        print(
            f"ramp: {rate:.1f} a second, p99 {p99:.0f} ms, {len(tally.errors)} errors", flush=True
        )
        if tally.errors or p99 > _PATIENCE_MS:
            print("".join(f"  {error}\n" for error in tally.errors[:5]), end="", flush=True)
            break
        borne = rate
    return borne, ", ".join(steps)


async def _sample(cluster: _Cluster, seconds: float) -> _Sampled:
    sampled = _Sampled()
    begin = time.monotonic()
    web, worker = cluster.cpu_seconds()
    own = time.process_time()
    machine = _busy_seconds()
    while time.monotonic() - begin < seconds:
        sampled.memory.append(cluster.memory())
        await asyncio.sleep(min(1.0, max(0.0, begin + seconds - time.monotonic())))
    after_web, after_worker = cluster.cpu_seconds()
    sampled.web, sampled.worker = after_web - web, after_worker - worker
    sampled.load, sampled.machine = time.process_time() - own, _busy_seconds() - machine
    sampled.seconds = time.monotonic() - begin
    return sampled


def _busy_seconds() -> float:
    """Return the CPU time of the whole machine that was not idle."""
    spent = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    return (sum(spent) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")


def _about(seconds: float, rate: float, most: float, steps: str) -> str:
    return wrap(
        f"{_PEOPLE} people who signed in with a password and {_PROGRAMS} API keys perform actions"
        f" at random times, {rate:.1f} actions a second in total, for {seconds:.0f} s. The load"
        " does not slow down if the portal does: times are measured from when an action was due."
        f" The rate is {_SHARE_OF_MOST:.0%} of the highest rate that a short ramp reached without"
        f" errors and with a p99 of up to {_PATIENCE_MS:.0f} ms. That rate was {most:.1f}"
        f" (actions a second: p99 ms; {steps}).",
        WIDTH,
    )


def _actions(tally: Tally) -> str:
    rows = [
        (
            name,
            len(times),
            f"{percentile(times, 50):.0f}",
            f"{percentile(times, 99):.0f}",
            f"{max(times):.0f}",
        )
        for name, times in sorted(
            {**tally.times, "**all**": tally.all}.items(), key=lambda item: -len(item[1])
        )
        if times
    ]
    errors = len(tally.errors)
    kinds = "".join(
        f"\n- {times} × {error}" for error, times in Counter(tally.errors).most_common(8)
    )
    return (
        f"{len(tally.all)} actions, {errors} errors (target: 0):"
        f" {'met' if not errors else '**missed**'}{kinds}\n\n"
        + table(("Action", "times", "p50", "p99", "longest"), rows)
    )


def _costs(sampled: _Sampled, flat: float) -> str:
    cores = len(os.sched_getaffinity(0)) * sampled.seconds
    rest = sampled.machine - sampled.web - sampled.worker - sampled.load
    spent = [
        ("web processes", sampled.web),
        ("worker", sampled.worker),
        ("the load generator", sampled.load),
        ("PostgreSQL, Redis and everything else", rest),
        ("idle", cores - sampled.machine),
    ]
    first = sampled.window(1)
    last = sampled.window(5)
    return (
        f"Memory of the portal's processes: {first:.0f} MB in the first fifth of the run,"
        f" {sampled.window(2):.0f} MB in the second, {last:.0f} MB in the last,\nwhich is"
        f" {flat:.3f} times the second (target: at most {_AIM_MEMORY}):"
        f" {'met' if flat <= _AIM_MEMORY else '**missed**'}.\n\n"
        + table(
            ("CPU time", "share of the cores"),
            [(name, f"{part / cores:.0%}") for name, part in spent],
        )
    )


@contextmanager
def _database() -> Iterator[str]:
    """Create a database for the run, and drop it afterwards."""
    server = os.environ.get("TEST_PG_URL") or sys.exit(
        "TEST_PG_URL is not set: run make bench-load"
    )
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {_DATABASE}")
        try:
            yield urlsplit(server)._replace(path=f"/{_DATABASE}").geturl()
        finally:
            connection.execute(f"DROP DATABASE {_DATABASE} WITH (FORCE)")


@contextmanager
def _cluster(url: str) -> Iterator[_Cluster]:
    env = {
        "PORTAL_DATABASE_URL": url,
        "PORTAL_SECRET_KEY": "bench-load" * 4,
        "PORTAL_ENCRYPTION_KEYS": KEY_RING,
        "PORTAL_ALLOW_PRIVATE_UPSTREAMS": "true",
        "PORTAL_PUBLIC_URL": "http://127.0.0.1:8000",
    }
    if redis := os.environ.get("TEST_REDIS_URL"):
        env["PORTAL_REDIS_URL"] = redis
    begin = time.monotonic()
    cluster = _Cluster()
    fill(env)
    print(f"seeded in {time.monotonic() - begin:.0f} s", flush=True)
    with ExitStack() as stack:
        port = running.free_port()
        echo = [sys.executable, running.ROOT / "examples" / "echo_server.py", "--port", str(port)]
        stack.enter_context(running.serving(echo, running.environment(), port))
        cluster.portals = [stack.enter_context(running.portal(env, workers=2)) for _ in range(2)]
        worker = [sys.executable, "-m", "portal.cli", "worker"]
        started = stack.enter_context(running.process(worker, running.environment(**env)))
        cluster.worker = running.Running(0, started.pid, apart=None)
        echo_server = {
            "server_name": "echo",
            "transport": "http",
            "url": f"http://127.0.0.1:{port}/mcp",
            "allow_all_keys": True,
        }
        by_admin = {"Authorization": f"Bearer {Member(0).key}"}
        request = Request.json("/v1/mcp/server", by_admin, json.dumps(echo_server))
        made = asyncio.run(ask_once(cluster.portals[0].port, request))
        assert made.status == 201, made.text
        cluster.echo = json.loads(made.body)["server_id"]
        yield cluster
