"""Ending short-lived data after a restore."""

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal.domain.oauth import BYOK_TOKEN_LIFETIME
from portal.store.models import ApiKey, BrowserSession, now
from portal.store.oauth_tables import AppGrant, OAuthFlow, TemporaryServer


def end_short_lived(session: Session) -> None:
    """End browser sessions, sign-ins of apps, pending sign-ins and codes, definitions under test,
    and hourly keys."""
    for table in (BrowserSession, AppGrant, OAuthFlow, TemporaryServer):
        session.execute(delete(table))
    short = select(ApiKey).where(ApiKey.expires_at.is_not(None), ApiKey.revoked_at.is_(None))
    dead = [
        key.key_id
        for key in session.scalars(short)
        if key.expires_at and key.expires_at - key.created_at <= BYOK_TOKEN_LIFETIME
    ]
    session.execute(update(ApiKey).where(ApiKey.key_id.in_(dead)).values(revoked_at=now()))
