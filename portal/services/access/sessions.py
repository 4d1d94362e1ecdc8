"""Browser sessions, stored under the hash of their cookie, so that each can be listed and ended."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from portal.domain.errors import NotFound
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.access import keys, known_sign_ins
from portal.services.audit import call_batches
from portal.services.oauth_client.flows import sweep_flows
from portal.services.runtime import runtime_of
from portal.store.database import read
from portal.store.models import DATABASE_TIME, BrowserSession, time_of
from portal.store.rate_counters import sweep_counts

_SEEN_STEP = timedelta(seconds=60)
_STRANGER_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True)
class StoredSession:
    """The stored session of a cookie."""

    data: Mapping[str, Any]
    is_due_for_a_touch: bool


@dataclass(frozen=True)
class SessionView:
    """A session as its owner sees it; `handle` identifies it for ending it. Times are UTC."""

    handle: str
    user_agent: str | None
    created_at: datetime
    last_seen_at: datetime
    is_current: bool


_STORED = select(
    BrowserSession.data,
    BrowserSession.user_id,
    BrowserSession.last_seen_at,
    BrowserSession.expires_at,
    DATABASE_TIME.label("at"),
).where(BrowserSession.session_hash == bindparam("session_hash"))


def load_session(session: Session, cookie: str) -> StoredSession | None:
    """Return the session of a cookie; None if it was ended, has expired or was idle too long."""
    row = read(session, _STORED, session_hash=_hash(cookie)).one_or_none()
    idle = timedelta(minutes=runtime_of(session).session_idle_minutes)
    if row is None or row.expires_at <= row.at:
        return None
    if row.user_id and row.last_seen_at <= row.at - idle:
        return None
    # If the session was seen in the future, the clock was set back. Without a correction, idle time
    # would start later by that much.
    return StoredSession(dict(row.data), abs(row.at - row.last_seen_at) >= _SEEN_STEP)


def touch_session(session: Session, cookie: str) -> None:
    """Record that the session was used, to the minute.

    If the clock was set back, the session expires earlier by that much.
    """
    row, at = _found(session, cookie)
    if row is not None:
        row.last_seen_at = at
        row.expires_at = min(row.expires_at, at + _lifetime(session, row.user_id))


def save_session(
    session: Session,
    cookie: str,
    data: Mapping[str, Any],
    user_id: str | None,
    user_agent: str | None,
) -> None:
    """Write the session's data. Anonymous sessions last an hour, others as long as configured."""
    row, at = _found(session, cookie)
    if row is None:
        row = BrowserSession(
            session_hash=_hash(cookie),
            created_at=at,
            last_seen_at=at,
            expires_at=at + _lifetime(session, user_id),
        )
        session.add(row)
    row.data, row.user_id, row.user_agent = dict(data), user_id, (user_agent or "")[:200] or None


def _found(session: Session, cookie: str) -> tuple[BrowserSession | None, datetime]:
    """Return a session, and the time to judge its age by."""
    return session.get(BrowserSession, _hash(cookie)), time_of(session)


def _lifetime(session: Session, user_id: str | None) -> timedelta:
    return timedelta(hours=runtime_of(session).session_max_hours) if user_id else _STRANGER_LIFETIME


def end_session(session: Session, cookie: str) -> None:
    """End the session of a cookie."""
    session.execute(delete(BrowserSession).where(BrowserSession.session_hash == _hash(cookie)))


def list_own_sessions(
    session: Session, principal: Principal, cookie: str | None
) -> list[SessionView]:
    """Return the caller's live sessions, latest first."""
    rows = session.scalars(
        select(BrowserSession)
        .where(
            BrowserSession.user_id == principal.user_id, BrowserSession.expires_at > DATABASE_TIME
        )
        .order_by(BrowserSession.last_seen_at.desc())
    )
    current = _hash(cookie) if cookie else ""
    return [
        SessionView(
            r.session_hash[:16],
            r.user_agent,
            r.created_at,
            r.last_seen_at,
            r.session_hash == current,
        )
        for r in rows
    ]


def end_own_session(session: Session, principal: Principal, handle: str) -> None:
    """End one of the caller's sessions. Raises `NotFound`."""
    ended = session.execute(
        delete(BrowserSession).where(
            BrowserSession.user_id == principal.user_id,
            BrowserSession.session_hash.startswith(handle, autoescape=True),
        )
    )
    if not getattr(ended, "rowcount", 0) or len(handle) != 16:
        raise NotFound("Session not found.")
    audit.record(session, principal, "session ended", "user", principal.user_id)


def end_other_sessions(session: Session, principal: Principal, cookie: str | None) -> None:
    """End all of the caller's sessions except the current one."""
    session.execute(
        delete(BrowserSession).where(
            BrowserSession.user_id == principal.user_id,
            BrowserSession.session_hash != _hash(cookie or ""),
        )
    )
    audit.record(session, principal, "other sessions ended", "user", principal.user_id)


def sweep_sessions(session: Session, principal: Principal) -> None:
    """Delete expired sessions and keys, abandoned flows, old sign-ins, counts and calls."""
    session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= DATABASE_TIME))
    keys.sweep_keys(session, principal)
    sweep_flows(session)
    known_sign_ins.delete_unused_sign_ins(session)
    sweep_counts(session)
    call_batches.record_abandoned(session, principal)
    call_batches.forget_old(session, principal)


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()
