"""The server that an MCP client's OAuth request is about."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Unauthenticated
from portal.domain.principals import Principal
from portal.services.servers import queries, unsaved
from portal.store.models import Server


def find_subject(session: Session, principal: Principal, reference: str, action: Action) -> Server:
    """Return the server with this id, else alias or name, if the caller may do `action` with it.

    With admin view, a definition under test takes precedence; its id normally differs from that of
    any server. Raises what `queries.find_server` raises; strangers get `Unauthenticated` for all
    servers they may not sign in to.
    """
    if authz.is_known(principal):
        held = unsaved.find_temporary(session, principal, reference)
        if held is not None:
            authz.require(principal, action, queries.facts(session, held))
            return held
        return queries.find_server(session, principal, reference, action).row
    row = find_open_server(session, principal, reference)
    if row is None or not authz.may(principal, action, queries.facts(session, row)):
        raise Unauthenticated("Sign in, or send an API key.")
    return row


def find_open_server(session: Session, principal: Principal, name: str) -> Server | None:
    """Return the server with this id, alias or name, if strangers may know it; always one query."""
    named = or_(Server.server_id == name, Server.alias == name, Server.server_name == name)
    query = select(Server).where(named, authz.open_servers(principal)).options(*queries.PARTS)
    return session.scalar(query.order_by((Server.server_id == name).desc()).limit(1))
