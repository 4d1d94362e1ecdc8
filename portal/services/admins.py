"""Checks that at least one active Admin remains."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.store.models import User


def is_last_admin(session: Session, user: User) -> bool:
    """Return whether this user is the only active Admin.

    Locks the rows of all Admins, so that two Admins cannot remove each other at the same time.
    """
    if not authz.is_active_admin(user):
        return False
    admins = session.scalars(
        select(User.user_id).where(authz.active_admins()).order_by(User.user_id).with_for_update()
    )
    return set(admins) <= {user.user_id}


def other_admins(session: Session, user_id: str | None) -> list[str]:
    """Return the names of the other active Admins, sorted."""
    name = func.coalesce(User.display_name, User.email, User.user_id)
    others = select(name).where(authz.active_admins(), User.user_id != (user_id or ""))
    return list(session.scalars(others.order_by(name)))
