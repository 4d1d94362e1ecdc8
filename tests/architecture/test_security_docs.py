"""The table in `docs/security.md` is held to the code: secrets that are decided about, and kinds
that are stored."""

import re
from pathlib import Path

import pytest

from portal.domain.destinations import PARTS_OF
from portal.domain.servers import CREDENTIAL_NAMES, URL_FIELDS
from portal.services.secrets.inventory import KINDS

_TABLE = (
    (Path(__file__).parents[2] / "docs" / "security.md")
    .read_text()
    .split("## When a change moves a secret")[0]
)
_LINES = [line for line in _TABLE.splitlines() if line.startswith("|")][2:]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in _LINES]


KNOWN = {*PARTS_OF, *URL_FIELDS, *(f"credentials.{name}" for name in CREDENTIAL_NAMES)}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_secret_has_its_row(name: str) -> None:
    found = [row for row in ROWS if f"`{name}`" in row[0]]
    assert len(found) == 1
    assert all(found[0])


def test_no_row_names_a_secret_that_is_not_there() -> None:
    assert {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[0])} == KNOWN


def test_the_places_are_the_kinds_that_are_stored() -> None:
    assert {kind for row in ROWS for kind in row[1].split(", ")} == {kind.name for kind in KINDS}
