"""What the tests of faults share: portals that may be hurt, and the table of figures at the end of
`make faults`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.faults.site import Site

Note = Callable[[str, str, int], None]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A portal on SQLite, not started."""
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """`note(fault, caused, times)` is a line of the table: what was caused, and how often it
    was."""

    def noting(fault: str, caused: str, times: int) -> None:
        record_property("fault", (fault, caused, times))

    return noting


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of what was caused, and what was found. A fault whose test failed counts as
    violated."""
    lines = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            facts = [value for name, value in report.user_properties if name == "fault"]
            lines += [(*fact, int(outcome == "failed")) for fact in facts if report.when == "call"]
    if not lines:
        return
    terminalreporter.section("faults")
    width = max(len(fault) for fault, *_ in lines)
    wide = max(len(caused) for _, caused, *_ in lines)
    terminalreporter.line(f"{'fault':{width}}  {'caused':{wide}}  times  violations")
    for fault, caused, times, violations in lines:
        terminalreporter.line(f"{fault:{width}}  {caused:{wide}}  {times:5}  {violations:10}")
