"""What issued tokens depend on, and which tokens end when that changes."""

from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from portal.domain.oauth import canonical_resource
from portal.services.oauth_client import flows
from portal.services.secrets.server_definition import opened
from portal.store.models import Server, UserCredential
from portal.store.oauth_tables import (
    STALE,
    OAuthClientRegistration,
    ServerAuthorization,
    SharedToken,
)

_ASKED_WITH = ("scopes", "audience", "subject_token_type", "token_exchange_endpoint", "client_id")


@dataclass(frozen=True)
class MintedFor:
    """What a server's tokens depend on: those of users, and those the portal requests itself."""

    people: tuple[object, ...]
    shared: tuple[object, ...]


def minted_for(session: Session, row: Server) -> MintedFor:
    """Return what tokens depend on; they are invalid once it changes."""
    definition = opened(session, row, credentials=True)
    urls = definition.urls
    credentials = definition.credentials
    resource = canonical_resource(urls["url"]) if urls.get("url") else ""
    asked = tuple(urls.get(name) for name in ("authorization_url", "token_url"))
    people = (row.auth_type, row.oauth2_flow, resource, *asked, credentials.get("scopes"))
    return MintedFor(people, (*people, *(credentials.get(name) for name in _ASKED_WITH)))


def end_connections(session: Session, row: Server) -> int:
    """Delete users' OAuth tokens for a server, and return the number of users."""
    held = (UserCredential.server_id == row.server_id, UserCredential.kind == "oauth2")
    people = session.scalar(select(func.count()).select_from(UserCredential).where(*held)) or 0
    if people:
        session.execute(delete(UserCredential).where(*held))
    return people


def end_shared(session: Session, row: Server) -> None:
    """Delete the tokens that the portal requested itself."""
    session.execute(delete(SharedToken).where(SharedToken.server_id == row.server_id))


def forget_authorization(
    session: Session, row: Server, *, keep_issuer: bool = False, keep_registrations: bool = False
) -> None:
    """Delete what was discovered, registered and fetched for a server that changed, and its flows.

    `keep_issuer` keeps the issuer and the origins of its endpoints: discovery is repeated, and must
    not lead stored credentials elsewhere before an Admin has reviewed the change.
    """
    end_shared(session, row)
    if keep_issuer:
        known = session.get(ServerAuthorization, row.server_id)
        if known is not None and known.found:
            known.found = {**known.found, STALE: True}
    else:
        session.execute(
            delete(ServerAuthorization).where(ServerAuthorization.server_id == row.server_id)
        )
    if not keep_registrations:
        session.execute(
            delete(OAuthClientRegistration).where(
                OAuthClientRegistration.server_id == row.server_id
            )
        )
    flows.forget_flows(session, server_id=row.server_id)
