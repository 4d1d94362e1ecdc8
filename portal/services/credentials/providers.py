"""The authorization server that was discovered for a server: seen and forgotten by those who run
the portal."""

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
class SignInProvider:
    """Where a server sends people to sign in, since when (UTC) that is known, and how many are
    connected."""

    issuer: str
    discovered_at: datetime
    people: int


def get_provider(session: Session, principal: Principal, server_id: str) -> SignInProvider | None:
    """What was discovered for a server; None where nothing was, or where its URLs are typed."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT).row
    known = session.get(ServerAuthorization, row.server_id)
    if known is None:
        return None
    connected = (UserCredential.server_id == row.server_id, UserCredential.kind == KIND)
    people = session.scalar(select(func.count()).select_from(UserCredential).where(*connected)) or 0
    return SignInProvider(known.issuer, known.discovered_at, people)


def forget_provider(session: Session, principal: Principal, server_id: str) -> int:
    """Forget what was discovered and registered, with everybody's connections, which are worth
    nothing elsewhere.

    This is how an Admin takes a new issuer, also of a server from the config. Answers how many
    people were disconnected.
    """
    row = queries.find_server(session, principal, server_id, Action.SERVER_PROBE).row
    minted_tokens.forget(session, row)
    connected = (UserCredential.server_id == row.server_id, UserCredential.kind == KIND)
    gone = session.execute(delete(UserCredential).where(*connected))
    people = int(getattr(gone, "rowcount", 0))
    audit.record(
        session, principal, "sign-in provider forgotten", "server", row.server_id, people=people
    )
    session.flush()
    return people


def sweep(session: Session, principal: Principal) -> None:
    """Delete shared tokens that have run out, and revoke upstream what ended here with a server or
    a person.

    Commits: it asks other machines, for some seconds at most.
    """
    service_tokens.sweep(session)
    for (server_id, confirmed), number in revocation.ask_due(session).items():
        action = "connections revoked" if confirmed else "connections not revoked"
        audit.record(session, principal, action, "server", server_id, connections=number)
