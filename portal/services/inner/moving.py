"""What becomes of stored secrets when a server's definition starts to point elsewhere.

A stored secret is never sent to a new host unasked (`1-system.md`, 3): server credentials stay behind a 409 until the
Admin says `keep_credentials` or sends new ones; what people stored goes along only when the Admin said so, and else is
forgotten; OAuth tokens are forgotten whenever what they were minted for changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import delete
from sqlalchemy.orm import Session

from portal.domain.errors import Conflict
from portal.domain.principals import Principal
from portal.domain.servers import KEPT, ServerFields, origin_of
from portal.services import audit
from portal.services.inner import authorizations, personal
from portal.services.inner.definitions import (
    clear_credentials,
    has_part,
    moves_address,
    opened,
    reseal_credentials,
)
from portal.services.inner.places import credential_destination, destination_of, hint
from portal.store.models import Server, UserCredential, now


@dataclass(frozen=True)
class Move:
    """How a definition pointed before a change."""

    destination: str
    credential_destination: str
    credentials: Mapping[str, object] = field(repr=False)
    keeps: bool
    probe_again: bool
    tokens_die: bool
    minted_for: tuple[object, ...] = field(repr=False)


_DECIDES_HEALTH = (
    "url",
    "spec_path",
    "transport",
    "command",
    "args",
    "env",
    "static_headers",
    "credentials",
    "env_vars",
)


def prepare(session: Session, row: Server, fields: ServerFields) -> Move:
    """Look at a change before it is written. Raises `Conflict` where credentials would move unasked."""
    moves = moves_address(row, fields) or _token_url_moves(row, fields)
    changes_auth = "auth_type" in fields and (fields["auth_type"] or None) != row.auth_type
    keeps = bool(fields.get("keep_credentials"))
    sent = fields.get("credentials", {})
    if moves and has_part(row, "credentials") and not changes_auth and not keeps and sent == {}:
        raise Conflict(
            "The stored credentials would be sent to another host. Send new ones, or keep_credentials: true.",
            code="credentials_would_move", field="url",
        )  # fmt: skip
    if changes_auth or (moves and not keeps):
        clear_credentials(row)
    stored = opened(session, row, credentials=True).credentials if sent is not None else {}
    return Move(
        destination=destination_of(row),
        credential_destination=credential_destination(row),
        credentials={name: value for name, value in stored.items() if name not in (sent or {})},
        keeps=keeps,
        probe_again=changes_auth or any(name in fields for name in _DECIDES_HEALTH),
        tokens_die=moves or changes_auth,
        minted_for=authorizations.minted_for(session, row),
    )


def finish(session: Session, principal: Principal, row: Server, move: Move) -> None:
    """Settle what was prepared, once the definition is written."""
    if move.credentials and move.credential_destination != credential_destination(row):
        reseal_credentials(session, row, move.credentials)
    if move.tokens_die or move.minted_for != authorizations.minted_for(session, row):
        authorizations.forget(session, row)
        session.execute(
            delete(UserCredential).where(UserCredential.server_id == row.server_id, UserCredential.kind == "oauth2")
        )
    destination = destination_of(row)
    if move.destination != destination:
        if move.keeps:
            personal.reseal_all(session, row, move.destination)
        elif forgotten := personal.forget_all(session, row):
            audit.record(
                session, principal, "personal values forgotten", "server", row.server_id, people=forgotten,
                because="the server moved to another host",
            )  # fmt: skip
    if move.probe_again:
        row.health_status, row.health_reason, row.health_error = "unknown", "never_checked", None
        row.health_checked_at, row.health_latency_ms, row.probe_started_at = None, None, None
        row.probe_due_at, row.probe_failures = now(), 0


def _token_url_moves(row: Server, fields: ServerFields) -> bool:
    if "token_url" not in fields or fields["token_url"] is KEPT:
        return False
    before = hint(row, "token_url")
    return before is not None and origin_of(fields["token_url"]) != before
