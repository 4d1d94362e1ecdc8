"""Texts for people use the plain words of the field, and none of the replaced ones."""

import re
from pathlib import Path

import pytest

from tests.support.peers import ROOT
from tests.support.wording import ODD, odd_in, text_of

TEXTS = (
    "*.md",
    "docs/**/*.md",
    "templates/**/*.html",
    "portal/**/*.py",
    "static/*.js",
    "examples/*.py",
)
"""Patterns of the files to check, below the checkout."""

FILES = sorted(
    path for pattern in TEXTS for path in ROOT.glob(pattern) if "__pycache__" not in path.parts
)


def test_the_patterns_find_files() -> None:
    for pattern in TEXTS:
        assert any(ROOT.glob(pattern)), pattern


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_text_uses_plain_words(path: Path) -> None:
    found = odd_in(text_of(path))
    assert not found, "\n".join(f"…{where}… → {better}" for where, better in found.items())


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("docstring.py", '"""Says\n    whoever\n asks."""'),
        ("message.py", 'f"{name} is " "gone."'),
        ("comment.py", "x = 1  # a mended bug"),
        ("page.html", "<p>There is nothing\n  here.</p>"),
        ("script.js", "/* used up herewith */"),
        ("page.md", "The e-mail of a user."),
    ],
)
def test_an_odd_word_is_found_in_each_kind_of_file(tmp_path: Path, name: str, source: str) -> None:
    path = tmp_path / name
    path.write_text(source, encoding="utf-8")
    assert odd_in(text_of(path))


@pytest.mark.parametrize(
    ("name", "source"),
    [("names.py", "def door(house): return mend.floor"), ("page.md", "`mend` and ```door```")],
)
def test_code_is_no_text(tmp_path: Path, name: str, source: str) -> None:
    path = tmp_path / name
    path.write_text(source, encoding="utf-8")
    assert not odd_in(text_of(path))


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
