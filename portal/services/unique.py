"""Unique names, which the database decides about: whoever checks beforehand may be overtaken."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain.errors import Conflict


def flush_unique(session: Session, message: str, field: str) -> None:
    """Write what waits. Raises `Conflict` with `message` on `field` where something of this name is
    there already."""
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(message, field=field) from None
