"""Changes that wait for a review. They are tried on the row and rolled back."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy.orm import Session

from portal.domain.destinations import Moved
from portal.domain.errors import Conflict, InvalidRequest
from portal.domain.principals import OPERATOR, Principal
from portal.domain.servers import (
    KEPT,
    URL_FIELDS,
    AuthType,
    OAuthGrantType,
    ServerFields,
    Transport,
)
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.services.servers.changes import change_row
from portal.services.servers.destinations import would_move
from portal.services.servers.secret_moves import Settled, move_conflict
from portal.services.submissions.facts import Facts, review_facts_of
from portal.store.models import Proposal, Server, now

_KEPT_MARK = {"kept": True}
_WORDS = {"transport": Transport, "auth_type": AuthType, "oauth2_flow": OAuthGrantType}
# In other fields, the marker is user input.
_MAY_BE_KEPT = (*URL_FIELDS, "static_headers", "env", "env_vars")


def write_change(
    session: Session,
    principal: Principal,
    row: Server,
    fields: ServerFields,
    *,
    keep: bool | None = None,
) -> Settled:
    """Apply a submitter's change to a submitted server, with the extra rules for submissions.

    A stdio server cannot be submitted. A submitter who moves the server has to send its secrets
    again; `keep` is an Admin's decision about those that would still move. Raises `Conflict`
    (`credentials_would_move`).
    """
    if (fields.get("transport") if "transport" in fields else row.transport) == Transport.STDIO:
        raise InvalidRequest(
            "Only Admins can add servers that run a command. Ask an Admin to add yours.",
            code="stdio_not_allowed",
            field="transport",
        )
    said = {} if keep is None else {"keep_credentials": keep}
    return change_row(session, principal, row, ServerFields(**{**fields, **said}))  # type: ignore[typeddict-item]


def rewrite_waiting(
    session: Session, principal: Principal, row: Server, fields: ServerFields
) -> Settled:
    """Change a server that is not live.

    Deletes what users stored for it if that would move, and audits this. Raises what `write_change`
    raises.
    """
    moves = would_move(session, row, fields)
    refuse_own(moves, fields)
    return write_change(session, principal, row, fields, keep=False if moves else None)


def refuse_own(moves: tuple[Moved, ...], fields: ServerFields) -> None:
    """Raise `Conflict` if a Member's change moves secrets of the server's definition."""
    own = tuple(m for m in moves if not m.secret.startswith(("people.", "client_registration")))
    if own:
        raise move_conflict(
            own,
            fields,
            0,
            why="Enter headers, variables and credentials again for the new address.",
        )


@contextmanager
def as_if_changed(
    session: Session, principal: Principal, row: Server, fields: ServerFields
) -> Iterator[Server]:
    """Yield the row as it would be after a change, and undo the change afterwards.

    Raises what the change would raise, and `Conflict` if it moves secrets of the definition. An
    Admin decides later about what users stored, so the trial runs with the operator's rights:
    nothing is sent, and nothing is kept.
    """
    moves = would_move(session, row, fields)
    refuse_own(moves, fields)
    savepoint = session.begin_nested()
    try:
        write_change(
            session, OPERATOR if moves else principal, row, fields, keep=True if moves else None
        )
        session.flush()
        yield row
    finally:
        savepoint.rollback()


def propose(
    session: Session, principal: Principal, row: Server, fields: ServerFields, author: str
) -> Facts:
    """Store a change for review, replacing a waiting one, and return the resulting facts."""
    with as_if_changed(session, principal, row, fields):
        facts = review_facts_of(session, row)
    proposal = session.get(Proposal, row.server_id) or Proposal(server_id=row.server_id)
    proposal.sealed = runtime_of(session).vault.seal(
        json.dumps(_packed(fields)), bindings.of_proposal(row)
    )
    proposal.summary = {"fields": sorted(fields), "facts": facts}
    proposal.submitted_by, proposal.submitted_at = author, now()
    session.add(proposal)
    session.flush()
    return facts


def proposed_fields(session: Session, row: Server, proposal: Proposal) -> ServerFields:
    """Return the waiting change. Raises `Conflict` if it can no longer be decrypted."""
    text = runtime_of(session).vault.open(proposal.sealed, bindings.of_proposal(row))
    if text is None:
        raise Conflict(
            "The proposed change can no longer be decrypted. Decline it, and ask for it again."
        )
    fields: dict[str, Any] = {
        name: _unpacked(value) if name in _MAY_BE_KEPT else value
        for name, value in json.loads(text).items()
    }
    fields |= {name: words(fields[name]) for name, words in _WORDS.items() if fields.get(name)}
    return cast(ServerFields, fields)


def _packed(value: Any) -> Any:
    if value is KEPT:
        return _KEPT_MARK
    if isinstance(value, Mapping):
        return {name: _packed(part) for name, part in value.items()}
    return [_packed(part) for part in value] if isinstance(value, list | tuple) else value


def _unpacked(value: Any) -> Any:
    if value == _KEPT_MARK:
        return KEPT
    if isinstance(value, dict):
        return {name: _unpacked(part) for name, part in value.items()}
    return [_unpacked(part) for part in value] if isinstance(value, list) else value
