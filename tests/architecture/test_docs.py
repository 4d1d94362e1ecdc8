"""README says what is so: every setting, every command, every picture and link."""

import re
from pathlib import Path

import click
import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from portal.cli import main
from portal.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_BYTES_OF_A_PICTURE = 150_000


def type_of(field: FieldInfo) -> str:
    """What kind of value a setting takes, in words."""
    kinds = str(field.annotation)
    if field.annotation is bool:
        return "true/false"
    if "bool" in kinds:
        return "true/false or list"
    if field.annotation is int:
        low, high = (getattr(limit, name) for limit, name in zip(field.metadata, ("ge", "le"), strict=True))
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
    """The table as README has to have it."""
    rows = [
        f"| `PORTAL_{name.upper()}` | {type_of(field)} | {default_of(field)} | {field.description} |"
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


def test_readme_has_the_table_of_the_settings() -> None:
    assert settings_table() in README, f"the table has to be:\n\n{settings_table()}"


def test_every_portal_command_that_readme_names_exists() -> None:
    known = commands(main)
    named = re.findall(r"(?:^|[`/])(portal(?: [a-z]+)+)", README, re.MULTILINE)
    assert named
    for line in named:
        words = line.split()
        most = max((n for n in range(2, len(words) + 1) if " ".join(words[:n]) in known), default=0)
        assert most, f"README names `{line}`"


def test_every_make_target_that_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"run", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)", README))))
def test_every_link_and_picture_of_readme_is_there(target: str) -> None:
    assert not target.startswith("http"), "README needs no other host"
    assert (ROOT / target).is_file()


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs" / "screenshots").glob("*.png"):
        assert picture.stat().st_size < MOST_BYTES_OF_A_PICTURE, picture.name


if __name__ == "__main__":
    click.echo(settings_table())
