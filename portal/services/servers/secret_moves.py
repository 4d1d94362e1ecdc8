"""Descriptions of stored secrets that a change moves."""

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
from portal.services.secrets.server_definition import origins_in, route_of
from portal.store.models import Server, ServerSecret

_AT_COMMAND = (COMMAND, COMMAND_LINE)


@dataclass(frozen=True)
class Settled:
    """What happened to stored secrets: which moved, or were deleted if `keep` is False."""

    keep: bool | None = None
    moved: tuple[Moved, ...] = ()
    dropped: tuple[str, ...] = ()
    people: int = 0
    disconnected: int = 0
    changed_auth: bool = False

    @property
    def wire(self) -> dict[str, object]:
        """The same for the API; empty if nothing happened."""
        said: dict[str, object] = {}
        if self.moved:
            said |= {
                "keep_credentials": self.keep,
                "secrets": moves_as_json(self.moved),
                "people": self.people,
            }
        if self.dropped:
            said["dropped"] = list(self.dropped)
        if self.disconnected:
            said["disconnected"] = self.disconnected
        return said

    @property
    def sentence(self) -> str:
        """The same for people; blank if nothing happened."""
        said = []
        if self.moved:
            did = "are now sent to another host" if self.keep else "were deleted"
            said.append(f"Stored secrets {did}: {words(self.moved)}.")
        if self.dropped:
            said.append(f"Deleted with the old authentication type: {', '.join(self.dropped)}.")
        if self.disconnected:
            said.append(f"Users who have to sign in again: {self.disconnected}.")
        return " ".join(said)


@dataclass(frozen=True)
class Going:
    """Where a secret goes, as a review shows it; `before` is its old destination, if it would move.

    `is_own_host` tells whether that is the server's own host.
    """

    secret: str
    to: str
    before: str
    is_own_host: bool


@dataclass(frozen=True)
class Address:
    """An address of a definition, as a review shows it: its field, label and origin.

    `is_own_host` tells whether that is the server's own host.
    """

    field: str
    label: str
    origin: str
    is_own_host: bool


def addresses(session: Session, row: Server) -> tuple[Address, ...]:
    """Return the origin of each address in a server's definition."""
    return addresses_among(origins_in(runtime_of(session).vault, row, row.secrets), row.address)


def addresses_among(origins: Mapping[str, str], own: str | None) -> tuple[Address, ...]:
    """Return the addresses for `origins` by field; `own` is the address of the server itself."""
    host = _host_of(own)
    return tuple(
        Address(name, label_of(name), origin, _host_of(origin) == host)
        for name, origin in origins.items()
    )


def going(session: Session, row: Server, moves: tuple[Moved, ...] = ()) -> tuple[Going, ...]:
    """Return where each secret of a server goes; `moves` are those that would move there."""
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
        Going(moved_name(m), m.after, m.before, _host_of(m.after) == _host_of(route.address))
        for m in before.values()
    )
    return tuple(sorted((*found.values(), *rest), key=lambda g: (g.is_own_host, g.secret)))


def _host_of(origin: str | None) -> str | None:
    """Return the normalized host of an origin; None if it is not an origin, as before discovery."""
    return urlsplit(destinations.canonical_origin(origin)).hostname


def record_moves(session: Session, principal: Principal, row: Server, settled: Settled) -> None:
    """Record in the audit log what happened to stored secrets, with both origins."""
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
            secrets=moves_as_json(settled.moved),
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
            because="authentication type changed",
        )
    if settled.disconnected:
        audit.record(
            session,
            principal,
            "connections ended",
            *target,
            name=row.server_name,
            people=settled.disconnected,
            because="server changed",
        )


def moves_as_json(moves: Iterable[Moved]) -> list[dict[str, object]]:
    """Return moves as the API and the audit log list them."""
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
    """Return moves as a phrase."""
    return "; ".join(f"{moved_name(m)} (from {m.before} to {m.after})" for m in moves)


def read_moves(said: Iterable[Mapping[str, Any]]) -> tuple[Moved, ...]:
    """Parse moves from `moves_as_json`. The part of the route is not included."""
    return tuple(Moved(m["secret"], m["from"], m["to"], "", m.get("people", 0)) for m in said)


def moved_name(move: Moved) -> str:
    """Return the name of a secret for people; users' secrets by their number."""
    who = "1 person" if move.people == 1 else f"{move.people} people"
    called = {
        "people.values": f"the values of {who}",
        "people.keys": f"the keys of {who}",
        "people.connections": f"the sign-ins of {who}",
        "client_registration": "the portal’s client registration",
        "args": "the arguments",
    }
    return called.get(move.secret, move.secret)


def move_conflict(
    moves: tuple[Moved, ...], sent: Iterable[str], people: int, *, why: str = ""
) -> Conflict:
    """Build the `Conflict` that lists each secret that would move, and how to resolve it."""
    why = why or (
        "Send new values for each, or set keep_credentials to true to send the stored values, or"
        " to false to delete them."
    )
    return Conflict(
        f"Stored secrets would be sent to another host: {words(moves)}. {why}",
        code="credentials_would_move",
        field=destinations.field_at_fault(moves, sent),
        secrets=moves_as_json(moves),
        people=people,
    )


def secret_name(secret: ServerSecret) -> str:
    """Return the name of a stored value, such as `static_headers.X-Key` or `args`."""
    return f"{secret.field}.{secret.name}" if secret.name else secret.field
