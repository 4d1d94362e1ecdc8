"""Token endpoint of the gateway: exchange codes and refresh tokens, and revoke tokens.

RFC 6749 (4.1.3, 6), RFC 7636, RFC 7009, RFC 8707. Clients are public: the PKCE verifier of the
code, and later the refresh token, authenticate the request.
"""

from typing import Any

from sqlalchemy.orm import Session

from portal.domain.errors import Forbidden, InvalidRequest, Unauthenticated
from portal.domain.oauth_requests import TokenRequest, matches_challenge
from portal.domain.principals import STRANGER, Principal
from portal.services import audit
from portal.services.access.principals import principal_for_user
from portal.services.oauth_broker.common import consent_key, note_client_use
from portal.services.oauth_client.flows import Flow, find_flow, take_flow
from portal.services.oauth_server import families
from portal.services.oauth_server.authorize import CODE
from portal.services.oauth_server.resources import (
    Resource,
    address_in,
    require_usable,
    resolve,
)
from portal.store.models import now
from portal.store.oauth_tables import AppGrant
from portal.telemetry import metrics

_NOT_THIS_CODE = "This code is unknown, used, expired, or was issued to another app."
_NOT_THIS_ONE = (
    "This refresh token is unknown, expired, or was issued to another app. Sign in again."
)
_ENDED = "The user can no longer use this resource. Sign in again."


def redeem(session: Session, asked: TokenRequest, address: str | None) -> dict[str, Any]:
    """Return the response to a token request from the client address `address`.

    Raises `InvalidRequest` with an error code of RFC 6749, 5.2.
    """
    if not asked.grant_type or not asked.client_id:
        raise InvalidRequest("grant_type and client_id are required.")
    asked.check()
    if asked.grant_type == "refresh_token":
        return _renewed(session, asked, address)
    return _exchanged(session, asked, address)


def revoke(session: Session, token: str, client_id: str) -> None:
    """End the family of a refresh token, or only an access token (RFC 7009).

    Unknown tokens and tokens of other apps are ignored.
    """
    for kind in (families.REFRESH, families.ACCESS):
        found = families.find(session, token, kind)
        if found is None or found[0].client_id != client_id:
            continue
        grant, held = found
        if kind == families.REFRESH:
            families.end(session, grant.grant_id)
            _record(session, STRANGER, "app signed out", grant)
        else:
            session.delete(held)
    session.flush()


def _exchanged(session: Session, asked: TokenRequest, address: str | None) -> dict[str, Any]:
    flow = find_flow(session, asked.code, kind=CODE)
    if flow is None or not _fits(flow, asked):
        raise _refused(_NOT_THIS_CODE)
    begun = flow.contents
    of = Resource(begun["server_id"], begun["toolset_id"])
    _check_resource(session, asked.resource, of)
    person = _require_person(session, str(flow.user_id), of, address)
    if take_flow(session, asked.code, kinds=(CODE,), browser=None) is None:
        # The code may be stolen: the tokens that were issued for it end (RFC 6749, 4.1.2).
        families.end(session, begun["grant_id"])
        session.commit()
        raise _refused(_NOT_THIS_CODE)
    grant = AppGrant(
        grant_id=begun["grant_id"],
        user_id=flow.user_id,
        server_id=of.server_id,
        toolset_id=of.toolset_id,
        client_id=begun["client_id"],
        client_hash=consent_key(begun["client_id"], begun["redirect_uri"]),
        client_name=begun["name"] or None,
        redirect_uri=begun["redirect_uri"],
        given_at=now(),
    )
    session.add(grant)
    session.flush()
    _record(session, person, "app signed in", grant)
    return families.issue(session, grant)


def _fits(flow: Flow, asked: TokenRequest) -> bool:
    """Return whether the code was issued to this client, with this PKCE challenge."""
    begun = flow.contents
    if asked.client_id != begun["client_id"]:
        return False
    if asked.redirect_uri and asked.redirect_uri != begun["redirect_uri"]:
        return False
    return matches_challenge(asked.code_verifier, begun["challenge"])


def _renewed(session: Session, asked: TokenRequest, address: str | None) -> dict[str, Any]:
    found = families.find(session, asked.refresh_token, families.REFRESH)
    if found is None or found[0].client_id != asked.client_id:
        raise _refused(_NOT_THIS_ONE)
    grant, token = found
    if not families.is_live(session, grant, token, now()):
        raise _refused(_NOT_THIS_ONE)
    of = Resource(grant.server_id, grant.toolset_id)
    _check_resource(session, asked.resource, of)
    person = _require_person(session, grant.user_id, of, address)
    if not families.spend(session, token):
        again = families.answer_again(session, asked.refresh_token)
        if again is not None:
            return again
        _record(session, person, "app ended: refresh token used twice", grant)
        families.end(session, grant.grant_id)
        session.commit()
        raise _refused(_NOT_THIS_ONE)
    answer = families.issue(session, grant)
    families.remember_answer(session, grant, asked.refresh_token, answer)
    note_client_use(session, grant.client_id)
    return answer


def _check_resource(session: Session, resource: str, of: Resource) -> None:
    """Raise `InvalidRequest` if the request names another resource than the consent (RFC 8707)."""
    if not resource:
        return
    named = address_in(session, resource)
    found = resolve(session, named) if named is not None else None
    if found is None or (found.server_id, found.toolset_id) != (of.server_id, of.toolset_id):
        raise InvalidRequest("The user allowed another resource.", code="invalid_target")


def _require_person(session: Session, user_id: str, of: Resource, address: str | None) -> Principal:
    try:
        person = principal_for_user(session, user_id, address)
        require_usable(session, person, of)
    except (Unauthenticated, Forbidden):
        raise _refused(_ENDED) from None
    return person


def _record(session: Session, principal: Principal, action: str, grant: AppGrant) -> None:
    kind = "toolset" if grant.toolset_id else "server"
    of = grant.server_id or grant.toolset_id
    audit.record(
        session, principal, action, kind, of, client_id=grant.client_id, person=grant.user_id
    )


def _refused(message: str) -> InvalidRequest:
    metrics.security("code_refused")
    return InvalidRequest(message, code="invalid_grant")
