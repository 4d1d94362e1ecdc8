"""Dynamic registration of MCP clients (RFC 7591). Their metadata is stored as an unverified claim.

Only an Admin's registration is forwarded to the upstream, and only if the portal has no client
there yet.
"""

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import InvalidRequest, NotFound, PortalError
from portal.domain.oauth_requests import ClientClaims, fingerprint, read_claims
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.oauth_broker.common import (
    NO_AUTHORIZATION,
    PLACEHOLDER,
    authorization,
    check_redirect,
    require_oauth,
)
from portal.services.oauth_broker.subjects import find_open_server, find_subject
from portal.services.oauth_client.registration import register_for_admin
from portal.services.runtime import runtime_of
from portal.services.servers.queries import prefix_of
from portal.store.database import take_turn
from portal.store.models import Server, UtcDateTime, now
from portal.store.oauth_tables import McpClient

MOST_UNUSED = 5_000
MOST_UNUSED_OF_A_SERVER = 1_000
"""The maximum number of unused registrations: in all, and for one server (or for none)."""
MOST_AT_ALL = 20_000
GRACE = timedelta(minutes=30)
"""How long a client is not pruned after it registered or started a sign-in.

This is longer than users need to sign in. Only `MOST_AT_ALL` overrides it, which takes 166
addresses at their rate limit within that time.
"""
_UNUSED_FOR = timedelta(days=30)
_USED_FOR = timedelta(days=90)
_ROOM_LOCK = 7_204_917_008
_NEVER_ANSWERED = (
    "client_secret",
    "client_secret_expires_at",
    "registration_access_token",
    "registration_client_uri",
)


def register(
    session: Session, principal: Principal, reference: str, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Register a client for a server. For an Admin, also asks the upstream.

    Raises `InvalidRequest` with an error code of RFC 7591, and for a server without user sign-in.
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
        answer = register_for_admin(
            session, row, found.server, {k: v for k, v in wishes.items() if v}
        )
        if answer is not None:
            return _answered_upstream(session, principal, row, claims, valid, answer)
    return _registered(session, row, claims, valid)


def require_may_register(session: Session, principal: Principal, reference: str) -> None:
    """Raise what `register` raises before it reads the metadata."""
    find_subject(session, principal, reference, Action.SERVER_RENEW)


def is_registered(
    session: Session,
    principal: Principal,
    reference: str,
    metadata: Mapping[str, Any],
    *,
    by_id: bool,
) -> bool:
    """Return whether an equal registration exists, so that no new one is created.

    `by_id` answers for `register`, otherwise for `register_stranger`. Raises what those raise for
    the metadata.
    """
    if by_id and authz.is_admin(principal):
        return False  # the upstream may be asked
    claims = read_claims(metadata)
    row = find_subject(session, principal, reference, Action.SERVER_RENEW) if by_id else None
    if not by_id and reference:
        row = find_open_server(session, principal, reference)
    valid = _valid_redirects(session, claims)
    same = fingerprint(row.server_id if row is not None else None, claims, valid)
    return (
        session.scalar(select(McpClient.client_id).where(McpClient.fingerprint == same)) is not None
    )


def register_stranger(
    session: Session, principal: Principal, reference: str, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Store the claims of an unauthenticated client, without asking the upstream.

    `reference` is "" for a client that does not know a server's name. The registration gives no
    access: users still have to sign in and consent, and are never redirected to an untrusted URI.
    """
    claims = read_claims(metadata)
    # The client is bound to the server only if strangers may know of it. Otherwise later refusals
    # would reveal whether the name exists.
    row = find_open_server(session, principal, reference) if reference else None
    return _registered(session, row, claims, _valid_redirects(session, claims), called=reference)


def _valid_redirects(session: Session, claims: ClientClaims) -> list[str]:
    """Return all allowed redirect URIs.

    Raises `InvalidRequest` if none of those given is allowed.
    """
    valid = []
    fault = None
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
    session: Session,
    row: Server | None,
    claims: ClientClaims,
    valid: list[str],
    *,
    called: str = "",
) -> dict[str, Any]:
    if not valid:  # the placeholder client has nothing to store or to compare
        name = called or (prefix_of(row) if row is not None else PLACEHOLDER)
        back = f"{runtime_of(session).public_url}/callback"
        return {"client_id": name, **_described(claims, [back])}
    client = _same_or_new(session, row, claims, valid)
    issued = int(client.created_at.timestamp())
    return {
        "client_id": client.client_id,
        "client_id_issued_at": issued,
        **_described(claims, valid),
    }


def _described(claims: ClientClaims, redirect_uris: list[str]) -> dict[str, Any]:
    return {
        **({"client_name": claims.name} if claims.name else {}),
        "redirect_uris": redirect_uris,
        "grant_types": list(claims.grant_types),
        "response_types": list(claims.response_types),
        "token_endpoint_auth_method": "none",
    }


def _answered_upstream(
    session: Session,
    principal: Principal,
    row: Server,
    claims: ClientClaims,
    valid: list[str],
    answer: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the upstream's response without what manages or authenticates the client there."""
    audit.record(
        session,
        principal,
        "client registered",
        "server",
        row.server_id,
        client_id=answer["client_id"],
    )
    if valid:
        _remember(session, row, str(answer["client_id"]), claims, valid)
    kept = {name: value for name, value in answer.items() if name not in _NEVER_ANSWERED}
    redirect_uris = valid or [f"{runtime_of(session).public_url}/oauth/callback"]
    return kept | {"redirect_uris": redirect_uris, "token_endpoint_auth_method": "none"}


def _same_or_new(
    session: Session, row: Server | None, claims: ClientClaims, valid: list[str]
) -> McpClient:
    """Return the client with the same claims, or a new one.

    An id is not secret and its claims never change, so equal clients can share one. A lock across
    all processes prevents duplicates, and pruning twice for one client.
    """
    take_turn(session, _ROOM_LOCK)
    server_id = row.server_id if row is not None else None
    same = fingerprint(server_id, claims, valid)
    client = session.scalar(select(McpClient).where(McpClient.fingerprint == same))
    if client is None:
        client = _remember(session, row, f"mcp-{secrets.token_urlsafe(24)}", claims, valid)
        client.fingerprint = same
    client.seen_at = now()
    session.flush()
    return client


def _remember(
    session: Session, row: Server | None, client_id: str, claims: ClientClaims, valid: list[str]
) -> McpClient:
    server_id = row.server_id if row is not None else None
    _make_room(session, server_id)
    client = McpClient(
        server_id=server_id,
        client_id=client_id,
        client_name=claims.name or None,
        redirect_uris=valid,
        seen_at=now(),
    )
    session.add(client)
    session.flush()
    return client


def _make_room(session: Session, server_id: str | None) -> None:
    """Delete clients that were unused for long, and the oldest of too many that were never used.

    Registration is never refused: mass registrations prune each other. Clients in use are kept.
    """
    never = McpClient.last_used_at.is_(None)
    at = now()
    unused = and_(never, at - _UNUSED_FOR > _SEEN)
    session.execute(delete(McpClient).where(or_(unused, McpClient.last_used_at < at - _USED_FOR)))
    of_this = (
        McpClient.server_id == server_id if server_id is not None else McpClient.server_id.is_(None)
    )
    is_over = at - GRACE > _SEEN
    _keep_only(session, MOST_UNUSED_OF_A_SERVER - 1, [never, of_this], [is_over])
    _keep_only(session, MOST_UNUSED - 1, [never], [is_over])
    _keep_only(session, MOST_AT_ALL - 1, [never], [])


def _keep_only(
    session: Session, most: int, of: list[ColumnElement[bool]], may_go: list[ColumnElement[bool]]
) -> None:
    """Delete the oldest `of` these that `may_go`, until `most` are left or none may go."""
    too_many = (session.scalar(select(func.count()).select_from(McpClient).where(*of)) or 0) - most
    if too_many > 0:
        oldest = (
            select(McpClient.registration_id).where(*of, *may_go).order_by(_SEEN).limit(too_many)
        )
        session.execute(delete(McpClient).where(McpClient.registration_id.in_(oldest)))


_SEEN = func.coalesce(McpClient.seen_at, McpClient.created_at, type_=UtcDateTime())
