"""Health checks of servers, by the worker and on request, but never while listing."""

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import case, delete, or_, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Busy, PortalError, UpstreamFailure
from portal.domain.principals import Principal
from portal.domain.upstream import HealthReason, HealthStatus, ProbeResult, Target
from portal.services.runtime import runtime_of
from portal.services.servers import queries
from portal.services.servers.views import (
    KIND_OF_FAULT,
    HealthView,
    ServerView,
    view_health,
    view_server,
)
from portal.services.upstreams.resolve import PendingTarget, signed, target_to_probe
from portal.store.database import release
from portal.store.models import HealthRecord, Server, now, time_of

log = logging.getLogger("portal.health")
PROBE_AGAIN_AFTER = timedelta(seconds=10)
_EVERY = timedelta(seconds=120)
_LEAST_OFTEN = timedelta(minutes=30)
_MOST_JITTER = 1.15
# How long a worker claims its probes: longer than requesting tokens and running all probes can
# take.
_CLAIM = timedelta(seconds=120)
_SIGN_WITHIN = 60.0
_KEEP_HISTORY = timedelta(days=30)
_REQUEST_DEADLINE = 8.0
_BATCH = 32
_MOST_FAILURES = 10


@dataclass(frozen=True)
class HealthRow:
    """The health of a server as the API returns it."""

    server_id: str
    status: str
    health_check_reason: str
    last_health_check: datetime | None


@dataclass(frozen=True)
class HistoryEntry:
    """One past health check."""

    checked_at: datetime
    status: str
    reason: str
    message: str | None
    latency_ms: int | None


@dataclass(frozen=True)
class _Probe:
    server_id: str
    incarnation: str
    version: int
    claimed_at: datetime
    target: Target | HealthReason | PendingTarget


def get_checked_server(session: Session, principal: Principal, reference: str) -> ServerView:
    """Return a server after a new health check, if the caller may see the server."""
    row = queries.find_server(session, principal, reference, Action.SERVER_READ).row
    if authz.may_use(principal, queries.facts(session, row)) or authz.is_admin(principal):
        server_id = row.server_id
        try:
            _probe_now(session, [row])
        except OperationalError:  # the database is not writable now; return the stored health
            session.rollback()
        row = queries.find_server(session, principal, server_id, Action.SERVER_READ).row
    return view_server(session, principal, row)


def check_servers(
    session: Session, principal: Principal, server_ids: Sequence[str] | None = None
) -> list[HealthRow]:
    """Check the servers that the caller may use, in parallel, each at most every 10 seconds."""
    query = (
        select(Server)
        .where(authz.usable_servers(principal))
        .order_by(Server.sort_key, Server.server_id)
    )
    if server_ids:
        query = query.where(Server.server_id.in_(server_ids))
    _probe_now(session, list(session.scalars(query.options(*queries.PARTS))))
    rows = session.scalars(query.execution_options(populate_existing=True))
    return [
        HealthRow(r.server_id, r.health_status, r.health_reason, r.health_checked_at) for r in rows
    ]


def probe_server(session: Session, principal: Principal, server_id: str) -> HealthView:
    """Check one server now, at an Admin's request."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_PROBE).row
    _probe_now(session, [row])
    row = queries.find_server(session, principal, server_id, Action.SERVER_PROBE).row
    return view_health(principal, row)


def stored_health(
    session: Session, principal: Principal, server_ids: Sequence[str]
) -> dict[str, HealthView]:
    """Return the stored health of the servers that the caller may see; contacts nothing."""
    rows = session.scalars(
        select(Server).where(Server.server_id.in_(server_ids), authz.visible_servers(principal))
    )
    return {row.server_id: view_health(principal, row) for row in rows}


def history(
    session: Session, principal: Principal, server_id: str, limit: int = 100
) -> list[HistoryEntry]:
    """Return the latest health checks of a server, newest first."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT).row
    records = session.scalars(
        select(HealthRecord)
        .where(HealthRecord.server_id == row.server_id)
        .order_by(HealthRecord.checked_at.desc())
        .limit(limit)
    )
    return [
        HistoryEntry(r.checked_at, r.status, r.reason, r.message, r.latency_ms) for r in records
    ]


def probe_due(session: Session, principal: Principal) -> int:
    """Check the servers that are due, as the worker; return their number.

    Any number of workers can run: one claims each server, and another takes over if the first has
    not stored a result before its claim expires.
    """
    authz.require(principal, Action.PREFERENCE_MANAGE)
    claimed_at = time_of(session)
    # If a probe is due later than the longest pause, the clock was set back. Without this, the
    # server would not be checked until then.
    is_due = or_(
        Server.probe_due_at <= claimed_at,
        Server.probe_due_at > claimed_at + _LEAST_OFTEN * _MOST_JITTER,
    )
    rows = list(
        session.scalars(
            select(Server)
            .where(is_due, Server.approval_status == "active")
            .order_by(Server.probe_due_at)
            .limit(_BATCH)
            .options(*queries.PARTS)
            .with_for_update(skip_locked=True, of=Server)
        )
    )
    probes = [_prepare(session, row, claimed_at) for row in rows]
    for row in rows:
        row.probe_due_at, row.probe_started_at = claimed_at + _CLAIM, claimed_at
    session.commit()
    _run(session, probes)
    session.commit()
    return len(probes)


def forget_old_history(session: Session, principal: Principal) -> None:
    """Delete health checks older than 30 days."""
    authz.require(principal, Action.PREFERENCE_MANAGE)
    session.execute(delete(HealthRecord).where(HealthRecord.checked_at < now() - _KEEP_HISTORY))


def _probe_now(session: Session, rows: Sequence[Server]) -> None:
    """Check those of `rows` that were not checked in the last 10 seconds, and store the results."""
    claimed_at = time_of(session)
    stale = claimed_at - PROBE_AGAIN_AFTER
    probes = {row.server_id: _prepare(session, row, claimed_at) for row in rows}
    release(session)
    claimed = session.scalars(
        update(Server)
        .where(
            Server.server_id.in_(probes),
            or_(
                Server.probe_started_at.is_(None),
                Server.probe_started_at < stale,
                Server.probe_started_at > claimed_at + _CLAIM,  # the clock was set back since
            ),
        )
        .values(probe_started_at=claimed_at)
        .returning(Server.server_id)
        .execution_options(synchronize_session=False)
    ).all()
    session.commit()
    _run(session, [probes[server_id] for server_id in claimed])


def _prepare(session: Session, row: Server, claimed_at: datetime) -> _Probe:
    return _Probe(
        row.server_id, row.incarnation, row.version, claimed_at, target_to_probe(session, row)
    )


def _run(session: Session, probes: Sequence[_Probe]) -> None:
    """Contact upstreams outside a transaction, then store the results."""
    last = time.monotonic() + _SIGN_WITHIN
    ready = [(probe, _signed(session, probe.target)) for probe in probes if time.monotonic() < last]
    asked = [(probe, target) for probe, target in ready if isinstance(target, Target)]
    results = runtime_of(session).mcp.probe_many(
        [target for _, target in asked], deadline=_REQUEST_DEADLINE
    )
    for (probe, _), result in zip(asked, results, strict=True):
        _store(session, probe, result)
    for probe, target in ready:
        if isinstance(target, ProbeResult):
            _store(session, probe, target)
    session.flush()
    session.expire_all()  # reload what statements wrote


def _signed(
    session: Session, target: Target | HealthReason | PendingTarget
) -> Target | ProbeResult:
    """Return the target, with the portal's own token if needed, or a known result."""
    if isinstance(target, HealthReason):
        return ProbeResult(HealthStatus.UNKNOWN, target, KIND_OF_FAULT[target])
    try:
        return signed(session, target) if isinstance(target, PendingTarget) else target
    except Busy:
        raise  # not a fault of the server
    except PortalError as error:
        # Without the portal's own token nobody can reach the server, so this counts as unhealthy.
        reason = (
            HealthReason(error.reason)
            if isinstance(error, UpstreamFailure)
            else HealthReason.SIGN_IN_NEEDED
        )
        return ProbeResult(HealthStatus.UNHEALTHY, reason, error.message)


def _store(session: Session, probe: _Probe, result: ProbeResult) -> None:
    at = time_of(session)
    failed = result.status is HealthStatus.UNHEALTHY
    healthy = result.status is HealthStatus.HEALTHY
    still_the_same = (
        Server.server_id == probe.server_id,
        Server.incarnation == probe.incarnation,
        Server.version == probe.version,
        Server.probe_started_at == probe.claimed_at,
    )
    one_more = case(
        (Server.probe_failures < _MOST_FAILURES, Server.probe_failures + 1), else_=_MOST_FAILURES
    )
    # Write first: on SQLite a transaction that has read cannot write after another process has.
    failures = session.scalar(
        update(Server)
        .where(*still_the_same)
        .values(
            health_status=result.status.value,
            health_reason=result.reason.value,
            health_error=None if healthy else result.message,
            health_checked_at=at,
            health_latency_ms=result.latency_ms or None,
            protocol_version=result.protocol_version,
            probe_failures=one_more if failed else 0,
        )
        .returning(Server.probe_failures)
        .execution_options(synchronize_session=False)
    )
    told = {
        "server_id": probe.server_id,
        "status": result.status.value,
        "reason": result.reason.value,
    }
    if failures == 1:
        log.warning("a server stopped answering", extra=told)
    else:
        log.debug("a server was checked", extra=told)
    if failures is None:
        return  # edited, deleted or claimed again in the meantime: the result is outdated
    # Jitter spreads the probes of servers that were added at the same time.
    pause = min(_EVERY * 2**failures, _LEAST_OFTEN) * random.uniform(2 - _MOST_JITTER, _MOST_JITTER)  # noqa: S311 - no secret
    session.execute(
        update(Server)
        .where(Server.server_id == probe.server_id)
        .values(probe_due_at=at + pause)
        .execution_options(synchronize_session=False)
    )
    session.add(
        HealthRecord(
            server_id=probe.server_id,
            checked_at=at,
            status=result.status.value,
            reason=result.reason.value,
            message=None if healthy else result.message,
            latency_ms=result.latency_ms or None,
        )
    )
