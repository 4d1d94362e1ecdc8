"""Browser redirects under way: opaque state, single use, short-lived, bound to one browser."""

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
    """One redirect: who began it, for which server, and what only the portal may know of it."""

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
    """Remember a redirect before it is made. Answers its id, for our own pages, and its state, for
    the other side.

    `state` is given where somebody else made it: a code on its way through the portal. `browser` is
    the secret in the cookie of the browser that has to come back, None where a program holds the
    flow. Raises ValueError for an empty one, which would bind to nobody.
    """
    if browser == "":
        raise ValueError("a flow is bound to a browser or to none")
    if state is not None:  # whoever made it may have made it before
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
    """The redirect that `state` belongs to, used up herewith: whoever comes second gets None, as
    does another browser.

    One that another browser brings is left alone, so that nobody ends somebody else's sign-in.
    Commit before anything else is done with it: a rollback would make it good again.
    """
    own = or_(OAuthFlow.browser_hash.is_(None), OAuthFlow.browser_hash == digest(browser or ""))
    return _taken(session, OAuthFlow.state_hash == digest(state), OAuthFlow.kind.in_(kinds), own)


def take_flow_by_id(
    session: Session, flow_id: str, *, kinds: tuple[str, ...], browser: str | None
) -> Flow | None:
    """As `take_flow`, for a page of ours whose address holds the flow's id."""
    if not _FLOW_ID.match(flow_id):
        return None
    own = or_(OAuthFlow.browser_hash.is_(None), OAuthFlow.browser_hash == digest(browser or ""))
    return _taken(session, OAuthFlow.flow_id == flow_id, OAuthFlow.kind.in_(kinds), own)


def find_flow(session: Session, state: str, *, kind: str) -> Flow | None:
    """A flow by its state, used up or not, without using it up; None once it ran out."""
    row = session.scalar(
        select(OAuthFlow).where(OAuthFlow.state_hash == digest(state), OAuthFlow.kind == kind)
    )
    return _read(session, row) if row is not None and now() < row.expires_at <= _latest() else None


def is_known(session: Session, state: str) -> bool:
    """Whether a flow of this state is still under way, in whatever browser."""
    waiting = (OAuthFlow.state_hash == digest(state), OAuthFlow.status == "pending", _is_live())
    return session.scalar(select(OAuthFlow.flow_id).where(*waiting)) is not None


def peek_flow(
    session: Session, flow_id: str, *, kinds: tuple[str, ...], browser: str | None = None
) -> Flow | None:
    """A flow by its id, without using it up: for a consent or result page. Bound to a browser, it
    needs that one."""
    if not _FLOW_ID.match(flow_id):  # PostgreSQL takes no NUL and no half of a character
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
    """Write down how far somebody came on a page of ours, who has the whole time again for the
    rest; nothing where the flow was used up or ran out."""
    row = session.get(OAuthFlow, flow.flow_id, populate_existing=True)
    if row is not None and row.status == "pending":
        sealed = runtime_of(session).vault.seal(json.dumps(dict(contents)), bindings.of_flow(row))
        row.sealed, row.expires_at = sealed, now() + LIFETIME
        session.flush()


def finish_flow(session: Session, flow_id: str, outcome: Mapping[str, Any]) -> None:
    """Write down how a flow ended, for its result page. `outcome` holds no secret."""
    session.execute(
        update(OAuthFlow)
        .where(OAuthFlow.flow_id == flow_id)
        .values(status="over", outcome=dict(outcome), sealed=b"")
    )


def forget_flows(
    session: Session, *, server_id: str | None = None, user_id: str | None = None
) -> None:
    """End what is under way for a server or a person."""
    session.execute(
        delete(OAuthFlow).where(
            (OAuthFlow.server_id == server_id)
            if server_id is not None
            else (OAuthFlow.user_id == user_id)
        )
    )


def sweep_flows(session: Session) -> None:
    """Delete flows that ran out, and what is sealed in them; how one ended stays readable for a
    day."""
    at = now()
    session.execute(
        delete(OAuthFlow).where(
            (OAuthFlow.expires_at <= at - _KEPT_AFTERWARDS)
            | ((OAuthFlow.status == "pending") & ~_is_live())
            | (
                (OAuthFlow.status == "taken") & (OAuthFlow.expires_at <= at - LIFETIME)
            )  # nobody is at it any more
        )
    )


def _latest() -> datetime:
    """When a flow that begins now ends at the latest. What would live longer began by a clock that
    was put back since, and may have run out before: it is not given a second life. Clocks of hosts
    may differ by some minutes."""
    return now() + LIFETIME + _CLOCKS_DIFFER


def _is_live() -> ColumnElement[bool]:
    waits_for_us = (
        OAuthFlow.kind == "revoke"
    )  # the worker's own errand, which nobody comes back from
    return and_(OAuthFlow.expires_at > now(), or_(OAuthFlow.expires_at <= _latest(), waits_for_us))


def digest(text: str) -> str:
    """The SHA-256 of a state, a cookie or a code; each has 192 random bits or more."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _taken(session: Session, *conditions: Any) -> Flow | None:
    # One conditional statement decides who was first, on every process.
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
