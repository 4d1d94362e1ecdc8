"""What was seen on the way from an MCP server to its authorization server, step by step."""

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from portal.domain.addresses import in_ranges
from portal.domain.oauth import Discovery


class Verdict(StrEnum):
    """How a step went; `warn` goes on, but clients may stumble."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Step:
    """One look of a discovery: what was asked (`request`, its secrets cut), what came, what it means, and the remedy.

    `status` is the HTTP status, None where no answer came. `answer` is what of the answer may be shown.
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
    """A whole discovery: its steps, and what it found, if it found anything that may be used."""

    steps: tuple[Step, ...]
    found: Discovery | None = None

    @property
    def fault(self) -> Step | None:
        """The step that ended it."""
        return next((step for step in reversed(self.steps) if step.verdict is Verdict.FAIL), None)


def shown_address(address: str, secret_path: str) -> str:
    """`address` as it may be shown: no query, and "…" for the path of the server's URL, which may hold a key."""
    parts = urlsplit(address)
    path = parts.path
    if len(secret_path.strip("/")) > 0:
        path = path.replace(secret_path.rstrip("/"), "/…")
    return f"{parts.scheme}://{parts.netloc}{path}"


def is_secure(address: str) -> bool:
    """https, or http on this very machine, for development (R-OAUTH-23, R-OAUTH-52)."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not host or parts.username or parts.fragment:
        return False
    is_loopback = host == "localhost" or in_ranges(host, ("127.0.0.0/8", "::1/128"))
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback)


def same_issuer(one: str, other: str) -> bool:
    """Byte by byte (RFC 8414, 3.3), save that a bare host means the same with and without its slash."""
    if one == other:
        return True
    shorter, longer = sorted((one, other), key=len)
    return longer == f"{shorter}/" and urlsplit(shorter).path == ""


def covers(resource: str, url: str) -> bool:
    """Whether resource metadata for `resource` are about `url`: the same origin, and its path or a folder above it."""
    there, here = urlsplit(resource), urlsplit(url)
    if (there.scheme, there.hostname, there.port) != (here.scheme, here.hostname, here.port):
        return False
    above = there.path.rstrip("/")
    return here.path.rstrip("/") == above or here.path.startswith(f"{above}/")
