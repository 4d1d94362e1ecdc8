"""Definitions under test: held for 300 s, sealed, shared by all processes, not in the catalog.

A definition is read as a `Server` without a row, with its parts, so that code for stored servers
works on it. Its OAuth data (authorization, registration, tokens) is in the same sealed record and
is deleted with it.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, inspect, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain.errors import Conflict
from portal.domain.principals import Principal
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.store.models import Server, new_id, now
from portal.store.oauth_tables import TemporaryServer

LIFETIME = timedelta(seconds=300)


def is_temporary(row: Server) -> bool:
    """Return whether a server is a definition under test rather than a row of the catalog."""
    return bool(inspect(row).transient)


def hold(
    session: Session, principal: Principal, server_id: str, contents: Mapping[str, Any]
) -> TemporaryServer:
    """Hold a definition for 300 s, replacing one with the same id.

    `contents` has `fields` (JSON) and any other data to keep. If two requests arrive at once, the
    second uses what the first stored.
    """
    kept = session.get(TemporaryServer, server_id, with_for_update=True, populate_existing=True)
    if kept is None:
        kept = TemporaryServer(server_id=server_id)
        _write(session, kept, principal, contents)
        try:
            with session.begin_nested():
                session.add(kept)
        except IntegrityError:
            winner = session.get(TemporaryServer, server_id, populate_existing=True)
            if winner is None:
                raise Conflict("The definition expired in the meantime. Send it again.") from None
            return winner
    else:
        _write(session, kept, principal, contents)
        session.flush()
    return kept


def recall(session: Session, row: Server, name: str) -> Any:
    """Return the data stored with a definition under `name`; None if missing or expired."""
    kept = _find(session, row.server_id)
    contents = (
        _opened(session, kept) if kept is not None and kept.incarnation == row.incarnation else None
    )
    return (contents or {}).get(name)


def remember(session: Session, row: Server, *, renew: bool = False, **values: Any) -> None:
    """Store data with a definition; `renew` extends it by 300 s. Commits.

    Raises `Conflict` if it has expired or was replaced.
    """
    query = (
        select(TemporaryServer).where(TemporaryServer.server_id == row.server_id).with_for_update()
    )
    # Write first: on SQLite a transaction that has read cannot write after another process has.
    session.execute(
        update(TemporaryServer)
        .where(TemporaryServer.server_id == row.server_id)
        .values(created_by=TemporaryServer.created_by)
        .execution_options(synchronize_session=False)
    )
    kept = session.scalar(query.execution_options(populate_existing=True))
    contents = (
        _opened(session, kept) if kept is not None and kept.incarnation == row.incarnation else None
    )
    if kept is None or contents is None or (kept.expires_at <= now() and not renew):
        session.rollback()
        raise Conflict("The definition has expired. Start again.", code="expired")
    kept.sealed = runtime_of(session).vault.seal(
        json.dumps({**contents, **values}), bindings.of_temporary(kept)
    )
    if renew:
        kept.expires_at = now() + LIFETIME
    session.commit()


def contents_of(session: Session, server_id: str) -> dict[str, Any] | None:
    """Return all data held under an id, including secrets. Checks no permission."""
    held = held_under(session, server_id)
    return held[1] if held is not None else None


def held_under(session: Session, server_id: str) -> tuple[TemporaryServer, dict[str, Any]] | None:
    """Return the record held under an id, with its contents."""
    kept = _find(session, server_id)
    contents = _opened(session, kept) if kept is not None else None
    return (kept, contents) if kept is not None and contents is not None else None


def delete_definition(session: Session, server_id: str) -> None:
    """Delete a held definition."""
    session.execute(delete(TemporaryServer).where(TemporaryServer.server_id == server_id))


def delete_expired_definitions(session: Session) -> None:
    """Delete expired definitions."""
    session.execute(delete(TemporaryServer).where(TemporaryServer.expires_at <= now()))


def _find(session: Session, server_id: str) -> TemporaryServer | None:
    live = (TemporaryServer.server_id == server_id, TemporaryServer.expires_at > now())
    return session.scalar(
        select(TemporaryServer).where(*live).execution_options(populate_existing=True)
    )


def _write(
    session: Session, kept: TemporaryServer, principal: Principal, contents: Mapping[str, Any]
) -> None:
    kept.incarnation, kept.created_by, kept.expires_at = (
        new_id(),
        principal.signature,
        now() + LIFETIME,
    )
    kept.sealed = runtime_of(session).vault.seal(
        json.dumps(dict(contents)), bindings.of_temporary(kept)
    )


def _opened(session: Session, kept: TemporaryServer) -> dict[str, Any] | None:
    text = runtime_of(session).vault.open(kept.sealed, bindings.of_temporary(kept))
    found = json.loads(text) if text is not None else None
    return found if isinstance(found, dict) else None
