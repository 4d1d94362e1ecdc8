"""Pending browser redirects: opaque state, single use, short-lived, bound to one browser."""

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.store.models import now
from portal.store.oauth_tables import OAuthFlow

LIFETIME = timedelta(minutes=10)
_CLOCKS_DIFFER = timedelta(minutes=5)
_KEPT_AFTERWARDS = timedelta(days=1)
_FLOW_ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


@dataclass(frozen=True)
class Flow:
    """One redirect: who started it, for which server, and data that only the portal may see."""

    flow_id: str
    kind: str
    user_id: str | None
    server_id: str | None
    contents: Mapping[str, Any] = field(repr=False)
    status: str = "pending"
    outcome: Mapping[str, Any] | None = None


def begin_flow(
    session: Session,
    kind: str,
    contents: Mapping[str, Any],
    *,
    browser: str | None,
    user_id: str | None = None,
    server_id: str | None = None,
    lifetime: timedelta = LIFETIME,
    state: str | None = None,
) -> tuple[str, str]:
    """Store a flow before a redirect; return its id, for the portal's pages, and its state.

    `state` is given if another server created it, such as a code that passes through the portal.
    `browser` is the secret in the cookie of the browser that must return; None for a flow of a
    program. Raises `ValueError` for an empty one, which would bind to nobody.
    """
    if browser == "":
        raise ValueError("a flow is bound to a browser or to none")
    if state is not None:  # another server may issue the same one twice
        session.execute(delete(OAuthFlow).where(OAuthFlow.state_hash == digest(state)))
    state = state or secrets.token_urlsafe(32)
    row = OAuthFlow(
        flow_id=secrets.token_urlsafe(24),
        state_hash=digest(state),
        kind=kind,
        user_id=user_id,
        server_id=server_id,
        browser_hash=digest(browser) if browser else None,
        expires_at=now() + lifetime,
    )
    row.sealed = runtime_of(session).vault.seal(json.dumps(dict(contents)), bindings.of_flow(row))
    session.add(row)
    session.flush()
    return row.flow_id, state


def take_flow(
    session: Session, state: str, *, kinds: tuple[str, ...], browser: str | None
) -> Flow | None:
    """Consume the flow with this `state`; return None if already consumed, or for another browser.

    An attempt by another browser does not consume it, so that nobody can end another user's
    sign-in. Commit before using the result: a rollback would make the flow valid again.
    """
    own = or_(OAuthFlow.browser_hash.is_(None), OAuthFlow.browser_hash == digest(browser or ""))
    return _taken(session, OAuthFlow.state_hash == digest(state), OAuthFlow.kind.in_(kinds), own)


def take_flow_by_id(
    session: Session, flow_id: str, *, kinds: tuple[str, ...], browser: str | None
) -> Flow | None:
    """Consume the flow with this id, for a page of the portal; see `take_flow`."""
    if not _FLOW_ID.match(flow_id):
        return None
    own = or_(OAuthFlow.browser_hash.is_(None), OAuthFlow.browser_hash == digest(browser or ""))
    return _taken(session, OAuthFlow.flow_id == flow_id, OAuthFlow.kind.in_(kinds), own)


def find_flow(session: Session, state: str, *, kind: str) -> Flow | None:
    """Return a flow by its state without consuming it; None once it has expired."""
    row = session.scalar(
        select(OAuthFlow).where(OAuthFlow.state_hash == digest(state), OAuthFlow.kind == kind)
    )
    return _read(session, row) if row is not None and now() < row.expires_at <= _latest() else None


def is_pending(session: Session, state: str) -> bool:
    """Return whether a flow with this state is pending, in any browser."""
    waiting = (OAuthFlow.state_hash == digest(state), OAuthFlow.status == "pending", _is_live())
    return session.scalar(select(OAuthFlow.flow_id).where(*waiting)) is not None


def peek_flow(
    session: Session, flow_id: str, *, kinds: tuple[str, ...], browser: str | None = None
) -> Flow | None:
    """Return a flow by its id without consuming it, for a consent or result page.

    A flow bound to a browser is returned only to that one.
    """
    if not _FLOW_ID.match(flow_id):  # PostgreSQL accepts no NUL and no lone surrogates
        return None
    row = session.scalar(
        select(OAuthFlow).where(OAuthFlow.flow_id == flow_id, OAuthFlow.kind.in_(kinds))
    )
    if row is None or (row.browser_hash and row.browser_hash != digest(browser or "")):
        return None
    if row.status == "pending" and not now() < row.expires_at <= _latest():
        return None
    return _read(session, row)


def keep_in_flow(session: Session, flow: Flow, contents: Mapping[str, Any]) -> None:
    """Store new contents of a pending flow and restart its lifetime; do nothing if it has ended."""
    row = session.get(OAuthFlow, flow.flow_id, populate_existing=True)
    if row is not None and row.status == "pending":
        sealed = runtime_of(session).vault.seal(json.dumps(dict(contents)), bindings.of_flow(row))
        row.sealed, row.expires_at = sealed, now() + LIFETIME
        session.flush()


def finish_flow(session: Session, flow_id: str, outcome: Mapping[str, Any]) -> None:
    """Store the outcome of a flow for its result page; it contains no secret."""
    session.execute(
        update(OAuthFlow)
        .where(OAuthFlow.flow_id == flow_id)
        .values(status="over", outcome=dict(outcome), sealed=b"")
    )


def forget_flows(
    session: Session, *, server_id: str | None = None, user_id: str | None = None
) -> None:
    """Delete the pending flows of a server or a user."""
    of_server = OAuthFlow.server_id == server_id
    mine = of_server if server_id is not None else OAuthFlow.user_id == user_id
    session.execute(delete(OAuthFlow).where(mine))


def sweep_flows(session: Session) -> None:
    """Delete expired flows and their sealed data; outcomes are kept for a day."""
    at = now()
    is_abandoned = and_(OAuthFlow.status == "taken", OAuthFlow.expires_at <= at - LIFETIME)
    has_expired = and_(OAuthFlow.status == "pending", ~_is_live())
    is_old = OAuthFlow.expires_at <= at - _KEPT_AFTERWARDS
    session.execute(delete(OAuthFlow).where(or_(is_old, has_expired, is_abandoned)))


def _latest() -> datetime:
    """Return the latest possible expiry of a flow.

    A later expiry means that the clock was set back after the flow started; it may have expired
    before, so it is not accepted. Clocks of hosts may differ by some minutes.
    """
    return now() + LIFETIME + _CLOCKS_DIFFER


def _is_live() -> ColumnElement[bool]:
    is_revocation = OAuthFlow.kind == "revoke"  # a job of the worker; has no callback
    return and_(OAuthFlow.expires_at > now(), or_(OAuthFlow.expires_at <= _latest(), is_revocation))


def digest(text: str) -> str:
    """Return the SHA-256 of a state, a cookie or a code; each has at least 192 random bits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _taken(session: Session, *conditions: Any) -> Flow | None:
    # One conditional statement decides across all processes which request came first.
    claimed = session.execute(
        update(OAuthFlow)
        .where(*conditions, OAuthFlow.status == "pending", _is_live())
        .values(status="taken")
        .returning(OAuthFlow.flow_id)
    ).scalar_one_or_none()
    row = session.get(OAuthFlow, claimed, populate_existing=True) if claimed else None
    return _read(session, row) if row else None


def _read(session: Session, row: OAuthFlow) -> Flow:
    text = runtime_of(session).vault.open(row.sealed, bindings.of_flow(row)) if row.sealed else None
    return Flow(
        row.flow_id,
        row.kind,
        row.user_id,
        row.server_id,
        json.loads(text or "{}"),
        row.status,
        row.outcome,
    )
