"""MCP clients that make themselves known (RFC 7591): what they say is kept as a claim, under an id of ours.

Only an Admin's registration reaches the upstream, and only where the portal is no client there yet (OAU-40, OAU-41).
"""

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.brokering import ClientClaims, read_claims
from portal.domain.errors import InvalidRequest, NotFound, PortalError, RateLimited
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.inner.brokered import (
    NO_AUTHORIZATION,
    authorization,
    check_redirect,
    prefix_of,
    require_oauth,
)
from portal.services.inner.clients import register_for_admin
from portal.services.inner.house import house_of
from portal.services.inner.oauth_subjects import find_open_server, find_subject
from portal.store.models import Server, now
from portal.store.oauth_tables import McpClient

_MOST_UNUSED = 5_000
_UNUSED_FOR = timedelta(days=30)
_USED_FOR = timedelta(days=90)
_NEVER_ANSWERED = ("client_secret", "client_secret_expires_at", "registration_access_token", "registration_client_uri")


def register(session: Session, principal: Principal, reference: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Register a client for a server, by somebody who is known; asks the upstream where an Admin does.

    Raises `InvalidRequest` in the words of RFC 7591, and for a server that people cannot sign in to.
    """
    missing: NotFound | None = None
    try:
        find_subject(session, principal, reference, Action.SERVER_RENEW)
    except NotFound as error:
        missing = error
    claims = read_claims(metadata)
    if missing is not None:
        raise missing
    row = find_subject(session, principal, reference, Action.SERVER_RENEW)
    require_oauth(row)
    valid = _valid_redirects(session, claims)
    found = authorization(session, row)
    if not found.server.authorization_endpoint:
        raise InvalidRequest(NO_AUTHORIZATION, code="no_authorization_server")
    row = find_subject(session, principal, reference, Action.SERVER_RENEW)
    if authz.is_admin(principal) and found.server.registration_endpoint:
        wishes = {
            "client_name": claims.name or None, "grant_types": list(claims.grant_types),
            "response_types": list(claims.response_types),
            "token_endpoint_auth_method": metadata.get("token_endpoint_auth_method"),
        }  # fmt: skip
        answer = register_for_admin(session, row, found.server, {k: v for k, v in wishes.items() if v})
        if answer is not None:
            return _answered_upstream(session, principal, row, claims, valid, answer)
    return _registered(session, row, claims, valid)


def require_may_register(session: Session, principal: Principal, reference: str) -> None:
    """Raise what `register` raises before it looks at the metadata."""
    find_subject(session, principal, reference, Action.SERVER_RENEW)


def register_stranger(
    session: Session, principal: Principal, reference: str, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Take down what a client says of itself, whoever runs it; nothing else is changed, and nobody else is asked.

    `reference` is "" for a client that knows no server's name. It opens nothing: whoever uses the client has to be let
    in and to consent, and is never led to a redirect URI that the portal does not trust.
    """
    claims = read_claims(metadata)
    # Only for a server that strangers may know of is the client bound to it: what it is refused later, at that server
    # or at others, would tell whether there is one of this name.
    row = find_open_server(session, principal, reference) if reference else None
    return _registered(session, row, claims, _valid_redirects(session, claims), called=reference)


def _valid_redirects(session: Session, claims: ClientClaims) -> list[str]:
    """The redirect URIs that may be used, all of them (OAU-43); `InvalidRequest` where none of those given may."""
    valid, fault = [], None
    for uri in claims.redirect_uris:
        try:
            check_redirect(session, uri)
        except PortalError as error:
            fault = error
        else:
            valid.append(uri)
    if fault is not None and not valid:
        raise InvalidRequest(fault.message, code="invalid_redirect_uri", field="redirect_uris")
    return valid


def _registered(
    session: Session, row: Server | None, claims: ClientClaims, valid: list[str], *, called: str = ""
) -> dict[str, Any]:
    if not valid:  # the placeholder: nothing to remember, and nothing to hold a request against (OAU-38, OAU-66)
        name = called or (prefix_of(row) if row is not None else "placeholder")
        back = f"{house_of(session).public_url}/callback"
        return {"client_id": name, **_described(claims, [back])}
    client_id = f"mcp-{secrets.token_urlsafe(24)}"
    _remember(session, row, client_id, claims, valid)
    return {"client_id": client_id, "client_id_issued_at": int(now().timestamp()), **_described(claims, valid)}


def _described(claims: ClientClaims, redirect_uris: list[str]) -> dict[str, Any]:
    return {
        **({"client_name": claims.name} if claims.name else {}),
        "redirect_uris": redirect_uris,
        "grant_types": list(claims.grant_types),
        "response_types": list(claims.response_types),
        "token_endpoint_auth_method": "none",
    }


def _answered_upstream(
    session: Session, principal: Principal, row: Server, claims: ClientClaims, valid: list[str],
    answer: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The upstream's answer without what manages or authenticates the client there (R-OAUTH-36)."""
    audit.record(session, principal, "client registered", "server", row.server_id, client_id=answer["client_id"])
    if valid:
        _remember(session, row, str(answer["client_id"]), claims, valid)
    kept = {name: value for name, value in answer.items() if name not in _NEVER_ANSWERED}
    redirect_uris = valid or [f"{house_of(session).public_url}/oauth/callback"]
    return kept | {"redirect_uris": redirect_uris, "token_endpoint_auth_method": "none"}


def _remember(session: Session, row: Server | None, client_id: str, claims: ClientClaims, valid: list[str]) -> None:
    _make_room(session)
    session.add(
        McpClient(
            server_id=row.server_id if row is not None else None, client_id=client_id, client_name=claims.name or None,
            redirect_uris=valid,
        )
    )  # fmt: skip
    session.flush()


def _make_room(session: Session) -> None:
    """Forget clients that nobody uses. Raises `RateLimited` where there are too many that nobody ever used."""
    never = McpClient.last_used_at.is_(None)
    unused = and_(never, McpClient.created_at < now() - _UNUSED_FOR)
    session.execute(delete(McpClient).where(or_(unused, McpClient.last_used_at < now() - _USED_FOR)))
    if (session.scalar(select(func.count()).select_from(McpClient).where(never)) or 0) >= _MOST_UNUSED:
        raise RateLimited("Too many apps have registered without being used.", retry_after=3600)
