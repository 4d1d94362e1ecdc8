"""The tokens of one sign-in of an app: made together, renewed one by another, ended together.

Of a token only its hash is stored. A refresh token is good once (RFC 9700, 4.14.2); whoever sends
it again soon gets the same answer, since the first may have got lost, and whoever does later ends
the family.
"""

import secrets
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal.services.oauth_client.flows import begin_flow, digest, find_flow
from portal.services.runtime import runtime_of
from portal.store.models import now
from portal.store.oauth_tables import AppGrant, AppToken

ACCESS_PREFIX = "mcp-at-"
REFRESH_PREFIX = "mcp-rt-"
ACCESS = "access"
REFRESH = "refresh"
ACCESS_LIFETIME = timedelta(hours=1)
CODE_LIFETIME = timedelta(seconds=60)
AGAIN_WITHIN = timedelta(seconds=10)
"""For so long after it was used a refresh token gets the same answer again."""
_AGAIN = "app_again"
_CLOCKS_DIFFER = timedelta(minutes=5)


def end_of(session: Session, grant: AppGrant) -> datetime:
    """When a family ends at the latest: as long after the person agreed as the longest session."""
    return grant.given_at + timedelta(hours=runtime_of(session).session_max_hours)


def is_live(session: Session, grant: AppGrant, token: AppToken, at: datetime) -> bool:
    """Whether a token is good at `at`, spent or not. One that was issued later than that is of a
    clock that was put back since: it gets no second life."""
    return (
        token.issued_at <= at + _CLOCKS_DIFFER
        and at < token.expires_at
        and at < end_of(session, grant)
    )


def issue(session: Session, grant: AppGrant) -> dict[str, Any]:
    """A new pair of tokens of a family, as the token endpoint answers it (RFC 6749, 5.1)."""
    at = now()
    session.execute(
        delete(AppToken).where(AppToken.grant_id == grant.grant_id, AppToken.expires_at <= at)
    )
    end = end_of(session, grant)
    access = ACCESS_PREFIX + secrets.token_urlsafe(32)
    refresh = REFRESH_PREFIX + secrets.token_urlsafe(32)
    access_end = min(at + ACCESS_LIFETIME, end)
    for kind, token, expires_at in ((ACCESS, access, access_end), (REFRESH, refresh, end)):
        session.add(
            AppToken(
                bearer_hash=digest(token),
                grant_id=grant.grant_id,
                kind=kind,
                issued_at=at,
                expires_at=expires_at,
            )
        )
    grant.last_used_at = at
    session.flush()
    return {
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": max(1, int((access_end - at).total_seconds())),
        "refresh_token": refresh,
    }


def find(session: Session, token: str, kind: str) -> tuple[AppGrant, AppToken] | None:
    """The family that a token belongs to, and what is kept of the token, good or not."""
    query = (
        select(AppGrant, AppToken)
        .join(AppToken, AppToken.grant_id == AppGrant.grant_id)
        .where(AppToken.bearer_hash == digest(token), AppToken.kind == kind)
    )
    found = session.execute(query).one_or_none()
    return (found[0], found[1]) if found is not None else None


def spend(session: Session, token: AppToken) -> bool:
    """Use up a refresh token; False where it was used before, on whatever process."""
    spent = session.execute(
        update(AppToken)
        .where(AppToken.bearer_hash == token.bearer_hash, AppToken.spent_at.is_(None))
        .values(spent_at=now())
    )
    return bool(getattr(spent, "rowcount", 0))


def remember_answer(session: Session, grant: AppGrant, spent: str, answer: dict[str, Any]) -> None:
    """Keep the answer to a refresh token, sealed, for as long as it may be asked for again."""
    begin_flow(
        session,
        _AGAIN,
        answer,
        browser=None,
        user_id=grant.user_id,
        server_id=grant.server_id,
        state=spent,
        lifetime=AGAIN_WITHIN,
    )


def answer_again(session: Session, spent: str) -> dict[str, Any] | None:
    """The answer that a refresh token got a moment ago."""
    flow = find_flow(session, spent, kind=_AGAIN)
    return dict(flow.contents) if flow is not None and flow.contents else None


def end(session: Session, grant_id: str) -> bool:
    """End a family; False where it had ended."""
    ended = session.execute(delete(AppGrant).where(AppGrant.grant_id == grant_id))
    return bool(getattr(ended, "rowcount", 0))
