"""Files: permissions of those with secrets, and validity of the config file."""

import stat
from collections.abc import Iterator
from pathlib import Path

import yaml

from portal.cli.checks.findings import Finding, Surroundings, bad, ok
from portal.domain.principals import OPERATOR
from portal.services.operations import bootstrap

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def rights(around: Surroundings) -> Iterator[Finding]:
    """Check that others cannot read the database and keys, or change what the portal reads."""
    file = around.file
    config = around.settings.config
    private: list[Path] = []
    if file is not None:
        beside = (Path(f"{file}-wal"), file.parent / "portal.env", Path(f"{file}.revocations"))
        private = [file, *beside]
    folders = [path.parent for path in (file, config) if path is not None]
    found = [_right(path, _OTHERS, "is accessible to other users", "600") for path in private]
    found += [
        _right(path, _OTHERS_WRITE, "is a folder that other users can write to", "go-w")
        for path in folders
    ]
    if config is not None:
        found.append(
            _right(config, stat.S_IRWXO | stat.S_IWGRP, "is accessible to other users", "640")
        )
    faults = [fault for fault in found if fault]
    yield from faults or [ok("file rights", "other users cannot read or change them")]


def config(around: Surroundings) -> Iterator[Finding]:
    """Check that the config file can be read."""
    file = around.settings.config
    if file is None:
        return
    try:
        loaded = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        yield bad(
            "config file",
            f"{file} cannot be read ({type(error).__name__})",
            "Check PORTAL_CONFIG and its permissions",
        )
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        yield bad(
            "config file",
            f"{file} is not valid YAML{where}",
            "Correct it: until then portal serve does not start",
        )
    else:
        if isinstance(loaded, dict):
            yield ok("config file", f"{file} is valid")
        else:
            yield bad(
                "config file",
                f"{file} has no mcp_servers: or general_settings:",
                "Correct it: until then it is ignored",
            )


def entries(around: Surroundings) -> Iterator[Finding]:
    """Check that the last start accepted every entry of the config file."""
    with around.database.session() as session:
        refused = bootstrap.refused_entries(session, OPERATOR)
    for one in refused:
        at = f"{one.at:%Y-%m-%d %H:%M} UTC"
        why = f"would send to another host: {one.told}" if one.moves else one.why.rstrip(".")
        goes_on = "; the server stays unchanged" if one.server_id else ""
        entry = f"mcp_servers.{one.entry}" if one.entry else "mcp_servers"
        yield bad(
            "config file", f"{entry} was refused at the start of {at}: {why}{goes_on}", one.remedy
        )
    if around.settings.config is not None and not refused:
        yield ok("config file", "the last start accepted every entry")


def _right(file: Path, forbidden: int, what: str, mode: str) -> Finding | None:
    if not file.exists() or not file.stat().st_mode & forbidden:
        return None
    return bad("file rights", f"{file} {what}", f"Run: chmod {mode} {file}")
