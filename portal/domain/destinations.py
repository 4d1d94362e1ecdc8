"""Where each stored secret of a server may go, and which of them a change would send elsewhere: the
one decision.

Every path that changes a server, or tries out a change of one, comes to `moved`. It compares two
routes: where the definition led before, and where it would lead after. A stored secret whose
destination differs moves, whichever field made the difference. Nothing is read or written here.
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
TOKEN = "token"  # noqa: S105 - a part of a route
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
"""The parts of a route that a secret goes to. A credential that is not here, such as an address,
goes nowhere."""

FIELDS_OF = {
    RESOURCE: ("url", "spec_path", "transport", "args", "command"),
    TOKEN: ("token_url", "url", "spec_path", "transport"),
    EXCHANGE: ("credentials", "token_url", "url", "spec_path"),
    AUTHORIZE: ("authorization_url", "url", "spec_path"),
    REGISTRATION: ("registration_url", "url", "spec_path"),
    COMMAND_LINE: ("args", "command", "env"),
    COMMAND: ("command",),
}
"""The fields of a definition that decide about a part of a route."""


@dataclass(frozen=True)
class Route:
    """Where a definition leads. URLs as their origins; `discovered` is the host that discovery
    found for tokens."""

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
        """What two routes are compared by, and a ciphertext is bound to. Of a command line it is a
        digest."""
        if part == RESOURCE:
            return self.key(COMMAND_LINE) if self.transport == "stdio" else canonical(self.address)
        if part == COMMAND:
            return f"stdio:{self.command or ''}"
        if part == COMMAND_LINE:
            line = json.dumps([self.command or "", *self.args]).encode("utf-8", "surrogatepass")
            return f"stdio:{hashlib.sha256(line).hexdigest()}"
        typed = self._typed(part)
        if typed:
            return canonical(typed)
        return self.key(TOKEN) if part == EXCHANGE else f"discovery:{self.key(RESOURCE)}"

    def label(self, part: str) -> str:
        """The same for people: an origin, a command's name, or that it is found by discovery."""
        if part == RESOURCE:
            return self.label(COMMAND) if self.transport == "stdio" else self.address or "nowhere"
        if part in (COMMAND, COMMAND_LINE):
            return f"the command {self.command}" if self.command else "no command"
        typed = self._typed(part)
        if typed:
            return typed
        if part == EXCHANGE:
            return self.label(TOKEN)
        return self.discovered or f"what discovery finds at {self.label(RESOURCE)}"

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
    """A stored secret that a change leaves as it is: `secret` is its name, `people` how many hold
    one of theirs."""

    secret: str
    people: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """Where it goes."""
        return parts_of(self.secret)


@dataclass(frozen=True)
class Moved:
    """A stored secret that a change would send elsewhere: origins, never a path or a value."""

    secret: str
    before: str
    after: str
    part: str
    people: int = 0


def parts_of(secret: str) -> tuple[str, ...]:
    """The parts of a route that a secret goes to, by its name: `static_headers.X-Key`,
    `credentials.client_id`."""
    return PARTS_OF.get(secret) or PARTS_OF.get(secret.partition(".")[0], ())


def moved(before: Route, after: Route, held: Iterable[Held]) -> tuple[Moved, ...]:
    """The secrets that would go elsewhere than before, each with both ends."""
    found: dict[tuple[str, str, str], Moved] = {}
    for secret in held:
        for part in secret.parts:
            if before.key(part) != after.key(part):
                move = Moved(secret.secret, *_ends(before, after, part), part, secret.people)
                found.setdefault((move.secret, move.before, move.after), move)
    return tuple(found.values())


def field_at_fault(moves: Sequence[Moved], sent: Iterable[str]) -> str | None:
    """The field of a change that moves the first of `moves`."""
    names = set(sent)
    return (
        next((name for name in FIELDS_OF[moves[0].part] if name in names), None) if moves else None
    )


def _ends(before: Route, after: Route, part: str) -> tuple[str, str]:
    ends = before.label(part), after.label(part)
    if ends[0] != ends[1]:
        return ends
    what = "with other arguments" if before.label(part).startswith("the command") else "found anew"
    return ends[0], f"{ends[1]}, {what}"


@lru_cache(maxsize=4096)
def canonical(url: str | None) -> str:
    """An origin in one spelling: case, default port, IDNA, the dot at a host's end and IPv6 written
    one way."""
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
