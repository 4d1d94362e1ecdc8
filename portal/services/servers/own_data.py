"""Where a person's own values, keys and connections stand: stored for servers one may use, removed
from all."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden, InvalidRequest, NotFound
from portal.domain.principals import Principal
from portal.services.servers import queries
from portal.store.models import Server, UserCredential, UserVariable


def find_place(session: Session, principal: Principal, server_id: str, action: Action) -> Server:
    """The server, if the caller may do `action` with what is their own there; few then look at its
    parts.

    Raises as `queries.find_server` does, and `InvalidRequest` for a key that belongs to nobody.
    """
    server = queries.find_server(session, principal, server_id, Action.SERVER_READ, parts=False)
    require_person(principal)
    authz.require(principal, action, server)
    return server.row


def find_held(session: Session, principal: Principal, server_id: str, action: Action) -> Server:
    """As `find_place`, and also a server that the caller may not use any more, as long as something
    of theirs is there.

    They know of it, since they stored that. To all others such a server looks as if it were
    missing.
    """
    try:
        return find_place(session, principal, server_id, action)
    except (Forbidden, NotFound):
        row = queries.by_reference(session, server_id)
        if (
            row is None
            or not authz.may(principal, Action.CREDENTIAL_FORGET)
            or not _holds(session, principal, row)
        ):
            raise
        return row


def require_person(principal: Principal) -> None:
    """Raise `InvalidRequest` for a key that belongs to nobody."""
    if principal.user_id is None:
        raise InvalidRequest(
            "This key belongs to nobody, so nothing is stored for it.", field="user_id"
        )


def _holds(session: Session, principal: Principal, row: Server) -> bool:
    value, credential = (
        select(kind.user_id)
        .where(kind.user_id == principal.user_id, kind.server_id == row.server_id)
        .exists()
        for kind in (UserVariable, UserCredential)
    )
    return bool(session.scalar(select(or_(value, credential))))
