"""The results of `make bench` as tables: every request, then every target."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from textwrap import fill

from bench.measuring import Target, percentile
from bench.probing import Kept
from bench.results import WIDTH, table
from bench.starting import Started
from bench.visiting import Visit

GRID = "grid"
COLD = "grid, another page every time"
FRAGMENT = "its fragment"
PAGE = "JSON page of 50"
LIST = "JSON list of 1,000"
STATUS = "status over 1,000"
_GROWTH = 1.25
_GROSS_GROWTH = 2.0
# LiteLLM 1.90.0 on PostgreSQL, measured once on 2 cores: requests a second, CPU milliseconds.
_LITELLM = {LIST: (6.0, 163.0), STATUS: (8.0, 121.0)}


@dataclass
class Figures:
    """All results of a run."""

    many: dict[str, Target] = field(default_factory=dict)
    few: dict[str, Target] = field(default_factory=dict)
    bare: dict[str, Target] = field(default_factory=dict)
    alike: tuple[float, bool] = (0.0, False)
    statements: dict[str, int] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    visits: dict[str, Visit] = field(default_factory=dict)
    starts: dict[str, Started] = field(default_factory=dict)
    kept: Kept | None = None

    def share(self, name: str) -> float:
        """Return the portal's rate as a share of bare Flask's, one request at a time."""
        return self.bare[name].p50 / self.many[name].p50

    def growth(self, name: str) -> tuple[float, float]:
        """Return the ratios of median and bytes with many servers to those with few."""
        few = self.few[name]
        many = self.many[name]
        return many.p50 / few.p50, many.size / few.size


Row = tuple[str, str, str, bool | None]


def report(figures: Figures) -> tuple[str, list[str]]:
    """Return the text, and the gross faults."""
    faults = [
        f"{name} takes {figures.growth(name)[0]:.2f} times as long with 10,000 servers as with 100"
        for name in (GRID, FRAGMENT, PAGE)
        if figures.growth(name)[0] > _GROSS_GROWTH
    ]
    bytes_of_bare, same_tags = figures.alike
    if not same_tags or abs(bytes_of_bare - 1) > 0.01:
        faults.append(
            f"bench/bare.html is no longer the portal's card: {bytes_of_bare:.3f} times its bytes"
        )
    same = "the same tags" if same_tags else "DIFFERENT tags"
    about = (
        "`bare` is bench/bare.py under gunicorn: Flask, one Core query, one flat template (or"
        f" orjson), the same rows. Its grid page has {bytes_of_bare:.2%} of the portal's bytes"
        f" and {same}. Its addresses are plain strings, and the text around the cards is"
        " constant. It checks no session, no permissions and no counters, so it is an upper"
        " limit for speed."
    )
    text = [
        fill(about, WIDTH),
        _times(figures),
        _pressed(figures),
        "Targets:",
        table(("Target", "limit", "measured", ""), (_line(row) for row in _aims(figures))),
        (
            "LiteLLM's figures were measured once on a machine with the same number of cores, and"
            " not again in this run."
        ),
    ]
    return "\n\n".join(text), faults


def _times(figures: Figures) -> str:
    head = (
        "",
        "100: p50",
        "KB",
        "10,000: p50",
        "p99",
        "p99/p50",
        "KB",
        "growth",
        "CPU",
        "SQL",
        "bare p50",
        "CPU",
        "of bare",
    )
    rows = []
    for name, target in figures.many.items():
        few = figures.few.get(name)
        bare = figures.bare.get(name)
        counted = figures.statements.get(name)
        rows.append(
            (
                name,
                f"{few.p50:.1f}" if few else "",
                f"{few.size / 1000:.1f}" if few else "",
                f"{target.p50:.1f}",
                f"{target.p99:.1f}",
                f"{target.p99 / target.p50:.1f}",
                f"{target.size / 1000:.1f}",
                f"{target.p50 / few.p50:.2f}" if few else "",
                f"{target.cpu:.1f}",
                counted or "",
                *(
                    (f"{bare.p50:.1f}", f"{bare.cpu:.1f}", f"{figures.share(name):.0%}")
                    if bare
                    else ("", "", "")
                ),
            )
        )
    return (
        "Requests run one at a time, and the targets take turns. CPU is the CPU time of the"
        " server's processes for one request.\n`of bare` is the portal's rate as a share of bare"
        " Flask's rate. Rows that name 1,000 use 1,000 servers, 300 of which\nrequire a value.\n\n"
        + table(head, rows)
    )


def _pressed(figures: Figures) -> str:
    rows = []
    for name, target in figures.many.items():
        if target.pressed:
            p50 = percentile(target.pressed, 50)
            p99 = percentile(target.pressed, 99)
            bare = figures.bare.get(name)
            shown = (
                (f"{bare.rate:.0f}", f"{target.rate / bare.rate:.0%}")
                if bare and bare.rate
                else ("", "")
            )
            rows.append(
                (name, f"{target.rate:.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{p99 / p50:.1f}", *shown)
            )
    return "Eight requests at a time:\n\n" + table(
        ("", "requests/s", "p50", "p99", "p99/p50", "bare requests/s", "of bare"), rows
    )


def _line(row: Row) -> tuple[str, str, str, str]:
    aim, aimed, measured, met = row
    if met is None:
        return aim, aimed, measured, "not measured"
    return aim, aimed, measured, "met" if met else "**missed**"


def _at_most(aim: str, value: float, limit: float, shown: str = "{:.2f}") -> Row:
    over = "" if value <= limit else f" ({value / limit - 1:.0%} over)"
    return aim, f"≤ {shown.format(limit)}", shown.format(value) + over, value <= limit


def _at_least(aim: str, value: float, limit: float, shown: str = "{:.0f}") -> Row:
    short = "" if value >= limit else f" ({1 - value / limit:.0%} short)"
    return aim, f"≥ {shown.format(limit)}", shown.format(value) + short, value >= limit


def _aims(figures: Figures) -> Iterator[Row]:
    many = figures.many
    yield _at_least("1 grid page, share of bare", figures.share(GRID), 0.6, "{:.0%}")
    yield _at_least("1 the same, another page every time", figures.share(COLD), 0.6, "{:.0%}")
    for name in (GRID, FRAGMENT, PAGE):
        median, size = figures.growth(name)
        yield _at_most(f"2 growth of p50 from 100 to 10,000: {name}", median, _GROWTH)
        yield _at_most(f"2 growth of bytes: {name}", size, _GROWTH)
    yield _at_most(
        "2 last page against first, p50", many["its last page"].p50 / many[GRID].p50, _GROWTH
    )
    yield from _against_litellm(figures)
    yield _at_most(
        "5 status over 1,000 against the bare query, p50", 1 / figures.share(STATUS), 2.0
    )
    yield _at_most(
        "5 its statements, including those for the caller", figures.statements[STATUS], 3, "{:.0f}"
    )
    for name in (GRID, COLD, FRAGMENT, PAGE):
        yield _at_most(
            f"6 p99 / p50, one at a time: {name}", many[name].p99 / many[name].p50, 4, "{:.1f}"
        )
        pressed = many[name].pressed
        yield _at_most(
            f"6 p99 / p50, eight at a time: {name}",
            percentile(pressed, 99) / percentile(pressed, 50),
            6,
            "{:.1f}",
        )
    for name, pause in figures.pauses.items():
        yield _at_most(f"6 longest pause of the collector, ms: {name}", pause, 30, "{:.1f}")
    assert figures.kept is not None
    yield _at_least(
        f"7 the grid's rate while dead servers are checked ({figures.kept.checked:.0f} a second)",
        figures.kept.share,
        0.8,
        "{:.0%}",
    )
    for name, visit in figures.visits.items():
        yield _at_most(f"8 first visit, requests, {name}", visit.requests, 6, "{:.0f}")
        yield _at_most(f"8 first visit, KB on the wire, {name}", visit.kilobytes, 45, "{:.1f}")
        yield (
            f"8 first visit, ms to the first card, {name}",
            "see bench-peers",
            f"{visit.first_card:.0f}",
            None,
        )
    yield from _starts(figures)


def _against_litellm(figures: Figures) -> Iterator[Row]:
    for aim, name, times in ((3, LIST, 10), (5, STATUS, 5)):
        rate, cpu = _LITELLM[name]
        target = figures.many[name]
        yield _at_least(
            f"{aim} {name}, requests/s (LiteLLM: {rate:.0f})", 1000 / target.p50, rate * times
        )
        if name == LIST:
            yield _at_most(f"3 its CPU ms (LiteLLM: {cpu:.0f})", target.cpu, cpu / 12, "{:.1f}")
    unchanged = figures.many.get(f"{LIST}, unchanged (304)")
    if unchanged is None:
        yield f"3 {LIST}, unchanged (304), requests/s", "≥ 600", "its response has no ETag", False
    else:
        yield _at_least(f"3 {LIST}, unchanged (304), requests/s", 1000 / unchanged.p50, 600)


def _starts(figures: Figures) -> Iterator[Row]:
    ours = figures.starts["portal"]
    bare = figures.starts["bare Flask"]
    seconds = f"{ours.start:.2f} s against {bare.start:.2f} s"
    yield _at_most(f"9 cold start against bare Flask ({seconds})", ours.start / bare.start, 2.5)
    held = sum(ours.serving) / len(ours.serving)
    bare_held = sum(bare.serving) / len(bare.serving)
    yield _at_most(
        f"9 memory of the serving processes ({held:.0f} MB against {bare_held:.0f} MB)",
        held / bare_held,
        1.5,
    )
    everything = sum(ours.everything) / len(ours.everything)
    yield _at_most(
        f"9 memory with the background worker ({everything:.0f} MB)", everything / bare_held, 1.5
    )
