"""Definitions under test: held for 300 s, sealed, the same for all processes, and never in the
catalog.

One is read as a `Server` that is no row of the database, with its parts, so that whatever works on
a stored server works on it. What OAuth finds out about it (authorization, registration, tokens)
stands in the same sealed record and goes with it.
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
    """Whether a server is a definition under test and no row of the catalog."""
    return bool(inspect(row).transient)


def hold(
    session: Session, principal: Principal, server_id: str, contents: Mapping[str, Any]
) -> TemporaryServer:
    """Hold a definition for 300 s from now, in place of one under the same id.

    `contents` has `fields` (JSON) and what else is to be remembered. Of two who come at once the
    second adopts what the first holds.
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
                raise Conflict("The definition was swept away meanwhile. Send it again.") from None
            return winner
    else:
        _write(session, kept, principal, contents)
        session.flush()
    return kept


def recall(session: Session, row: Server, name: str) -> Any:
    """What is remembered about a definition under `name`; None where nothing is, or where it is not
    held any more."""
    kept = _find(session, row.server_id)
    contents = (
        _opened(session, kept) if kept is not None and kept.incarnation == row.incarnation else None
    )
    return (contents or {}).get(name)


def remember(session: Session, row: Server, *, renew: bool = False, **values: Any) -> None:
    """Write down what was found out about a definition, and hold it for 300 s more with `renew`.
    Commits.

    Raises `Conflict` where it is not held any more, or another one in its place.
    """
    query = (
        select(TemporaryServer).where(TemporaryServer.server_id == row.server_id).with_for_update()
    )
    # Writing comes first: on SQLite a transaction that has read cannot write once another process
    # has.
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
        raise Conflict("The definition is not held any more. Begin again.", code="expired")
    kept.sealed = runtime_of(session).vault.seal(
        json.dumps({**contents, **values}), bindings.of_temporary(kept)
    )
    if renew:
        kept.expires_at = now() + LIFETIME
    session.commit()


def contents_of(session: Session, server_id: str) -> dict[str, Any] | None:
    """All that is held under an id; it has secrets. Asks for nobody's rights."""
    held = held_under(session, server_id)
    return held[1] if held is not None else None


def held_under(session: Session, server_id: str) -> tuple[TemporaryServer, dict[str, Any]] | None:
    """The record that is held under an id, with all that is in it."""
    kept = _find(session, server_id)
    contents = _opened(session, kept) if kept is not None else None
    return (kept, contents) if kept is not None and contents is not None else None


def forget(session: Session, server_id: str) -> None:
    """Hold a definition no longer."""
    session.execute(delete(TemporaryServer).where(TemporaryServer.server_id == server_id))


def sweep(session: Session) -> None:
    """Delete the definitions whose time is over."""
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
