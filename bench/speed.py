"""`make bench`: the portal's speed compared with bare Flask, its growth, and other targets."""

import asyncio
import contextlib
import os
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import questions, running
from bench.aims import COLD, FRAGMENT, GRID, LIST, PAGE, STATUS, Figures, report
from bench.frames import compare, write_frames
from bench.measuring import Target, measure, press
from bench.probing import measure_beside_checks
from bench.results import describe, write
from bench.seeding import ADMIN, Seeded, seed
from bench.starting import measure_starts
from bench.visiting import Visit, behind_nginx, visit
from bench.wire import Request, ask_once
from portal.services.servers.grid import PAGE_SIZE

FEW = 100
THOUSAND = 1_000
MANY = 10_000
_REQUESTS = 150
_LONG_REQUESTS = 40
_AT_ONCE = 8
_SECONDS = 2.0


@dataclass
class _Stage:
    """All servers of a run, and the folder of their databases."""

    folder: Path
    seeded: dict[int, Seeded]
    portals: dict[int, running.Running] = field(default_factory=dict)
    bare: dict[int, running.Running] = field(default_factory=dict)

    def bare_environment(self, servers: int) -> dict[str, str]:
        """Return the environment of `bench.bare` for the database with this many servers."""
        path = self.seeded[servers].environment["PORTAL_DATABASE_URL"].removeprefix("sqlite:///")
        return {"BARE_DATABASE": path, "BARE_FRAMES": str(self.folder)}


def main() -> int:
    """Measure, print and write; return the number of gross faults."""
    begin = time.monotonic()
    load = os.getloadavg()[0]
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="portal-bench-") as folder:
        seeded = {number: seed(Path(folder), number, PAGE_SIZE) for number in (FEW, THOUSAND, MANY)}
        stage = _Stage(Path(folder), seeded)
        _say(begin, "seeded")
        with contextlib.ExitStack() as stack:
            _begin(stage, stack)
            _measure_times(stage, figures)
            _say(begin, "measured times")
            figures.visits["as served"] = _visit(stage, stage.portals[MANY].port)
            with behind_nginx(stage.portals[MANY], stage.folder) as port:
                if port is not None:
                    figures.visits["behind nginx"] = _visit(stage, port)
            _say(begin, "visited")
        _watch(stage, figures)
        page = Request("/servers", questions.page_of(ADMIN))
        figures.starts = measure_starts({
            "portal": (partial(running.portal, seeded[MANY].environment), page),
            "bare Flask": (partial(running.bare, stage.bare_environment(MANY)), Request("/")),
        })  # fmt: skip
        _say(begin, "started")
        dead = stage.folder / "dead"
        dead.mkdir()
        figures.kept = measure_beside_checks(dead)
    text, faults = report(figures)
    said = f"SQLite, one web process each, {time.monotonic() - begin:.0f} s in total."
    write("make bench", f"{describe(load, said)}\n\n{text}")
    for fault in faults:
        print(f"✗ {fault}")
    return len(faults)


def _begin(stage: _Stage, stack: contextlib.ExitStack) -> None:
    """Start a portal for each size, and bare Flask with the frame of the portal's page."""
    for number, seeded in stage.seeded.items():
        stage.portals[number] = stack.enter_context(running.portal(seeded.environment))
    page, fragment = (
        _text(stage.portals[MANY].port, "/servers", more) for more in ({}, questions.FRAGMENT)
    )
    write_frames(stage.folder, page, fragment)
    for number in (THOUSAND, MANY):
        stage.bare[number] = stack.enter_context(running.bare(stage.bare_environment(number)))


def _text(port: int, path: str, more: dict[str, str]) -> str:
    return asyncio.run(ask_once(port, Request(path, questions.page_of(ADMIN) | more))).text


def _measure_times(stage: _Stage, figures: Figures) -> None:
    many = stage.portals[MANY]
    few = stage.portals[FEW]
    figures.many, figures.few = (
        questions.pages(s, stage.seeded[n]) for s, n in ((many, MANY), (few, FEW))
    )
    walked = questions.cold(many, "/servers", questions.page_of(ADMIN))
    figures.many |= {walked.name: walked, "sign-in": questions.sign_in(many)}
    figures.bare = questions.bare(stage.bare[MANY], stage.bare[THOUSAND])
    figures.many |= questions.long_answers(stage.portals[THOUSAND])
    for name in (PAGE, LIST, FRAGMENT, GRID):
        if unchanged := questions.unchanged(figures.many[name]):
            figures.many[unchanged.name] = unchanged
    figures.alike = compare(
        _text(many.port, "/servers", {}),
        asyncio.run(ask_once(stage.bare[MANY].port, Request("/"))).text,
    )
    everything = [*figures.many.values(), *figures.few.values(), *figures.bare.values()]
    long = [
        named[name] for named in (figures.many, figures.bare) for name in (LIST, STATUS, "sign-in")
    ]
    measure([target for target in everything if target not in long], _REQUESTS)
    measure(long, _LONG_REQUESTS)
    press(
        [
            *(figures.many[name] for name in (GRID, COLD, FRAGMENT, PAGE)),
            *(figures.bare[name] for name in (GRID, PAGE)),
        ],
        at_once=_AT_ONCE,
        seconds=_SECONDS,
    )


def _visit(stage: _Stage, port: int) -> Visit:
    return visit(
        f"http://127.0.0.1:{port}/servers", "li.card", {"portal": stage.seeded[MANY].cookie(ADMIN)}
    )


def _watch(stage: _Stage, figures: Figures) -> None:
    """Count statements, and garbage collection pauses under load, in separate processes."""
    watched = (
        (MANY, GRID, (GRID, FRAGMENT, PAGE, "credentials save")),
        (THOUSAND, LIST, (LIST, STATUS)),
    )
    for number, loaded, counted in watched:
        with running.portal(stage.seeded[number].environment, watched=True) as portal:
            for name in counted:
                again = Target(name, portal, figures.many[name].make)
                measure([again], 2)
                assert again.last is not None
                figures.statements[name] = int(again.last.headers["x-statements"])
            pauses = Request("/bench/pauses")
            asyncio.run(ask_once(portal.port, pauses))  # resets those of the startup
            press(
                [Target(loaded, portal, figures.many[loaded].make)],
                at_once=_AT_ONCE,
                seconds=2 * _SECONDS,
                rounds=1,
            )
            figures.pauses[loaded] = float(asyncio.run(ask_once(portal.port, pauses)).text)


def _say(begin: float, what: str) -> None:
    print(f"{time.monotonic() - begin:4.0f} s: {what}", flush=True)
