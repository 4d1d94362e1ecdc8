"""`RESULTS.md`: a section for each command, replaced by that command alone."""

import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill

WIDTH = 118
RESULTS = Path(__file__).parent / "RESULTS.md"
_HEAD = (
    "# The bench\n\nEach section stands under the command that wrote it, and only that command"
    " writes it anew. Trust the ratios within a\nsection, not the figures: they are of one machine"
    " on one day. Times are milliseconds unless something else is said.\nWhere an aim is missed,"
    " [TRIED.md](TRIED.md) says what was tried.\n"
)


def describe(load: float, more: str) -> str:
    """When, where and how busy the machine was before; `load` is its load average then."""
    cores = len(os.sched_getaffinity(0))
    return fill(
        f"{datetime.now(UTC):%Y-%m-%d}: {cores} cores, Python {platform.python_version()}, "
        f"load average {load:.1f} before it began. {more}",
        WIDTH,
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, the first column to the left, the others to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def write(command: str, text: str) -> None:
    """Print a section, and put it in the place of the one that `command` wrote before."""
    print(f"\n{text}", flush=True)
    old = RESULTS.read_text() if RESULTS.exists() else ""
    sections = dict(
        re.findall(r"^## `([^`\n]+)`\n+(.*?)(?=^## `|\Z)", old, re.MULTILINE | re.DOTALL)
    )
    sections[command] = text
    RESULTS.write_text(
        _HEAD + "".join(f"\n## `{name}`\n\n{body.strip()}\n" for name, body in sections.items())
    )
    print(f"\nwritten to bench/{RESULTS.name} under `{command}`", file=sys.stderr)
