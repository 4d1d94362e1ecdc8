"""The steps and result of discovering the authorization server of an MCP server."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from portal.domain.addresses import is_this_machine
from portal.domain.oauth import Discovery

# Visible ASCII without a backslash, so that all parsers read the same URL.
_ADDRESS = re.compile(r"[!-\[\]-~]{1,2048}\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TELLING = 8
"""Minimum length of a path segment that may be a key. Shorter ones, like `mcp`, are not."""


class StepResult(StrEnum):
    """The result of a step. After `warn`, discovery continues, but some clients may fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class DiscoveryStep:
    """One step of a discovery: the request without secrets, the response, its meaning and a remedy.

    `status` is the HTTP status, or None without a response. `answer` is the part of the response
    that may be shown.
    """

    title: str
    verdict: StepResult
    said: str
    request: str = ""
    status: int | None = None
    answer: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Walk:
    """A whole discovery: its steps and, if it succeeded, its result.

    `documents` contains the documents that were read: `challenge` (the parameters of
    WWW-Authenticate), `resource` (RFC 9728) and `server` (RFC 8414). They may contain the server's
    URL, so they must not be shown.
    """

    steps: tuple[DiscoveryStep, ...]
    found: Discovery | None = None
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def fault(self) -> DiscoveryStep | None:
        """Return the step that failed, or None."""
        return next(
            (step for step in reversed(self.steps) if step.verdict is StepResult.FAIL), None
        )


def shown_address(address: str, secret_path: str) -> str:
    """Return a URL for display without query, and with "…" for the server's path (a secret)."""
    parts = urlsplit(address)
    path = parts.path
    if len(secret_path.strip("/")) > 0:
        path = path.replace(secret_path.rstrip("/"), "/…")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"


def without_secrets(text: str, url: str) -> str:
    """Return `text` without possible secrets of the server's `url`: its path and query values."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    values = [pair.partition("=")[2] for pair in parts.query.split("&")]
    segments = [segment for segment in path.split("/") if len(segment) >= _TELLING]
    secrets = [parts.query, *(value for value in values if len(value) > 3), *segments]
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        text = text.replace(secret, "…") if len(secret) > 1 else text
    return text.replace(path, "/…") if len(path) > 1 else text


def is_secure(address: str) -> bool:
    """Return whether a URL is https, or http on a loopback host for development."""
    parts = _parts(address)
    if parts is None or not parts.hostname or "@" in parts.netloc or "#" in address:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(parts.hostname))


def same_issuer(one: str, other: str) -> bool:
    """Return whether issuers are equal (RFC 8414, section 3.3), except for a bare host's slash."""
    if one == other:
        return True
    shorter, longer = sorted((one, other), key=len)
    return longer == f"{shorter}/" and urlsplit(shorter).path == ""


def covers(resource: str, url: str) -> bool:
    """Return whether `resource` metadata apply to `url`: same origin, equal or parent path."""
    there = _parts(resource)
    here = _parts(url)
    if there is None or here is None:
        return False
    if "@" in there.netloc or "#" in resource or not there.hostname:
        return False
    if _origin(there) != _origin(here):
        return False
    above = there.path.rstrip("/")
    return here.path.rstrip("/") == above or here.path.startswith(f"{above}/")


def _parts(address: str) -> SplitResult | None:
    """Return the parts of a URL that all parsers read the same way, or None."""
    if not _ADDRESS.match(address):
        return None
    try:
        parts = urlsplit(address)
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
