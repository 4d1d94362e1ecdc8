"""What is said of stored secrets that a change moves: to who asks, on the record, and to a
reviewer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from portal.domain import destinations
from portal.domain.destinations import COMMAND, COMMAND_LINE, Moved
from portal.domain.errors import Conflict
from portal.domain.principals import Principal
from portal.domain.submissions import label_of
from portal.services import audit
from portal.services.runtime import runtime_of
from portal.services.secrets.server_definition import origins_of, route_of
from portal.store.models import Server, ServerSecret

_AT_COMMAND = (COMMAND, COMMAND_LINE)


@dataclass(frozen=True)
class Settled:
    """What became of stored secrets: which moved or, where `keep` is False, were forgotten, and
    what else ended."""

    keep: bool | None = None
    moved: tuple[Moved, ...] = ()
    dropped: tuple[str, ...] = ()
    people: int = 0
    disconnected: int = 0
    changed_auth: bool = False

    @property
    def wire(self) -> dict[str, object]:
        """The same as the API says it; empty where nothing became of anything."""
        said: dict[str, object] = {}
        if self.moved:
            said |= {
                "keep_credentials": self.keep,
                "secrets": as_json(self.moved),
                "people": self.people,
            }
        if self.dropped:
            said["dropped"] = list(self.dropped)
        if self.disconnected:
            said["disconnected"] = self.disconnected
        return said

    @property
    def sentence(self) -> str:
        """The same for people; blank where nothing became of anything."""
        said = []
        if self.moved:
            did = "now go to another host" if self.keep else "are forgotten"
            said.append(f"Stored secrets {did}: {words(self.moved)}.")
        if self.dropped:
            said.append(f"Forgotten with the old way of signing in: {', '.join(self.dropped)}.")
        if self.disconnected:
            said.append(
                "Sign-ins that ended, as they were made for what was there before:"
                f" {self.disconnected}."
            )
        return " ".join(said)


@dataclass(frozen=True)
class Going:
    """Where a secret goes, as a review shows it; `before` is where it went, for a stored one that
    would move.

    `is_own_host`: whether that is the host of the server itself.
    """

    secret: str
    to: str
    before: str
    is_own_host: bool


@dataclass(frozen=True)
class Address:
    """An address of a definition, as a review shows it: its field, what it is called, its origin.

    `is_own_host`: whether that is the host of the server itself.
    """

    field: str
    label: str
    origin: str
    is_own_host: bool


def addresses(session: Session, row: Server) -> tuple[Address, ...]:
    """Where a server's definition leads, address by address, whoever may read the addresses
    themselves."""
    return addresses_among(origins_of(runtime_of(session).vault, row, row.secrets), row.address)


def addresses_among(origins: Mapping[str, str], own: str | None) -> tuple[Address, ...]:
    """The same of `origins` by field; `own` is the address of the server itself."""
    host = _host_of(own)
    return tuple(
        Address(name, label_of(name), origin, _host_of(origin) == host)
        for name, origin in origins.items()
    )


def going(session: Session, row: Server, moves: tuple[Moved, ...] = ()) -> tuple[Going, ...]:
    """Where each secret of a server goes, or would go as it stands in `row`; `moves` are those that
    were elsewhere."""
    route = route_of(session, row)
    before = {(m.secret, m.after): m for m in moves}
    names = [secret_name(s) for s in row.secrets]
    names += [f"env_vars.{v.name}" for v in row.variables if v.sealed is not None]
    found: dict[tuple[str, str], Going] = {}
    for name in names:
        for part in destinations.parts_of(name):
            to = route.label(part)
            move = before.pop((name, to), None)
            own = part in _AT_COMMAND or _host_of(to) in (None, _host_of(route.address))
            found.setdefault((name, to), Going(name, to, move.before if move else "", own))
    rest = (
        Going(name_of(m), m.after, m.before, _host_of(m.after) == _host_of(route.address))
        for m in before.values()
    )
    return tuple(sorted((*found.values(), *rest), key=lambda g: (g.is_own_host, g.secret)))


def _host_of(origin: str | None) -> str | None:
    """The host of an origin in one spelling; None for what is no origin, as where discovery
    decides."""
    return urlsplit(destinations.canonical(origin)).hostname


def record(session: Session, principal: Principal, row: Server, settled: Settled) -> None:
    """Put on record what became of stored secrets, with both origins."""
    target = ("server", row.server_id)
    if settled.moved:
        action = "secrets moved" if settled.keep else "secrets forgotten"
        audit.record(
            session,
            principal,
            action,
            *target,
            name=row.server_name,
            keep_credentials=bool(settled.keep),
            secrets=as_json(settled.moved),
            people=settled.people,
        )
    if settled.dropped:
        audit.record(
            session,
            principal,
            "credentials dropped",
            *target,
            name=row.server_name,
            secrets=list(settled.dropped),
            because="another way of signing in",
        )
    if settled.disconnected:
        audit.record(
            session,
            principal,
            "connections ended",
            *target,
            name=row.server_name,
            people=settled.disconnected,
            because="what they were made for changed",
        )


def as_json(moves: Iterable[Moved]) -> list[dict[str, object]]:
    """Moves as the API and the audit name them."""
    return [
        {
            "secret": m.secret,
            "from": m.before,
            "to": m.after,
            **({"people": m.people} if m.people else {}),
        }
        for m in moves
    ]


def words(moves: Iterable[Moved]) -> str:
    """Moves as a sentence names them."""
    return "; ".join(f"{name_of(m)} (from {m.before} to {m.after})" for m in moves)


def moved(said: Iterable[Mapping[str, Any]]) -> tuple[Moved, ...]:
    """Moves as `as_json` named them; which part of the route it was is not told."""
    return tuple(Moved(m["secret"], m["from"], m["to"], "", m.get("people", 0)) for m in said)


def name_of(move: Moved) -> str:
    """What a secret is called where people read it; those of people by their number."""
    who = "1 person" if move.people == 1 else f"{move.people} people"
    called = {
        "people.values": f"the values of {who}",
        "people.keys": f"the keys of {who}",
        "people.connections": f"the sign-ins of {who}",
        "client_registration": "the portal’s client registration",
        "args": "the arguments",
    }
    return called.get(move.secret, move.secret)


def refusal(
    moves: tuple[Moved, ...], sent: Iterable[str], people: int, *, why: str = ""
) -> Conflict:
    """The `Conflict` that names each secret that would move, with the remedy."""
    why = why or (
        "Send new values for each, or say keep_credentials: true to let them go along, or false to"
        " forget them."
    )
    return Conflict(
        f"Stored secrets would be sent to another host: {words(moves)}. {why}",
        code="credentials_would_move",
        field=destinations.field_at_fault(moves, sent),
        secrets=as_json(moves),
        people=people,
    )


def secret_name(secret: ServerSecret) -> str:
    """What a stored value is called: `static_headers.X-Key`, `args`."""
    return f"{secret.field}.{secret.name}" if secret.name else secret.field
