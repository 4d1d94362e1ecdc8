"""The log of calls through the gateway, and when a user last used a server."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services.audit import call_batches
from portal.services.audit.call_batches import CallBatch
from portal.services.servers import queries
from portal.store.call_tables import McpUse
from portal.store.models import Server, User, now
from portal.store.oauth_tables import AppGrant

WAITS = timedelta(minutes=10)


class CallOutcome(StrEnum):
    """What became of a call."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    REFUSED = "refused"
    MISSING = "missing"
    UPSTREAM_FAILED = "upstream_failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LIMITED = "limited"


@dataclass(frozen=True)
class Caller:
    """Who called, and with what client; None is unknown."""

    user_id: str | None
    key_id: str | None
    app_id: str | None
    client_name: str | None
    client_version: str | None


@dataclass(frozen=True)
class Call:
    """One call, without arguments and result. `tool` is the name of a tool or prompt."""

    at: datetime
    duration_ms: int
    caller: Caller
    server_id: str
    method: str
    tool: str | None
    outcome: CallOutcome
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True)
class Use:
    """A list or a call (`is_call`) of a user."""

    at: datetime
    caller: Caller
    server_id: str
    is_call: bool


@dataclass(frozen=True)
class LastUse:
    """When a user last used a server, as the gateway saw it."""

    at: datetime
    is_call: bool
    client: str | None


@dataclass(frozen=True)
class ClientWait:
    """A page that waits for the caller's client since a time, and the last use of its server."""

    since: datetime
    last: LastUse | None

    @property
    def is_seen(self) -> bool:
        """Return whether the client has used the server since then."""
        return self.last is not None and self.last.at >= self.since

    @property
    def is_over(self) -> bool:
        """Return whether the page has waited long enough."""
        return now() - self.since >= WAITS


def log_calls(
    session: Session,
    principal: Principal,
    batch: CallBatch | None,
    calls: Sequence[Call],
    *,
    unlogged: int = 0,
    ends: bool = False,
) -> CallBatch | None:
    """Store calls in a batch; return the batch for the next calls. Commit before using it.

    A batch that is over, or that `ends`, is added to the audit chain. `unlogged` counts calls that
    were not stored.
    """
    authz.require(principal, Action.VAULT_MANAGE)
    if calls:
        batch = call_batches.add(session, batch, [_row(call) for call in calls])
    if batch is None or not (ends or batch.is_over):
        return batch
    call_batches.record_digest(session, principal, batch, unlogged=unlogged)
    return None


def note_uses(session: Session, principal: Principal, uses: Iterable[Use]) -> None:
    """Store when users last used servers; deleted users and servers are skipped."""
    authz.require(principal, Action.VAULT_MANAGE)
    latest = {
        (use.caller.user_id, use.server_id, use.caller.app_id): use
        for use in sorted(uses, key=lambda use: use.at)
    }
    for use in latest.values():
        _note_use(session, use)


def wait_for_use(
    session: Session, principal: Principal, server_id: str, since: datetime | None
) -> ClientWait:
    """Return whether the caller used a server since a time; without one, since now."""
    at = now()
    return ClientWait(min(since or at, at), _last_use(session, principal, server_id))


def _last_use(session: Session, principal: Principal, server_id: str) -> LastUse | None:
    row = queries.find_server(session, principal, server_id, Action.SERVER_USE).row
    query = select(McpUse).where(McpUse.server_id == row.server_id, authz.own_uses(principal))
    found = session.scalar(query)
    if found is None:
        return None
    client = " ".join(filter(None, (found.client_name, found.client_version)))
    return LastUse(found.at, found.is_call, client or None)


def _row(call: Call) -> dict[str, object]:
    facts = asdict(call)
    caller = facts.pop("caller")
    return {**facts, **caller, "outcome": call.outcome.value}


def _note_use(session: Session, use: Use) -> None:
    who = use.caller
    is_there = select(User.user_id).where(User.user_id == who.user_id)
    still = select(Server.server_id).where(Server.server_id == use.server_id)
    # Locked, so that neither is deleted before the commit; SQLite has one writer anyway.
    if session.scalar(is_there.with_for_update(read=True, key_share=True)) is None:
        return
    if session.scalar(still.with_for_update(read=True, key_share=True)) is None:
        return
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    facts = {
        "at": use.at,
        "is_call": use.is_call,
        "client_name": who.client_name,
        "client_version": who.client_version,
    }
    statement = insert(McpUse).values(user_id=who.user_id, server_id=use.server_id, **facts)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[McpUse.user_id, McpUse.server_id],
            set_=facts,
            where=McpUse.at < use.at,
        )
    )
    if who.app_id is not None:
        session.execute(
            update(AppGrant)
            .where(
                AppGrant.user_id == who.user_id,
                AppGrant.client_id == who.app_id,
                AppGrant.server_id == use.server_id,
            )
            .values(last_used_at=use.at)
        )
