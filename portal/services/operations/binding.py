"""Binding what an older version stored to where it goes now. It takes the key ring, so no migration
can do it."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services.servers import destinations, queries
from portal.store.models import Server, ServerSecret, ServerVariable

_BATCH = 50


def bind_some(session: Session, principal: Principal, after: str = "") -> str | None:
    """Bind the values of the next servers after an id; answers the last id, None at the end. Commit
    after each.

    A value that cannot be read stays as it is. Nothing that is bound already is touched, so that
    this can run in several processes and be ended at any moment.
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
    """Bind all that an older version stored. Commits after each batch."""
    after: str | None = ""
    while after is not None:
        after = bind_some(session, principal, after)
        session.commit()
