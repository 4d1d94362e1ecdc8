"""Destinations of a server's stored secrets, and the secrets that a change would send elsewhere.

All code that changes a server, or tests a change, calls `moved`. It compares the destinations of a
definition before and after the change. A stored secret moves if its destination differs, no matter
which field changed. This module has no input or output.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

import idna

from portal.domain.servers import origin_of

RESOURCE = "resource"
TOKEN = "token"  # noqa: S105 - the name of a destination
EXCHANGE = "exchange"
AUTHORIZE = "authorize"
REGISTRATION = "registration"
COMMAND_LINE = "command line"
COMMAND = "command"

PARTS_OF = {
    "static_headers": (RESOURCE,),
    "env_vars": (RESOURCE,),
    "env": (COMMAND_LINE,),
    "args": (COMMAND,),
    "credentials.auth_value": (RESOURCE,),
    "credentials.aws_access_key_id": (RESOURCE,),
    "credentials.aws_secret_access_key": (RESOURCE,),
    "credentials.aws_session_token": (RESOURCE,),
    "credentials.aws_region_name": (RESOURCE,),
    "credentials.aws_service_name": (RESOURCE,),
    "credentials.aws_role_name": (RESOURCE,),
    "credentials.aws_session_name": (RESOURCE,),
    "credentials.client_id": (TOKEN, EXCHANGE, AUTHORIZE),
    "credentials.client_secret": (TOKEN, EXCHANGE),
    "credentials.scopes": (TOKEN, EXCHANGE, AUTHORIZE),
    "credentials.audience": (EXCHANGE,),
    "credentials.subject_token_type": (EXCHANGE,),
    "client_registration": (TOKEN, REGISTRATION),
    "people.values": (RESOURCE,),
    "people.keys": (RESOURCE,),
    "people.connections": (RESOURCE, TOKEN, EXCHANGE),
}
"""The destinations of each secret. A credential that is not listed, such as a URL, is not sent."""

FIELDS_OF = {
    RESOURCE: ("url", "spec_path", "transport", "args", "command"),
    TOKEN: ("token_url", "url", "spec_path", "transport"),
    EXCHANGE: ("credentials", "token_url", "url", "spec_path"),
    AUTHORIZE: ("authorization_url", "url", "spec_path"),
    REGISTRATION: ("registration_url", "url", "spec_path"),
    COMMAND_LINE: ("args", "command", "env"),
    COMMAND: ("command",),
}
"""The fields of a definition that determine each destination."""


@dataclass(frozen=True)
class Route:
    """The destinations of a definition, with URLs as origins.

    `discovered` is the token host that discovery found.
    """

    transport: str = ""
    address: str | None = None
    command: str | None = None
    args: Sequence[str] = field(default=(), repr=False)
    authorization_url: str | None = None
    token_url: str | None = None
    registration_url: str | None = None
    exchange: str | None = None
    discovered: str | None = None

    def key(self, part: str) -> str:
        """Return the key for comparing destinations, to which ciphertexts are bound.

        For a command line, it is a digest.
        """
        if part == RESOURCE:
            return (
                self.key(COMMAND_LINE)
                if self.transport == "stdio"
                else canonical_origin(self.address)
            )
        if part == COMMAND:
            return f"stdio:{self.command or ''}"
        if part == COMMAND_LINE:
            line = json.dumps([self.command or "", *self.args]).encode("utf-8", "surrogatepass")
            return f"stdio:{hashlib.sha256(line).hexdigest()}"
        typed = self._typed(part)
        if typed:
            return canonical_origin(typed)
        return self.key(TOKEN) if part == EXCHANGE else f"discovery:{self.key(RESOURCE)}"

    def label(self, part: str) -> str:
        """Return the destination for display: an origin, a command, or a note on discovery."""
        if part == RESOURCE:
            return (
                self.label(COMMAND)
                if self.transport == "stdio"
                else self.address or "no destination"
            )
        if part in (COMMAND, COMMAND_LINE):
            return f"the command {self.command}" if self.command else "no command"
        typed = self._typed(part)
        if typed:
            return typed
        if part == EXCHANGE:
            return self.label(TOKEN)
        return self.discovered or f"the provider discovered at {self.label(RESOURCE)}"

    def _typed(self, part: str) -> str | None:
        typed = {
            TOKEN: self.token_url,
            EXCHANGE: self.exchange,
            AUTHORIZE: self.authorization_url,
            REGISTRATION: self.registration_url,
        }
        return typed[part]


@dataclass(frozen=True)
class Held:
    """A stored secret that a change keeps; `people` is the number of users with their own."""

    secret: str
    people: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """Return its destinations."""
        return parts_of(self.secret)


@dataclass(frozen=True)
class Moved:
    """A stored secret that a change would send elsewhere, with origins only."""

    secret: str
    before: str
    after: str
    part: str
    people: int = 0


def parts_of(secret: str) -> tuple[str, ...]:
    """Return the destinations of a secret by name, such as `static_headers.X-Key`."""
    return PARTS_OF.get(secret) or PARTS_OF.get(secret.partition(".")[0], ())


def moved(before: Route, after: Route, held: Iterable[Held]) -> tuple[Moved, ...]:
    """Return the secrets that would go elsewhere, with old and new destination."""
    found: dict[tuple[str, str, str], Moved] = {}
    for secret in held:
        for part in secret.parts:
            if before.key(part) != after.key(part):
                move = Moved(secret.secret, *_ends(before, after, part), part, secret.people)
                found.setdefault((move.secret, move.before, move.after), move)
    return tuple(found.values())


def field_at_fault(moves: Sequence[Moved], sent: Iterable[str]) -> str | None:
    """Return the changed field that causes the first of `moves`, or None."""
    names = set(sent)
    return (
        next((name for name in FIELDS_OF[moves[0].part] if name in names), None) if moves else None
    )


def _ends(before: Route, after: Route, part: str) -> tuple[str, str]:
    ends = before.label(part), after.label(part)
    if ends[0] != ends[1]:
        return ends
    change = (
        "different arguments" if before.label(part).startswith("the command") else "rediscovered"
    )
    return ends[0], f"{ends[1]} ({change})"


@lru_cache(maxsize=4096)
def canonical_origin(url: str | None) -> str:
    """Return a URL's origin in canonical form: case, default port, IDNA, trailing dot and IPv6."""
    origin = origin_of(url)
    if origin is None:
        return ""
    parts = urlsplit(origin)
    host = (parts.hostname or "").rstrip(".")
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{_host(host)}{port}"


def _host(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        pass
    else:
        return f"[{address.compressed}]" if address.version == 6 else str(address)
    try:
        return host.lower() if host.isascii() else idna.encode(host.lower()).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return host
