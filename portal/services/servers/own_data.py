"""Access to a user's own values, keys and connections: store and remove them."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden, InvalidRequest, NotFound
from portal.domain.principals import Principal
from portal.services.servers import queries
from portal.store.models import Server, UserCredential, UserVariable


def find_place(session: Session, principal: Principal, server_id: str, action: Action) -> Server:
    """Return the server, if the caller may do `action` with their own data there.

    Loads no parts of the server. Raises as `queries.find_server` does, and `InvalidRequest` for a
    key without an owner.
    """
    server = queries.find_server(session, principal, server_id, Action.SERVER_READ, parts=False)
    require_person(principal)
    authz.require(principal, action, server)
    return server.row


def find_held(session: Session, principal: Principal, server_id: str, action: Action) -> Server:
    """Return the server as `find_place` does, or one where the caller still has stored data.

    The caller already knows that server, because they stored something there. For all others, a
    server without access looks like one that does not exist.
    """
    try:
        return find_place(session, principal, server_id, action)
    except (Forbidden, NotFound):
        row = queries.by_reference(session, server_id)
        if row is None or not authz.may(principal, Action.CREDENTIAL_FORGET):
            raise
        if not _holds(session, principal, row):
            raise
        return row


def require_person(principal: Principal) -> None:
    """Raise `InvalidRequest` for a key without an owner."""
    if principal.user_id is None:
        raise InvalidRequest(
            "This key has no owner, so nothing can be stored for it.", field="user_id"
        )


def _holds(session: Session, principal: Principal, row: Server) -> bool:
    value, credential = (
        select(kind.user_id)
        .where(kind.user_id == principal.user_id, kind.server_id == row.server_id)
        .exists()
        for kind in (UserVariable, UserCredential)
    )
    return bool(session.scalar(select(or_(value, credential))))
