"""Style sheets have one declaration a line; `make lint` refuses other formats."""

from pathlib import Path

import pytest

from tests.support.peers import ROOT, run
from tests.support.styles import MOST_COLUMNS, formatted, main, parse

FILES = sorted((ROOT / "static" / "styles").glob("*.css"))

PACKED = """\
@layer a,  b;
@layer a { /* buttons */
  .x,.y:is(.p, .q) > b[title="a, b;  c"] { color:red; --gap : .5rem;content: "}" }
  @media (max-width:40rem) { .x { margin: 0 } }


  .z { background-image: linear-gradient(45deg, transparent 50%, var(--muted) 50%),
    linear-gradient(-45deg, red, blue); /* below */ margin: 0 }
  /* last */
}
"""
FORMATTED = """\
@layer a, b;

@layer a {
  /* buttons */
  .x,
  .y:is(.p, .q) > b[title="a, b;  c"] {
    color: red;
    --gap: .5rem;
    content: "}";
  }

  @media (max-width:40rem) {
    .x {
      margin: 0;
    }
  }

  .z {
    background-image:
      linear-gradient(45deg, transparent 50%, var(--muted) 50%),
      linear-gradient(-45deg, red, blue);

    /* below */
    margin: 0;
  }

  /* last */
}
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_style_sheet_is_formatted(file: Path) -> None:
    text = file.read_text("utf-8")
    assert text == formatted(text)
    assert [line for line in text.splitlines() if len(line) > MOST_COLUMNS] == []


def test_formatting_puts_a_declaration_on_each_line_and_loses_nothing() -> None:
    assert formatted(PACKED) == FORMATTED
    assert parse(PACKED) == parse(FORMATTED)


@pytest.mark.parametrize(
    "change",
    [
        (";\n    --gap", "; --gap"),  # two declarations a line
        ("}\n\n  @media", "}\n  @media"),  # no blank line
        (".x,\n  .y", ".x, .y"),  # two selectors a line
        ("    color", "   color"),  # indentation
        ("color: red", "color:red"),
        ("red;\n", "red;\n\n"),
    ],
)
def test_the_check_refuses_another_format_and_formatting_mends_it(
    change: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.css"
    file.write_text(FORMATTED.replace(*change, 1))
    assert main(["--check", str(file)]) == 1
    assert str(file) in capsys.readouterr().err
    assert file.read_text() != FORMATTED, "a check changes nothing"
    assert main([str(file)]) == 0
    assert file.read_text() == FORMATTED
    assert main(["--check", str(file)]) == 0


@pytest.mark.parametrize(
    "css",
    [
        ".a { color: red;",
        ".a { color: red; } }",
        ".a { color }",
        '.a { content: "x; }',
        ".a { color: /* why */ red; }",
        ".a { color: rgb(1; }",
        "/* no end",
    ],
)
def test_a_style_sheet_with_an_error_is_refused_and_left_alone(css: str, tmp_path: Path) -> None:
    file = tmp_path / "a.css"
    file.write_text(css)
    assert main([str(file)]) == 1
    assert file.read_text() == css


def test_make_lint_and_make_format_cover_all_style_sheets() -> None:
    """The rest of `make lint` runs in other tests."""
    folders = {file.parent for file in (ROOT / "static").rglob("*.css")}
    assert folders == {ROOT / "static" / "styles"}
    planned = {name: run(["make", "--dry-run", name]).stdout for name in ("lint", "format")}
    assert "tests.support.styles --check static/styles/*.css" in planned["lint"]
    assert "tests.support.styles static/styles/*.css" in planned["format"]
