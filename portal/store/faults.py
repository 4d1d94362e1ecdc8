"""Database errors, classified in the same way for both databases."""

from enum import StrEnum

from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout


class DatabaseFault(StrEnum):
    """Why the database cannot be read or written now."""

    GONE = "gone"
    BUSY = "busy"
    FULL = "full"
    READ_ONLY = "read only"
    OTHER_SCHEMA = "other schema"


_SQLITE = {
    "database is locked": DatabaseFault.BUSY,
    "database table is locked": DatabaseFault.BUSY,
    "database or disk is full": DatabaseFault.FULL,
    "disk I/O error": DatabaseFault.FULL,
    "attempt to write a readonly": DatabaseFault.READ_ONLY,
    "no such table": DatabaseFault.OTHER_SCHEMA,
    "no such column": DatabaseFault.OTHER_SCHEMA,
}
# PostgreSQL's codes: lock not available, deadlock, serialization failure; disk full; read-only;
# undefined table, undefined column, insufficient privilege.
_SQLSTATES = {
    "55P03": DatabaseFault.BUSY,
    "40P01": DatabaseFault.BUSY,
    "40001": DatabaseFault.BUSY,
    "53100": DatabaseFault.FULL,
    "25006": DatabaseFault.READ_ONLY,
    "42P01": DatabaseFault.OTHER_SCHEMA,
    "42703": DatabaseFault.OTHER_SCHEMA,
    "42501": DatabaseFault.OTHER_SCHEMA,
}


def fault_of(error: SQLAlchemyError) -> DatabaseFault | None:
    """Return the fault of the database behind `error`; None for an error in the statement."""
    if isinstance(error, PoolTimeout):
        return DatabaseFault.BUSY
    if not isinstance(error, DBAPIError) or isinstance(error, IntegrityError):
        return None
    known = _SQLSTATES.get(getattr(error.orig, "sqlstate", None) or "")
    known = known or next(
        (fault for words, fault in _SQLITE.items() if str(error.orig).startswith(words)), None
    )
    is_down = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return DatabaseFault.GONE if known is None and is_down else known
