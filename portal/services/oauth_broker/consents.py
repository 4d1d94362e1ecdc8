"""The apps that a person allowed to use servers by way of the portal: listed for them, and taken
back by them."""

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
    """One app that was allowed; `handle` names it in a form. All but the time (UTC) and the server
    is its own claim."""

    handle: str
    claimed_name: str | None
    client_id: str
    destination: str
    server_name: str
    scopes: tuple[str, ...]
    given_at: datetime


def list_own_apps(session: Session, principal: Principal) -> list[AllowedApp]:
    """The apps that the caller allowed, the newest first; one query. A server that they may not see
    any more is called by its id."""
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
    """Take a consent back, so that the app has to ask again. Raises `NotFound`.

    What the app holds already is between it and the upstream, which alone can end it.
    """
    server_id, _, client_hash = handle.rpartition(" ")
    row = (
        session.get(Consent, (principal.user_id, server_id, client_hash))
        if principal.user_id
        else None
    )
    if row is None:
        raise NotFound("You have not allowed this app, or took it back already.")
    audit.record(session, principal, "app removed", "server", server_id, client_id=row.client_id)
    session.delete(row)
    forget_flows(session, user_id=principal.user_id)  # what is under way may be this app's
    session.flush()
