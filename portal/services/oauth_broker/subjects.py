"""Which server an OAuth request of an MCP client is about."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Unauthenticated
from portal.domain.principals import Principal
from portal.services.servers import queries, unsaved
from portal.store.models import Server


def find_subject(session: Session, principal: Principal, reference: str, action: Action) -> Server:
    """The server with this id, else alias or name, if the caller may do `action` with it; for those
    with admin view a definition under test goes before (it is another id than that of any server,
    unless somebody wished otherwise).

    Raises as `queries.find_server` does. To strangers every other server looks alike:
    `Unauthenticated`.
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
    """The server with this id, alias or name, if strangers may know it; one statement, whatever is
    there."""
    named = or_(Server.server_id == name, Server.alias == name, Server.server_name == name)
    query = select(Server).where(named, authz.open_servers(principal)).options(*queries.PARTS)
    return session.scalar(query.order_by((Server.server_id == name).desc()).limit(1))
