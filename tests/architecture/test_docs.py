"""README and docs say what is so: every setting, command, path, picture and link; and they build as
a website."""

import re
import shutil
from pathlib import Path

import click
import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from portal.cli import main
from portal.settings import Settings
from tests.support.peers import ROOT, run

DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *sorted(DOCS.rglob("*.md")),
    )
}
README = PAGES["README.md"]
MOST_LINES_OF_README = 120
MOST_BYTES_OF_A_PICTURE = 150_000
CODE_PATH = re.compile(
    r"`((?:portal|templates|static|migrations|examples|deploy|tests|bench)/[\w./-]*)`"
)
FETCHED = re.compile(
    r"""(?:<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=["']?|url\(["']?|@import ["']?)https?://[^"')>]+"""
)


def type_of(field: FieldInfo) -> str:
    """What kind of value a setting takes, in words."""
    kinds = str(field.annotation)
    if field.annotation is bool:
        return "true/false"
    if "bool" in kinds:
        return "true/false or list"
    if field.annotation is int:
        low, high = (
            getattr(limit, name) for limit, name in zip(field.metadata, ("ge", "le"), strict=True)
        )
        return f"{low} to {high}"
    if "tuple" in kinds:
        return "list"
    if SecretStr.__name__ in kinds:
        return "secret"
    return "path" if "Path" in kinds else "text"


def default_of(field: FieldInfo) -> str:
    """What holds where nothing is set."""
    if field.is_required():
        return "required"
    if field.default in (None, ()):
        return "–"
    value = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{value}`"


def settings_table() -> str:
    """Return the table as docs/configuration.md has to have it."""
    rows = [
        f"| `PORTAL_{name.upper()}` | {type_of(field)} | {default_of(field)} |"
        f" {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| Setting | Type | Default | Meaning |", "|---|---|---|---|", *rows])


def commands(group: click.Group, prefix: str = "portal") -> set[str]:
    """Every command line that exists, without arguments."""
    found = {prefix}
    for name, command in group.commands.items():
        inner = commands(command, f"{prefix} {name}") if isinstance(command, click.Group) else set()
        found |= {f"{prefix} {name}"} | inner
    return found


def code_in(page: str) -> str:
    """Return what a page shows as code: its blocks and spans, a line each."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", PAGES[page], re.DOTALL))


def pictures_named() -> set[str]:
    """Return the file names of the screenshots that README and docs show."""
    return {name for text in PAGES.values() for name in re.findall(r"screenshots/([\w.-]+)", text)}


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES_OF_README


def test_docs_have_the_table_of_the_settings() -> None:
    table = settings_table()
    assert table in PAGES["docs/configuration.md"], f"the table has to be:\n\n{table}"


@pytest.mark.parametrize("page", PAGES)
def test_every_portal_command_that_is_named_exists(page: str) -> None:
    known = commands(main)
    for line in re.findall(r"(?:^|[`/])(portal(?: [a-z]+)+)", code_in(page), re.MULTILINE):
        words = line.split()
        most = max((n for n in range(2, len(words) + 1) if " ".join(words[:n]) in known), default=0)
        assert most, f"{page} names `{line}`"


def test_the_page_about_commands_has_every_command() -> None:
    text = PAGES["docs/command-line.md"]
    groups = {line.rpartition(" ")[0] for line in commands(main)}
    missing = [
        line for line in sorted(commands(main) - groups) if not re.search(rf"`{line}\b", text)
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_is_named_exists(page: str) -> None:
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = set(re.findall(r"(?:^|`)make ([a-z]+(?:-[a-z]+)*)", code_in(page), re.MULTILINE))
    assert named <= targets
    if page == "README.md":
        assert {"run", "test"} <= named


@pytest.mark.parametrize("page", PAGES)
def test_every_path_of_the_code_that_is_named_exists(page: str) -> None:
    missing = [path for path in CODE_PATH.findall(PAGES[page]) if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:\]\(|src=\")([^)#\"]+)", README))))
def test_every_link_and_picture_of_readme_is_there(target: str) -> None:
    assert not target.startswith("http"), "README needs no other host"
    assert (ROOT / target).is_file()


def test_pictures_are_small_and_each_is_shown() -> None:
    pictures = list((DOCS / "screenshots").glob("*.png"))
    assert {picture.name for picture in pictures} == pictures_named()
    for picture in pictures:
        assert picture.stat().st_size < MOST_BYTES_OF_A_PICTURE, picture.name


def test_the_docs_build_without_a_broken_link_and_load_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    told = run(["make", "docs", f"FOLDER={tmp_path}"])
    assert told.returncode == 0, told.stdout + told.stderr
    built = list(tmp_path.rglob("*.html"))
    assert {path.name for path in built} >= {
        path.with_suffix(".html").name for path in DOCS.glob("*.md")
    }
    for path in (*built, *tmp_path.rglob("*.css")):
        assert not FETCHED.findall(path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize(
    "broken", ["[x](nowhere.md)", "[x](api.md#nowhere)", "![x](screenshots/nowhere.png)"]
)
def test_a_broken_link_stops_the_build(broken: str, tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    page = tmp_path / "docs" / "sso.md"
    page.write_text(f"{page.read_text(encoding='utf-8')}\n{broken}\n", encoding="utf-8")
    told = run(["make", "docs", f"MKDOCS_CONFIG={tmp_path}/mkdocs.yml", f"FOLDER={tmp_path}/site"])
    assert told.returncode != 0
    assert "nowhere" in told.stderr


if __name__ == "__main__":
    click.echo(settings_table())
