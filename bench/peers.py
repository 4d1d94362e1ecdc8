"""`make bench-peers`: the portal and IBM ContextForge, with the same number of rows, in turns."""

import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from bench import contextforge, running
from bench.contextforge import ContextForge
from bench.measuring import Target, measure, press
from bench.questions import FRAGMENT, api_of, page_of
from bench.results import describe, table, write
from bench.seeding import ADMIN, Seeded, seed
from bench.starting import Started, measure_starts
from bench.visiting import Visit, behind_nginx, visit
from bench.wire import Request
from portal.services.servers.grid import PAGE_SIZE

SERVERS = 1_000
_REQUESTS = 60
_AT_ONCE = 4
_SECONDS = 3.0
_STARTS = 3
_FIRST_CARD = 8.0
"""The target ratio of ContextForge's time to the first row and the time to the first card."""
_ROW = "#gateways-table tbody tr"
# The comparisons, and the target ratio to ContextForge's rate.
_PAIRS = (
    ("JSON page of 50", "/v1/mcp/server?limit=50", "/gateways?limit=50", 6.0),
    ("JSON list of 1,000", "/v1/mcp/server", "/gateways?limit=0", None),
    (
        "HTML fragment of 50 (portal: 48)",
        "/servers",
        "/admin/gateways/partial?page=1&per_page=50",
        None,
    ),
    (
        "grid page against that fragment",
        "/servers",
        "/admin/gateways/partial?page=1&per_page=50",
        8.0,
    ),
)


def main() -> int:
    """Measure, print and write. Returns 0; an unexpected response ends the run."""
    begin = time.monotonic()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="portal-bench-") as name:
        folder = Path(name)
        peer = ContextForge(folder, SERVERS)
        seeded = seed(folder, SERVERS, PAGE_SIZE)
        print(f"{time.monotonic() - begin:4.0f} s: both have {SERVERS:,} servers", flush=True)
        with running.portal(seeded.environment) as portal, peer.running() as theirs:
            by_admin = peer.headers
            portal.settle()
            theirs.settle()
            pairs = [
                (
                    Target.get(what, portal, path, _ours(what)),
                    Target.get(what, theirs, other, by_admin),
                    aim,
                )
                for what, path, other, aim in _PAIRS
            ]
            everything = [target for ours, other, _ in pairs for target in (ours, other)]
            measure(everything, _REQUESTS)
            press(everything, at_once=_AT_ONCE, seconds=_SECONDS, rounds=1)
            print(f"{time.monotonic() - begin:4.0f} s: measured times", flush=True)
            visits = _visits(portal, theirs, seeded, peer, folder)
        starts = measure_starts(
            {
                "portal": (
                    partial(running.portal, seeded.environment),
                    Request("/servers", page_of(ADMIN)),
                ),
                "ContextForge": (
                    peer.running,
                    Request("/admin/gateways/partial?page=1&per_page=50", peer.headers),
                ),
            },
            _STARTS,
        )
    said = (
        f"ContextForge {contextforge.version()} with its admin UI. Both use SQLite, {SERVERS:,}"
        " servers (ContextForge calls them gateways) and one web process."
        f" {time.monotonic() - begin:.0f} s in total, without the installation."
    )
    write(
        "make bench-peers",
        "\n\n".join((describe(load, said), _times(pairs), _rest(visits, starts))),
    )
    return 0


def _ours(what: str) -> dict[str, str]:
    if what.startswith("JSON"):
        return api_of(ADMIN)
    return page_of(ADMIN) | (FRAGMENT if "fragment of" in what else {})


def _visits(
    portal: running.Running,
    theirs: running.Running,
    seeded: Seeded,
    peer: ContextForge,
    folder: Path,
) -> dict[str, Visit]:
    cookie = {"portal": seeded.cookie(ADMIN)}
    found = {"portal": visit(f"http://127.0.0.1:{portal.port}/servers", "li.card", cookie)}
    with behind_nginx(portal, folder) as port:
        if port is not None:
            found["portal behind nginx"] = visit(
                f"http://127.0.0.1:{port}/servers", "li.card", cookie
            )
    address = f"http://127.0.0.1:{theirs.port}/admin/#gateways"
    found["ContextForge"] = visit(address, _ROW, {"jwt_token": peer.token}, visits=2)
    return found


def _times(pairs: list[tuple[Target, Target, float | None]]) -> str:
    rows = []
    for ours, other, aim in pairs:
        ratio = other.p50 / ours.p50
        rows.append(
            (
                ours.name,
                *(f"{t.p50:.1f} / {t.p99:.1f}" for t in (ours, other)),
                *(f"{t.cpu:.1f}" for t in (ours, other)),
                *(f"{t.size / 1000:.0f}" for t in (ours, other)),
                f"{ratio:.1f}",
                f"{other.cpu / ours.cpu:.1f}",
                f"{ours.rate / other.rate:.1f}",
                _verdict(ratio, aim),
            )
        )
    head = (
        "",
        "p50 / p99",
        *"ContextForge CPU ContextForge KB ContextForge".split(),
        "times as fast",
        "by CPU",
        "four at once",
        "aim",
    )
    return "The portal's figures come first. Requests run one at a time, in turns:\n\n" + table(
        head, rows
    )


def _verdict(times: float, aim: float | None) -> str:
    if aim is None:
        return ""
    return f"≥ {aim:.0f}: {'met' if times >= aim else '**missed**'}"


def _rest(visits: dict[str, Visit], starts: dict[str, Started]) -> str:
    ours = starts["portal"]
    other = starts["ContextForge"]
    slowest = visits["ContextForge"].first_card
    visited = [
        (
            name,
            v.requests,
            f"{v.kilobytes:.0f}",
            f"{v.first_card:.0f}",
            f"{slowest / v.first_card:.1f}",
            _verdict(slowest / v.first_card, None if name == "ContextForge" else _FIRST_CARD),
        )
        for name, v in visits.items()
    ]
    started = [
        (
            name,
            f"{s.start:.1f}",
            *(f"{statistics.fmean(held):.0f}" for held in (s.serving, s.everything)),
        )
        for name, s in starts.items()
    ]
    return "\n\n".join(
        (
            "First visit in Chromium, with an empty cache:",
            table(
                (
                    "",
                    "requests",
                    "KB on the wire",
                    "ms to the first card or row",
                    "times as fast",
                    "aim",
                ),
                visited,
            ),
            "Time from the command to the first page, and memory after 100 requests:",
            table(
                ("", "seconds", "MB of the serving processes", "MB with the background worker"),
                started,
            ),
            f"ContextForge takes {other.start / ours.start:.1f} times as long to start.",
        )
    )
