"""Binding values of older versions to their destination.

This needs the key ring, so a migration cannot do it.
"""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services.servers import destinations, queries
from portal.store.models import Server, ServerSecret, ServerVariable

_BATCH = 50


def bind_some(session: Session, principal: Principal, after: str = "") -> str | None:
    """Bind the values of the next servers after an id; return the last id, None at the end.

    Commit after each call. Unreadable values and bound ones are left unchanged, so this can run in
    several processes and stop at any time.
    """
    authz.require(principal, Action.VAULT_MANAGE)
    unbound = or_(
        Server.server_id.in_(select(ServerSecret.server_id).where(ServerSecret.bound.is_(None))),
        Server.server_id.in_(
            select(ServerVariable.server_id).where(
                ServerVariable.bound.is_(None), ServerVariable.sealed.is_not(None)
            )
        ),
    )
    query = (
        select(Server)
        .where(Server.server_id > after, unbound)
        .order_by(Server.server_id)
        .limit(_BATCH)
    )
    rows = session.scalars(query.options(*queries.PARTS).with_for_update(of=Server)).all()
    for row in rows:
        destinations.bind(session, row)
    session.flush()
    return rows[-1].server_id if rows else None


def bind_all(session: Session, principal: Principal) -> None:
    """Bind all values of older versions. Commits after each batch."""
    after: str | None = ""
    while after is not None:
        after = bind_some(session, principal, after)
        session.commit()
