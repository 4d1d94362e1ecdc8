"""Which refresh token went to which client for whom. It renews for nobody else, and no longer than
they may.

The upstream's refresh token goes to the client as it is; what stays here is a hash of it. It ends
with the consent that it was given under (RFC 6749, 6 and 10.4).
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
"""For so long after it was replaced a refresh token may come again, where the answer got lost; the
upstream decides."""
_MOST_OF_A_CONSENT = 100


def find(
    session: Session, principal: Principal, row: Server, asked: TokenRequest, issuer: str
) -> RefreshGrant:
    """What is known of a refresh token, if the caller may renew with it now: it went to this
    client, for a person who has an account, may use the server and allows the app, and it belongs
    to `issuer`.

    Raises `InvalidRequest` (`invalid_grant`), in the same words whatever is wrong.
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


def note(session: Session, of: RefreshGrant, token: str) -> bool:
    """Remember the refresh token that a client got, as `of` says for whom, and in place of which;
    nothing without their consent. Whether it was."""
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
        "This refresh token is unknown here, over, or was given to another client or person; or the"
        " person may not use the server any more. Sign in again.",
        code="invalid_grant",
    )
