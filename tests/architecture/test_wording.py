"""Texts for people use the plain words of the field: none of the odd ones that were replaced comes
back."""

import re
from pathlib import Path

import pytest

from tests.peers import ROOT
from tests.support.wording import ODD, SPELLING

TEXTS = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/**/*.md")
"""What is read, as patterns below the checkout. Add `templates/**/*.html`, `portal/**/*.py` and
`CHANGELOG.md`."""

IN_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
FILES = sorted(
    path for pattern in TEXTS for path in ROOT.glob(pattern) if "__pycache__" not in path.parts
)


def prose(path: Path) -> str:
    """Return the text of a file with runs of white space as one space; of Markdown without what it
    shows as code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = IN_CODE.sub("", text)
    return re.sub(r"\s+", " ", text)


def test_the_patterns_find_files() -> None:
    for pattern in TEXTS:
        assert any(ROOT.glob(pattern)), pattern


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_text_uses_plain_words(path: Path) -> None:
    text = prose(path)
    found = {
        re.sub(r"\s+", " ", text[max(0, hit.start() - 30) : hit.end() + 30]): better
        for odd, better in (ODD | SPELLING).items()
        for hit in re.finditer(odd, text)
    }
    assert not found, "\n".join(f"…{where}… → {better}" for where, better in found.items())


@pytest.mark.parametrize("odd", ODD)
def test_no_replacement_is_odd_itself(odd: str) -> None:
    better = ODD[odd]
    assert not re.search(odd, better)


ELSEWHERE = re.compile(
    r"\bR-[A-Z]+-\d+|\b\d-[a-z]+\.md\b|spec/[a-z0-9-]+\.md|conventions\.md|\bui\.md|behaviou?rs?"
    r" [A-Z]{3}-\d\d"
)
"""Identifiers of texts that are not in this repository."""


def test_no_code_refers_to_a_text_that_is_not_here() -> None:
    code = [
        path
        for top in ("portal", "migrations", "templates", "static", "bench")
        for path in (ROOT / top).rglob("*")
    ]
    texts = [path for path in code if path.suffix in {".py", ".html", ".css", ".js", ".md"}]
    assert len(texts) > 300
    found = [
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for path in texts
        if "__pycache__" not in path.parts
        for hit in ELSEWHERE.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
