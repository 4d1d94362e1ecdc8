"""What a server needs from a user, and what they stored for it, without the values."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from portal.domain.credentials import setup_url
from portal.domain.principals import Principal
from portal.services.runtime import runtime_of
from portal.services.secrets import token_store
from portal.services.secrets.token_store import KIND, MORE_RIGHTS
from portal.services.servers import queries
from portal.services.servers.queries import RequiredVariable
from portal.store.models import Server, UserCredential, now


@dataclass(frozen=True)
class Requirement:
    """What one server needs from the caller."""

    server_id: str
    server_name: str | None
    alias: str | None
    required: tuple[RequiredVariable, ...]
    setup_url: str | None

    @property
    def missing(self) -> tuple[str, ...]:
        """The names that are not set."""
        return tuple(variable.name for variable in self.required if not variable.is_set)

    @property
    def missing_count(self) -> int:
        """The number of names that are not set."""
        return sum(not variable.is_set for variable in self.required)


@dataclass(frozen=True)
class KeyState:
    """Whether the caller's key for a BYOK server is stored, and since when (UTC)."""

    server_id: str
    has_credential: bool
    connected_at: datetime | None = None


@dataclass(frozen=True)
class ConnectionState:
    """The caller's connection to a server. Times are UTC.

    `needs` is what the caller has to do: "" (nothing), `connect`, `expired`, or `more_rights`, with
    which most tools still work. `note` tells which part of the request was not stored.
    """

    server_id: str
    has_credential: bool
    expires_at: datetime | None = None
    is_expired: bool = False
    connected_at: datetime | None = None
    scopes: tuple[str, ...] = ()
    account: str | None = None
    renews: bool = False
    needs: str = "connect"
    note: str | None = None


def requirement_of(session: Session, principal: Principal, row: Server) -> Requirement:
    """Return what `row` needs from the caller, who was allowed to load it."""
    required = queries.required_of(session, principal, [row.server_id]).get(row.server_id, ())
    link = setup_url(runtime_of(session).public_url, row.server_id) if required else None
    return Requirement(row.server_id, row.server_name, row.alias, required, link)


def key_state_of(session: Session, principal: Principal, row: Server) -> KeyState:
    """Return whether the caller's key for `row` is stored and readable."""
    held = session.get(UserCredential, (principal.user_id, row.server_id, "byok"))
    readable = held is not None and runtime_of(session).vault.knows_key_of(held.sealed)
    return KeyState(row.server_id, readable, held.connected_at if held and readable else None)


def connection_state_of(session: Session, principal: Principal, row: Server) -> ConnectionState:
    """Return the caller's connection to `row`."""
    held = session.get(UserCredential, (principal.user_id, row.server_id, KIND))
    return view_connection(session, row.server_id, held)


def view_connection(
    session: Session, server_id: str, credential: UserCredential | None
) -> ConnectionState:
    """Return a stored connection as its owner sees it; an unreadable one counts as none."""
    if credential is None or not runtime_of(session).vault.knows_key_of(credential.sealed):
        return ConnectionState(server_id, has_credential=False)
    expired = credential.expires_at is not None and credential.expires_at < now()
    needs = MORE_RIGHTS if credential.reconnect_because == MORE_RIGHTS else ""
    if not token_store.is_usable(credential, now()):
        needs = "expired"
    return ConnectionState(
        server_id,
        True,
        credential.expires_at,
        expired,
        credential.connected_at,
        tuple(credential.scopes),
        credential.account,
        credential.renewable,
        needs=needs,
    )
