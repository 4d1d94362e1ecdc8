"""Unique names, enforced by the database, because a check beforehand can race."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain.errors import Conflict


def flush_unique(session: Session, message: str, field: str) -> None:
    """Flush the session. Raises `Conflict` with `message` on `field` if a name is already taken."""
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(message, field=field) from None
