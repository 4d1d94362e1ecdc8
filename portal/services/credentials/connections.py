"""A user's OAuth connection to a server: start, completion, state and disconnection.

Implements MCP authorization (2026-07-28) with PKCE (RFC 7636), resource indicators (RFC 8707), the
issuer in the response (RFC 9207) and revocation (RFC 7009). The portal is the client, and tokens
are never shown to anyone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.authorization import Action
from portal.domain.errors import InvalidRequest, NotFound, PortalError, UpstreamFailure
from portal.domain.oauth import Discovery, TokenSet, expiry
from portal.domain.principals import Principal
from portal.domain.upstream import HealthStatus
from portal.services import audit
from portal.services.credentials.states import ConnectionState, connection_state_of, view_connection
from portal.services.oauth_client import service_tokens
from portal.services.oauth_client.authorization_request import (
    ProviderRedirect,
    depart,
    usual_scopes,
)
from portal.services.oauth_client.authorization_response import exchanged, failed_outcome, refused
from portal.services.oauth_client.discovery import authorization_of, identity_of
from portal.services.oauth_client.flows import Flow, finish_flow, peek_flow
from portal.services.oauth_client.registration import client_of, known_client
from portal.services.oauth_client.user_tokens import wanted_scopes
from portal.services.runtime import runtime_of
from portal.services.secrets import token_store
from portal.services.secrets.token_store import KIND, needs_a_person
from portal.services.servers import own_data, queries
from portal.services.upstreams import connection_test
from portal.store.database import release
from portal.store.models import Server, UserCredential, now
from portal.upstream.oauth_client import OAuthRefused

FLOW = "connect"
_NOT_BOUND = (
    "The refresh token was not stored, because its sign-in provider could not be determined. The"
    " access token is used until it expires. Connect in the portal to have it renewed."
)


@dataclass(frozen=True)
class Disconnected:
    """An ended connection, and the authorization server's response as a sentence."""

    server_id: str
    said: str


def begin_connection(
    session: Session, principal: Principal, server_id: str, *, browser: str, back: str = ""
) -> ProviderRedirect:
    """Prepare the redirect to a server's authorization server. Makes outgoing requests.

    `back` is a path on the portal to return to. Raises what `authorization_of` and `client_of`
    raise, and `InvalidRequest` (`not_oauth`) for a server without user sign-in.
    """
    row = _find(session, principal, server_id)
    _require_personal(row)
    found = authorization_of(session, row, afresh=True)
    row = _find(session, principal, server_id)
    scopes = _scopes(session, principal, row, found)
    client = client_of(session, row, found.server, scopes)
    row = _find(session, principal, server_id)
    return depart(
        session,
        row,
        found,
        client,
        scopes,
        kind=FLOW,
        user_id=principal.user_id,
        browser=browser,
        back=back,
    )


def complete_connection(
    session: Session, principal: Principal, flow: Flow, answer: Mapping[str, str]
) -> None:
    """Finish a connection with the authorization server's response.

    `answer` has a code or an error, and maybe `iss`. Stores the result in the flow, for its result
    page, and raises nothing for errors of others. The flow was consumed and committed before, so
    its code is used only once, whatever happens here.
    """
    outcome = _completed(session, principal, flow, answer)
    finish_flow(session, flow.flow_id, outcome)
    session.commit()
    if outcome["state"] == "connected":
        finish_flow(
            session,
            flow.flow_id,
            outcome | {"test": _tried(session, principal, str(flow.server_id))},
        )


def give_up(session: Session, _principal: Principal | None, flow: Flow, state: str) -> None:
    """End a flow that nobody, or another user, returned to. Its response is not read."""
    finish_flow(session, flow.flow_id, {"state": state, "back": ""})


def get_result(
    session: Session, principal: Principal, flow_id: str, browser: str | None
) -> dict[str, Any]:
    """Return the result of a flow started in this browser, and its server. Raises `NotFound`."""
    flow = peek_flow(session, flow_id, kinds=(FLOW,), browser=browser)
    if flow is None or flow.outcome is None:
        raise NotFound("The result is no longer available. Check your credentials page.")
    if flow.user_id != principal.user_id:
        return {"state": "other_person", "server_id": None}
    return {**flow.outcome, "server_id": flow.server_id}


def get_state(session: Session, principal: Principal, server_id: str) -> ConnectionState:
    """Return the caller's connection to a server."""
    row = _find(session, principal, server_id)
    return connection_state_of(session, principal, row)


def list_connections(
    session: Session, principal: Principal
) -> list[tuple[ConnectionState, str | None, str | None]]:
    """Return the caller's connections with each server's name and alias, in one query.

    Name and alias are None if the server was deleted or the caller may no longer see it. Raises
    `InvalidRequest` for a key without an owner.
    """
    own_data.require_person(principal)
    query = (
        select(UserCredential, *queries.names_known_to(principal))
        .outerjoin(Server, Server.server_id == UserCredential.server_id)
        .where(UserCredential.user_id == principal.user_id, UserCredential.kind == KIND)
        .order_by(UserCredential.server_id)
    )
    return [
        (state, name, alias)
        for credential, name, alias in session.execute(query)
        if (state := view_connection(session, credential.server_id, credential)).has_credential
    ]


def save_token(
    session: Session,
    principal: Principal,
    server_id: str,
    *,
    access_token: str,
    refresh_token: str = "",
    expires_in: int | None = None,
    scopes: Sequence[str] = (),
) -> ConnectionState:
    """Store tokens that the caller got elsewhere, replacing earlier ones.

    They expire `expires_in` seconds from now; None means never. A refresh token belongs to the
    authorization server that the server uses now, which is discovered if necessary, and is sent to
    no other. If that server cannot be determined, the refresh token is not stored, and the result
    says so. Makes outgoing requests, which end the transaction.
    """
    row = _find(session, principal, server_id)
    assert principal.user_id is not None
    expires_at = expiry(expires_in, now())
    issuer = _issuer(session, row) if refresh_token else None
    row = _find(session, principal, server_id)
    tokens = TokenSet(access_token, refresh_token if issuer else "", expires_at, tuple(scopes))
    credential = token_store.keep(session, row, principal.user_id, tokens, issuer=issuer)
    service_tokens.forget_exchanged(session, row.server_id, principal.user_id)
    audit.record(
        session,
        principal,
        "token saved",
        "server",
        row.server_id,
        name=row.server_name,
        scopes=list(tokens.scopes),
    )
    session.flush()
    view = view_connection(session, row.server_id, credential)
    return replace(view, note=_NOT_BOUND) if refresh_token and not issuer else view


def require_own_place(session: Session, principal: Principal, server_id: str) -> None:
    """Raise what `save_token` raises before it reads the token."""
    _find(session, principal, server_id)


def disconnect(session: Session, principal: Principal, server_id: str) -> Disconnected:
    """Delete the caller's tokens, and ask the authorization server to revoke them.

    The tokens are deleted whatever it answers. Does nothing if there are none.
    """
    row = own_data.find_held(session, principal, server_id, Action.CREDENTIAL_OWN)
    assert principal.user_id is not None
    found = row.server_id
    credential = session.get(UserCredential, (principal.user_id, found, KIND))
    if credential is None:
        return Disconnected(found, "")
    held = token_store.opened_tokens(
        session, token_store.place_of(row, principal.user_id), credential.sealed
    )
    issuer = credential.issuer
    session.delete(credential)
    service_tokens.forget_exchanged(session, row.server_id, principal.user_id)
    audit.record(session, principal, "disconnected", "server", row.server_id, name=row.server_name)
    session.commit()
    said = _revoked(session, row, held, issuer) if held else "There was no token to revoke."
    return Disconnected(found, said)


def _issuer(session: Session, row: Server) -> str | None:
    """Return the issuer whose tokens the server accepts; None if it cannot be determined."""
    if not needs_a_person(row):
        return None
    try:
        return identity_of(authorization_of(session, row).server)
    except PortalError:
        session.rollback()
        return None


def _revoked(
    session: Session, row: Server, held: token_store.HeldTokens, issuer: str | None
) -> str:
    try:
        server = authorization_of(session, row).server
        client = known_client(session, row, server, held.client_id)
        if not server.revocation_endpoint:
            return (
                "The provider does not support revocation. Remove the portal’s access in your"
                " account there."
            )
        if issuer is None:
            return (
                "The issuer of the token is unknown, so it was not revoked. Remove the portal’s"
                " access in your account there."
            )
        if client is None or issuer != identity_of(server):
            return (
                "The server now uses another provider. Remove the portal’s access in your account"
                " at the old one."
            )
        release(session)
        oauth = runtime_of(session).oauth
        if held.refresh_token:
            oauth.revoke(server, client, held.refresh_token, hint="refresh_token")
        oauth.revoke(server, client, held.access_token, hint="access_token")
    except PortalError:
        return (
            "The provider did not confirm the revocation. Remove the portal’s access in your"
            " account there."
        )
    return "The provider revoked it as well."


def _completed(
    session: Session, principal: Principal, flow: Flow, answer: Mapping[str, str]
) -> dict[str, Any]:
    begun = flow.contents
    outcome = {"back": flow.contents.get("back", "")}
    try:
        row = _find(session, principal, str(flow.server_id))
        found = authorization_of(session, row)
        row = _find(session, principal, str(flow.server_id))
        if (fault := failed_outcome(row, found, begun, answer)) is not None:
            return outcome | fault
        return outcome | exchanged(session, principal, row, found, begun, answer["code"])
    except OAuthRefused as refusal:
        return outcome | refused(refusal.error)
    except UpstreamFailure:
        return outcome | {"state": "unreachable"}
    except PortalError as error:
        return outcome | {"state": "failed", "message": error.message}


def _tried(session: Session, principal: Principal, server_id: str) -> dict[str, Any]:
    """Test the new token: connect as the user and list tools."""
    try:
        result = connection_test.try_own(session, principal, server_id).result
    except PortalError as error:
        return {"ok": False, "message": error.message}
    healthy = result.status is HealthStatus.HEALTHY
    return {
        "ok": healthy,
        "message": "" if healthy else result.message,
        "tools": len(result.tools or ()),
    }


def _scopes(session: Session, principal: Principal, row: Server, found: Discovery) -> list[str]:
    """Return the scopes to request: configured or discovered ones, plus any that were missing."""
    more = wanted_scopes(session, row, principal.user_id)
    return list(dict.fromkeys(str(scope) for scope in (*usual_scopes(session, row, found), *more)))


def _find(session: Session, principal: Principal, server_id: str) -> Server:
    return own_data.find_place(session, principal, server_id, Action.CREDENTIAL_OWN)


def _require_personal(row: Server) -> None:
    if not needs_a_person(row):
        raise InvalidRequest(
            "Users do not sign in to this server themselves.", code="not_oauth", field="server_id"
        )
