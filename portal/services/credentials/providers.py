"""The authorization server discovered for a server: viewing and resetting it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.oauth_client import minted_tokens, revocation, service_tokens
from portal.services.secrets.token_store import KIND
from portal.services.servers import queries
from portal.store.models import UserCredential
from portal.store.oauth_tables import ServerAuthorization


@dataclass(frozen=True)
class ProviderView:
    """A server's sign-in provider, its discovery time (UTC), and the number of connected users."""

    issuer: str
    discovered_at: datetime
    people: int


def get_provider(session: Session, principal: Principal, server_id: str) -> ProviderView | None:
    """Return the discovered provider; None if there is none, or if its URLs were entered."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT).row
    known = session.get(ServerAuthorization, row.server_id)
    if known is None:
        return None
    connected = (UserCredential.server_id == row.server_id, UserCredential.kind == KIND)
    people = session.scalar(select(func.count()).select_from(UserCredential).where(*connected)) or 0
    return ProviderView(known.issuer, known.discovered_at, people)


def forget_provider(session: Session, principal: Principal, server_id: str) -> int:
    """Delete the discovered provider, its registrations, and all users' connections.

    An Admin does this to accept a new issuer, even for a server of the config file. Returns how
    many users were disconnected.
    """
    row = queries.find_server(session, principal, server_id, Action.SERVER_PROBE).row
    minted_tokens.forget_authorization(session, row)
    connected = (UserCredential.server_id == row.server_id, UserCredential.kind == KIND)
    gone = session.execute(delete(UserCredential).where(*connected))
    people = int(getattr(gone, "rowcount", 0))
    audit.record(
        session, principal, "sign-in provider forgotten", "server", row.server_id, people=people
    )
    session.flush()
    return people


def clean_up_tokens(session: Session, principal: Principal) -> None:
    """Delete expired shared tokens, and revoke tokens of deleted servers and users upstream.

    Commits, because it makes outgoing requests for a few seconds.
    """
    service_tokens.delete_expired_tokens(session)
    for (server_id, confirmed), number in revocation.ask_due(session).items():
        action = "connections revoked" if confirmed else "connections not revoked"
        audit.record(session, principal, action, "server", server_id, connections=number)
