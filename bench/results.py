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
_HEAD = """\
# Benchmark results

Each section is named after the command that writes it. Compare the ratios within a section, not the
absolute figures, which depend on the machine and the day. Times are in milliseconds unless stated
otherwise. For missed targets, [TRIED.md](TRIED.md) lists what was tried.
"""


def describe(load: float, more: str) -> str:
    """Describe when, where and under which load average the run began."""
    cores = len(os.sched_getaffinity(0))
    return fill(
        f"{datetime.now(UTC):%Y-%m-%d}: {cores} cores, Python {platform.python_version()}, load"
        f" average {load:.1f} before the run. {more}",
        WIDTH,
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, with the first column left-aligned and the others right-aligned."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def write(command: str, text: str) -> None:
    """Print a section, and replace the section that `command` wrote before."""
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
