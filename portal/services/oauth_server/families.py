"""Token families: all tokens of one sign-in of an app, which are revoked together.

Only hashes of tokens are stored. A refresh token can be used once (RFC 9700, 4.14.2). If it is sent
again soon, it gets the same response, because the first one could be lost. If it is sent again
later, the family ends.
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
"""How long a used refresh token gets the same response again."""
_AGAIN = "app_again"
_CLOCKS_DIFFER = timedelta(minutes=5)


def end_of(session: Session, grant: AppGrant) -> datetime:
    """Return the latest end of a family: the maximum session length after the user's consent."""
    return grant.given_at + timedelta(hours=runtime_of(session).session_max_hours)


def is_live(session: Session, grant: AppGrant, token: AppToken, at: datetime) -> bool:
    """Return whether a token is valid at `at`, used or not.

    A token that was issued after `at` is not valid: the clock was set back.
    """
    return (
        token.issued_at <= at + _CLOCKS_DIFFER
        and at < token.expires_at
        and at < end_of(session, grant)
    )


def issue(session: Session, grant: AppGrant) -> dict[str, Any]:
    """Issue a pair of tokens; return the response of the token endpoint (RFC 6749, 5.1)."""
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
    """Return the grant and the stored token, valid or not, or None."""
    query = (
        select(AppGrant, AppToken)
        .join(AppToken, AppToken.grant_id == AppGrant.grant_id)
        .where(AppToken.bearer_hash == digest(token), AppToken.kind == kind)
    )
    found = session.execute(query).one_or_none()
    return (found[0], found[1]) if found is not None else None


def spend(session: Session, token: AppToken) -> bool:
    """Mark a refresh token as used; return False if it was used before, on any process."""
    spent = session.execute(
        update(AppToken)
        .where(AppToken.bearer_hash == token.bearer_hash, AppToken.spent_at.is_(None))
        .values(spent_at=now())
    )
    return bool(getattr(spent, "rowcount", 0))


def remember_answer(session: Session, grant: AppGrant, spent: str, answer: dict[str, Any]) -> None:
    """Store the encrypted response to a refresh token for `AGAIN_WITHIN`."""
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
    """Return the stored response to a recently used refresh token, or None."""
    flow = find_flow(session, spent, kind=_AGAIN)
    return dict(flow.contents) if flow is not None and flow.contents else None


def end(session: Session, grant_id: str) -> bool:
    """End a family; return False if it had already ended."""
    ended = session.execute(delete(AppGrant).where(AppGrant.grant_id == grant_id))
    return bool(getattr(ended, "rowcount", 0))
