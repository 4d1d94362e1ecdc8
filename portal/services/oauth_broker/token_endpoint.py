"""The broker's token endpoint: the portal redeems upstream codes and refresh tokens for clients.

RFC 6749 (4.1.3, 6), RFC 7636, RFC 8707. A code works once, and only for the client and user that
requested it. The stored client secret is sent only to the server's own token endpoint, and is never
part of a response.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden, InvalidRequest, NotFound, UpstreamFailure
from portal.domain.oauth import Client, Discovery, TokenSet, read_token_set
from portal.domain.oauth_requests import TokenRequest, matches_challenge, scopes_of
from portal.domain.principals import Principal
from portal.domain.token_answers import broken_rule, claimed_account
from portal.domain.upstream import HealthReason
from portal.services import audit
from portal.services.oauth_broker import refresh_grants
from portal.services.oauth_broker.common import (
    CODE,
    ENDED,
    NO_AUTHORIZATION,
    authorization,
    consent_key,
    known_client_of,
    note_client_use,
    person_may_use,
    require_oauth,
    upstream_client,
)
from portal.services.oauth_broker.subjects import find_subject
from portal.services.oauth_client import service_tokens
from portal.services.oauth_client.discovery import identity_of
from portal.services.oauth_client.flows import Flow, find_flow, take_flow
from portal.services.oauth_client.registration import redirect_uri
from portal.services.runtime import runtime_of
from portal.services.secrets import token_store
from portal.services.secrets.token_store import KIND
from portal.services.servers import queries
from portal.store.database import release
from portal.store.models import Server, UserCredential, now
from portal.store.oauth_tables import RefreshGrant
from portal.telemetry import metrics
from portal.upstream.oauth_client import OAuthRefused

log = logging.getLogger("portal.oauth")
_ANSWERED = ("access_token", "token_type", "expires_in", "refresh_token", "scope")
_NOT_THIS_CODE = "This code is unknown, used, expired, or was issued to another client."
_CLIENTS_FAULT = (
    "invalid_grant",
    "invalid_scope",
    "invalid_request",
    "unauthorized_client",
    "invalid_target",
)


class _Given(NamedTuple):
    """What a token endpoint gave, and the server as it was when that was asked."""

    answer: dict[str, Any]
    tokens: TokenSet
    incarnation: str
    version: int


def redeem(
    session: Session, principal: Principal, reference: str, asked: TokenRequest
) -> dict[str, Any]:
    """Return the upstream's token response, reduced to what clients need.

    Raises `InvalidRequest` with an error code of RFC 6749, 5.2, `Forbidden`
    (`token_validation_failed`) if the server's rules refuse the token, and `UpstreamFailure` for no
    response.
    """
    row = _subject(session, principal, reference, asked)
    require_oauth(row)
    known_client_of(session, row, asked.client_id)
    found = authorization(session, row)
    if not found.server.token_endpoint:
        raise InvalidRequest(NO_AUTHORIZATION, code="no_authorization_server")
    row = find_subject(session, principal, reference, _action(asked))
    if asked.grant_type == "refresh_token":
        return _renewed(session, principal, row, found, asked)
    return _exchanged(session, principal, row, found, asked)


def _action(asked: TokenRequest) -> Action:
    return (
        Action.SERVER_SIGN_IN if asked.grant_type == "authorization_code" else Action.SERVER_RENEW
    )


def _subject(session: Session, principal: Principal, reference: str, asked: TokenRequest) -> Server:
    missing: NotFound | None = None
    row: Server | None = None
    try:
        row = find_subject(session, principal, reference, _action(asked))
    except NotFound as error:
        missing = error
    asked.check()
    if row is None:
        raise missing or NotFound("Server not found.")
    return row


def _exchanged(
    session: Session, principal: Principal, row: Server, found: Discovery, asked: TokenRequest
) -> dict[str, Any]:
    place = f"{row.server_id} {asked.code}"
    flow = find_flow(session, place, kind=CODE)
    known_as = flow.contents["upstream_client_id"] if flow and flow.contents else ""
    client = upstream_client(
        session,
        row,
        found.server,
        known_as,
        callers_id=asked.client_id,
        callers_secret=asked.client_secret,
    )
    if flow is None or not _fits(principal, row, flow, asked):
        raise _refused(_NOT_THIS_CODE)
    person = flow.user_id
    if person is not None and not person_may_use(session, person, principal.address, row):
        raise _refused(ENDED)
    # A failed request does not consume the code; a valid one does, once across all processes.
    if not take_flow(session, place, kinds=(CODE,), browser=None):
        raise _refused(_NOT_THIS_CODE)
    session.commit()
    form = {
        "grant_type": "authorization_code",
        "code": asked.code,
        "redirect_uri": redirect_uri(session),
        "code_verifier": asked.code_verifier,
    }
    begun = flow.contents
    given = _asked(session, row, found, client, form, begun["scopes"])
    if flow.user_id is None:
        return _accepted(session, principal, row, found, client, given, None)
    app = RefreshGrant(
        user_id=flow.user_id,
        server_id=row.server_id,
        client_id=begun["client_id"],
        issuer=identity_of(found.server),
        client_hash=consent_key(begun["client_id"], begun["redirect_uri"]),
    )
    return _accepted(session, principal, row, found, client, given, app)


def _fits(principal: Principal, row: Server, flow: Flow, asked: TokenRequest) -> bool:
    """Return whether the code belongs to this client, user and server, and PKCE matches."""
    begun = flow.contents
    if begun["incarnation"] != row.incarnation:
        return False
    if asked.redirect_uri and asked.redirect_uri != begun["redirect_uri"]:
        return False
    if (asked.client_id or not authz.is_known(principal)) and asked.client_id != begun["client_id"]:
        return False
    if principal.user_id is not None and principal.user_id != flow.user_id:
        return False
    return matches_challenge(asked.code_verifier, begun["challenge"])


def _renewed(
    session: Session, principal: Principal, row: Server, found: Discovery, asked: TokenRequest
) -> dict[str, Any]:
    app = refresh_grants.find_grant(session, principal, row, asked, identity_of(found.server))
    session.expunge(app)
    client = upstream_client(
        session,
        row,
        found.server,
        "",
        callers_id=asked.client_id,
        callers_secret=asked.client_secret,
    )
    scopes = scopes_of(asked.scope)
    form = {"grant_type": "refresh_token", "refresh_token": asked.refresh_token}
    form |= {"scope": " ".join(scopes)} if scopes else {}
    given = _asked(session, row, found, client, form, scopes)
    return _accepted(session, principal, row, found, client, given, app)


def _refused(message: str) -> InvalidRequest:
    metrics.security("code_refused")
    return InvalidRequest(message, code="invalid_grant")


def _asked(
    session: Session,
    row: Server,
    found: Discovery,
    client: Client,
    form: Mapping[str, str],
    scopes: Iterable[str],
) -> _Given:
    """Return the token endpoint's response. Ends the transaction before the request.

    Raises `InvalidRequest` (`invalid_grant`) if the server was changed or deleted meanwhile.
    """
    server_id = row.server_id
    incarnation = row.incarnation
    version = row.version
    is_saved = row in session  # a temporary server is not
    release(session)
    resource = {"resource": found.resource} if found.resource else {}
    try:
        answer = runtime_of(session).oauth.ask_for_token(found.server, client, {**form, **resource})
        tokens = read_token_set(answer, now(), scopes)
    except OAuthRefused as refusal:
        log.warning(
            "the token endpoint of server %s refused the request (%s, HTTP %d)",
            server_id,
            refusal.error,
            refusal.status,
        )
        if refusal.error in _CLIENTS_FAULT:
            raise InvalidRequest(
                "The sign-in provider refused the request.", code=refusal.error
            ) from None
        raise UpstreamFailure(
            "The sign-in provider refused the portal.", reason=refusal.reason
        ) from None
    except UpstreamFailure as failure:
        log.warning("the token endpoint of server %s failed: %s", server_id, failure.reason)
        raise UpstreamFailure(
            "The sign-in provider returned an invalid response.", reason=failure.reason
        ) from None
    except ValueError:
        raise UpstreamFailure(
            "The sign-in provider returned no usable token.", reason=HealthReason.NOT_MCP
        ) from None
    if is_saved:
        there = session.get(Server, server_id, populate_existing=True)
        if there is None or there.incarnation != incarnation:
            raise _refused(ENDED)
    return _Given(answer, tokens, incarnation, version)


def _accepted(
    session: Session,
    principal: Principal,
    row: Server,
    found: Discovery,
    client: Client,
    given: _Given,
    app: RefreshGrant | None,
) -> dict[str, Any]:
    """Return the response for the client; `app` is the client and user, None without a user.

    Only clients of a user with access get a refresh token, and only if it was stored: the portal
    would refuse it otherwise (RFC 6749, section 5.1: it is optional).
    """
    answer = given.answer
    may_renew = app is not None and authz.may(
        principal, Action.SERVER_RENEW, queries.facts(session, row)
    )
    if app is not None:
        note_client_use(session, app.client_id)
    rule = broken_rule(row.token_validation, answer)
    if rule is not None:
        audit.record(session, principal, "token refused", "server", row.server_id, rule=rule)
        session.commit()
        raise Forbidden(
            "The token does not meet the server’s validation rules.",
            code="token_validation_failed",
            field=rule,
            server_id=row.server_id,
        )
    is_noted = False
    try:
        if app is not None:
            is_noted = _keep(session, principal, row, found, client, given, app)
    except SQLAlchemyError as error:  # the client still gets its token
        session.rollback()
        log.warning(
            "a token for server %s could not be stored: %s", row.server_id, type(error).__name__
        )
    kept = {name: answer[name] for name in _ANSWERED if answer.get(name) is not None}
    if not (may_renew and is_noted):
        kept.pop("refresh_token", None)
    return {"token_type": "Bearer", **kept}


def _keep(
    session: Session,
    principal: Principal,
    row: Server,
    found: Discovery,
    client: Client,
    given: _Given,
    app: RefreshGrant,
) -> bool:
    """Store the access token for a user with access, unless their own connection renews itself.

    Return whether the refresh token was stored.

    The refresh token stays with the client: if both used it, the second use would end the grant.
    Only its hash is stored, with whom it was issued to.
    """
    person = app.user_id
    tokens = given.tokens
    there = session.get(Server, row.server_id, populate_existing=True)
    seen = (given.incarnation, given.version)
    if there is None or (there.incarnation, there.version) != seen:
        return False
    if not person_may_use(session, person, principal.address, there):
        return False
    is_noted = False
    if tokens.refresh_token and authz.is_known(principal):
        is_noted = refresh_grants.note_refresh_token(session, app, tokens.refresh_token)
    held = session.get(UserCredential, (person, row.server_id, KIND), populate_existing=True)
    if held is not None and held.renewable and token_store.is_usable(held, now()):
        session.commit()
        return is_noted
    own = TokenSet(tokens.access_token, "", tokens.expires_at, tokens.scopes, tokens.token_type)
    token_store.keep(
        session,
        there,
        person,
        own,
        issuer=identity_of(found.server),
        client_id=client.client_id,
        account=claimed_account(given.answer),
    )
    service_tokens.forget_exchanged(session, row.server_id, person)
    audit.record(
        session,
        principal,
        "token saved",
        "server",
        row.server_id,
        person=person,
        scopes=list(tokens.scopes),
    )
    session.commit()
    return is_noted
