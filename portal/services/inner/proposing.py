"""Changes that wait for a review: tried out on the row and taken back, so that nothing of a live server moves."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy.orm import Session

from portal.domain.errors import Conflict, InvalidRequest
from portal.domain.principals import Principal
from portal.domain.servers import KEPT, URL_FIELDS, AuthType, OAuthFlow, ServerFields, Transport, origin_of
from portal.services.inner import places
from portal.services.inner.definitions import moves_address
from portal.services.inner.house import house_of
from portal.services.inner.places import hint
from portal.services.inner.review_facts import Facts, facts_of
from portal.services.inner.writing import change_row
from portal.store.models import Proposal, Server, now

_KEPT_MARK = {"kept": True}
_WORDS = {"transport": Transport, "auth_type": AuthType, "oauth2_flow": OAuthFlow}
# Elsewhere the mark is what somebody typed.
_MAY_BE_KEPT = (*URL_FIELDS, "static_headers", "env", "env_vars")
_SENT_THERE = ("url", "spec_path", "token_url")


def write_change(session: Session, principal: Principal, row: Server, fields: ServerFields) -> None:
    """Change a submitted server as its submitter asked, with what holds for them beside the rules for all.

    A stdio server is no submission, and no stored value goes to another host: who moves the server sends it again.
    """
    if (fields.get("transport") if "transport" in fields else row.transport) == Transport.STDIO:
        raise InvalidRequest(
            "Servers that run a command are added by Admins only. Ask one to add yours.",
            code="stdio_not_allowed", field="transport",
        )  # fmt: skip
    _refuse_kept_elsewhere(row, fields)
    change_row(session, principal, row, fields)


@contextmanager
def as_if_changed(session: Session, principal: Principal, row: Server, fields: ServerFields) -> Iterator[Server]:
    """The row as it would be after a change; afterwards it is as it was. Raises what the change itself would raise."""
    savepoint = session.begin_nested()
    try:
        write_change(session, principal, row, fields)
        session.flush()
        yield row
    finally:
        savepoint.rollback()


def propose(session: Session, principal: Principal, row: Server, fields: ServerFields, author: str) -> Facts:
    """Keep a change for the review, in place of one that waits already; answers the facts as they would be."""
    with as_if_changed(session, principal, row, fields):
        facts = facts_of(session, row)
    proposal = session.get(Proposal, row.server_id) or Proposal(server_id=row.server_id)
    proposal.sealed = house_of(session).vault.seal(json.dumps(_packed(fields)), places.of_proposal(row))
    proposal.summary = {"fields": sorted(fields), "facts": facts}
    proposal.submitted_by, proposal.submitted_at = author, now()
    session.add(proposal)
    session.flush()
    return facts


def proposed_fields(session: Session, row: Server, proposal: Proposal) -> ServerFields:
    """The change that waits. Raises `Conflict` where it cannot be read any more."""
    text = house_of(session).vault.open(proposal.sealed, places.of_proposal(row))
    if text is None:
        raise Conflict("The proposed change cannot be read any more. Decline it, and ask for it again.")
    fields: dict[str, Any] = {
        name: _unpacked(value) if name in _MAY_BE_KEPT else value for name, value in json.loads(text).items()
    }
    fields |= {name: words(fields[name]) for name, words in _WORDS.items() if fields.get(name)}
    return cast(ServerFields, fields)


def _refuse_kept_elsewhere(row: Server, fields: ServerFields) -> None:
    """A header's or variable's stored value was meant for the host that is stored with it."""
    sent: Mapping[str, Any] = fields
    moves = any(
        name in fields and sent[name] is not KEPT and hint(row, name) not in (None, origin_of(sent[name]))
        for name in _SENT_THERE
    )
    moves = moves or moves_address(row, fields)
    if not moves:
        return
    stored = any(secret.field in ("static_headers", "env") for secret in row.secrets)
    headers = sent.get("static_headers", KEPT)
    keeps_headers = stored and (headers is KEPT or KEPT in (headers or {}).values())
    variables = sent.get("env_vars", KEPT)
    set_ones = {v.name for v in row.variables if v.sealed is not None}
    kept = (
        set_ones
        if variables is KEPT
        else {e["name"] for e in variables or () if "value" not in e or e["value"] is KEPT} & set_ones
    )
    if keeps_headers or kept:
        raise Conflict(
            "The address is at another host, and stored values are not sent there. Type headers and variables again.",
            code="credentials_would_move", field="url",
        )  # fmt: skip


def _packed(value: Any) -> Any:
    if value is KEPT:
        return _KEPT_MARK
    if isinstance(value, Mapping):
        return {name: _packed(part) for name, part in value.items()}
    return [_packed(part) for part in value] if isinstance(value, list | tuple) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return KEPT if value == _KEPT_MARK else {name: _unpacked(part) for name, part in value.items()}
    return [_unpacked(part) for part in value] if isinstance(value, list) else value
