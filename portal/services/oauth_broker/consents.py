"""The apps that a user allowed to use servers through the portal: listing and revoking them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.errors import NotFound
from portal.domain.principals import Principal
from portal.domain.redirects import shown_destination
from portal.services import audit
from portal.services.oauth_client.flows import forget_flows
from portal.services.servers import queries
from portal.store.models import Server
from portal.store.oauth_tables import Consent


@dataclass(frozen=True)
class AllowedApp:
    """An allowed app; `handle` identifies it in a form.

    Everything but the times (UTC) and the server is the app's own claim. `is_ours`: the app has
    tokens of the portal, which end with the consent.
    """

    handle: str
    claimed_name: str | None
    client_id: str
    destination: str
    server_name: str
    scopes: tuple[str, ...]
    given_at: datetime
    last_used_at: datetime | None = None
    is_ours: bool = False


def list_own_apps(session: Session, principal: Principal) -> list[AllowedApp]:
    """Return the apps that the caller allowed, newest first, in one query.

    Servers that the caller may no longer see are listed by id.
    """
    query = (
        select(Consent, *queries.names_known_to(principal))
        .join(Server, Server.server_id == Consent.server_id)
        .where(Consent.user_id == principal.user_id)
        .order_by(Consent.given_at.desc(), Consent.client_hash)
    )
    return [
        AllowedApp(
            f"{row.server_id} {row.client_hash}",
            row.client_name,
            row.client_id,
            shown_destination(row.redirect_uri),
            name or alias or row.server_id,
            tuple(row.scopes),
            row.given_at,
        )
        for row, name, alias in session.execute(query)
    ]


def remove_own_app(session: Session, principal: Principal, handle: str) -> None:
    """Revoke a consent, so that the app has to ask again. Raises `NotFound`.

    Tokens that the app already holds are not revoked; only the upstream can do that.
    """
    server_id, _, client_hash = handle.rpartition(" ")
    row = (
        session.get(Consent, (principal.user_id, server_id, client_hash))
        if principal.user_id
        else None
    )
    if row is None:
        raise NotFound("You have not allowed this app, or have already removed it.")
    audit.record(session, principal, "app removed", "server", server_id, client_id=row.client_id)
    session.delete(row)
    forget_flows(session, user_id=principal.user_id)  # pending flows may be this app's
    session.flush()
