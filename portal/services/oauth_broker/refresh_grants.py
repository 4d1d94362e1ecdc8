"""Which refresh token was issued to which client for which user.

Only they can use it, and only while they have access. The client gets the upstream's refresh token
unchanged; the portal stores a hash of it. It ends with the consent that it was issued under (RFC
6749, 6 and 10.4).
"""

from datetime import timedelta
from typing import NoReturn

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal.domain.errors import InvalidRequest
from portal.domain.oauth_requests import TokenRequest
from portal.domain.principals import Principal
from portal.services.oauth_broker.common import person_may_use
from portal.services.oauth_client.flows import digest
from portal.store.models import Server, now
from portal.store.oauth_tables import Consent, RefreshGrant
from portal.telemetry import metrics

_ONCE_MORE = timedelta(minutes=10)
"""How long a replaced refresh token may be retried, in case the response was lost."""
_MOST_OF_A_CONSENT = 100


def find_grant(
    session: Session, principal: Principal, row: Server, asked: TokenRequest, issuer: str
) -> RefreshGrant:
    """Return the grant of a refresh token, if the caller may use it now.

    It must have been issued to this client by `issuer`, for a user who has an account, may use the
    server and still consents. Raises `InvalidRequest` (`invalid_grant`), with the same message for
    every reason.
    """
    known = session.get(
        RefreshGrant, _hash(row.server_id, asked.refresh_token), populate_existing=True
    )
    if known is None or (known.server_id, known.issuer) != (row.server_id, issuer):
        _refuse()
    is_own = principal.user_id == known.user_id
    if not is_own and principal.user_id is not None:
        _refuse()
    if known.client_id != asked.client_id and (asked.client_id or not is_own):
        _refuse()
    if known.spent_at is not None and now() - known.spent_at > _ONCE_MORE:
        _refuse()
    if not person_may_use(session, known.user_id, principal.address, row):
        _refuse()
    return known


def note_refresh_token(session: Session, of: RefreshGrant, token: str) -> bool:
    """Store the hash of a refresh token issued to a client, replacing its predecessor in `of`.

    Return whether it was stored: nothing is without the user's consent.
    """
    consent = (of.user_id, of.server_id, of.client_hash)
    if session.get(Consent, consent, populate_existing=True) is None:
        return False
    of_consent = (
        RefreshGrant.user_id == of.user_id,
        RefreshGrant.server_id == of.server_id,
        RefreshGrant.client_hash == of.client_hash,
    )
    session.execute(
        delete(RefreshGrant).where(*of_consent, RefreshGrant.spent_at < now() - _ONCE_MORE)
    )
    newest = (
        select(RefreshGrant.refresh_hash).where(*of_consent).order_by(RefreshGrant.given_at.desc())
    )
    older = session.scalars(newest.offset(_MOST_OF_A_CONSENT - 1)).all()
    if older:
        session.execute(delete(RefreshGrant).where(RefreshGrant.refresh_hash.in_(older)))
    new = _hash(of.server_id, token)
    if of.refresh_hash and of.refresh_hash != new:
        of_old = (RefreshGrant.refresh_hash == of.refresh_hash, RefreshGrant.spent_at.is_(None))
        session.execute(update(RefreshGrant).where(*of_old).values(spent_at=now()))
    session.merge(
        RefreshGrant(
            refresh_hash=new,
            user_id=of.user_id,
            server_id=of.server_id,
            client_hash=of.client_hash,
            client_id=of.client_id,
            issuer=of.issuer,
            given_at=now(),
            spent_at=None,
        )
    )
    session.flush()
    return True


def _hash(server_id: str, token: str) -> str:
    return digest(f"{server_id} {token}")


def _refuse() -> NoReturn:
    metrics.security("code_refused")
    raise InvalidRequest(
        "This refresh token is unknown, expired, or was issued to another client or user, or the"
        " user no longer has access to the server. Sign in again.",
        code="invalid_grant",
    )
