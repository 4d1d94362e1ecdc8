"""What was seen on the way from an MCP server to its authorization server, step by step."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from portal.domain.addresses import is_this_machine
from portal.domain.oauth import Discovery

# Visible ASCII without a backslash: every parser on the way sees the same address in it.
_ADDRESS = re.compile(r"[!-\[\]-~]{1,2048}\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TELLING = 8
"""A segment of a path with as many characters may be a key; a shorter one, like `mcp`, is not."""


class Verdict(StrEnum):
    """How a step went; `warn` goes on, but clients may stumble."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Step:
    """One look of a discovery: what was asked (`request`, its secrets cut), what came, what it
    means, and the remedy.

    `status` is the HTTP status, None where no answer came. `answer` is what of the answer may be
    shown.
    """

    title: str
    verdict: Verdict
    said: str
    request: str = ""
    status: int | None = None
    answer: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Walk:
    """A whole discovery: its steps, and what it found, if it found anything that may be used.

    `documents` holds what was read on the way, as far as it came: `challenge` (the parameters of
    WWW-Authenticate), `resource` (RFC 9728) and `server` (RFC 8414). They may name the server's
    URL, so they are not for showing.
    """

    steps: tuple[Step, ...]
    found: Discovery | None = None
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def fault(self) -> Step | None:
        """The step that ended it."""
        return next((step for step in reversed(self.steps) if step.verdict is Verdict.FAIL), None)


def shown_address(address: str, secret_path: str) -> str:
    """`address` as it may be shown: no query, and "…" for the path of the server's URL, which may
    hold a key."""
    parts = urlsplit(address)
    path = parts.path
    if len(secret_path.strip("/")) > 0:
        path = path.replace(secret_path.rstrip("/"), "/…")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"


def without_secrets(text: str, url: str) -> str:
    """`text` without what may be secret of the server's `url`: its path and query, whole or in
    parts."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    values = [pair.partition("=")[2] for pair in parts.query.split("&")]
    segments = [segment for segment in path.split("/") if len(segment) >= _TELLING]
    secrets = [parts.query, *(value for value in values if len(value) > 3), *segments]
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        text = text.replace(secret, "…") if len(secret) > 1 else text
    return text.replace(path, "/…") if len(path) > 1 else text


def is_secure(address: str) -> bool:
    """https, or http on this very machine, for development."""
    parts = _parts(address)
    if parts is None or not parts.hostname or "@" in parts.netloc or "#" in address:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(parts.hostname))


def same_issuer(one: str, other: str) -> bool:
    """Byte by byte (RFC 8414, 3.3), save that a bare host means the same with and without its
    slash."""
    if one == other:
        return True
    shorter, longer = sorted((one, other), key=len)
    return longer == f"{shorter}/" and urlsplit(shorter).path == ""


def covers(resource: str, url: str) -> bool:
    """Whether resource metadata for `resource` are about `url`: the same origin, and its path or a
    folder above it."""
    there = _parts(resource)
    here = _parts(url)
    if (
        there is None
        or here is None
        or "@" in there.netloc
        or "#" in resource
        or not there.hostname
    ):
        return False
    if _origin(there) != _origin(here):
        return False
    above = there.path.rstrip("/")
    return here.path.rstrip("/") == above or here.path.startswith(f"{above}/")


def _parts(address: str) -> SplitResult | None:
    """The parts of an address that can be read in one way only; None for any other."""
    if not _ADDRESS.match(address):
        return None
    try:
        parts = urlsplit(address)
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
