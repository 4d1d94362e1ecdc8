"""A person's OAuth connection to a server: begun in the browser, completed by its way back, seen,
and ended.

MCP authorization (2026-07-28) with PKCE (RFC 7636), resource indicators (RFC 8707), the issuer in
the response (RFC 9207) and revocation (RFC 7009). The portal is the client; nobody ever sees a
token.
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
from portal.services.oauth_client.authorization_request import Departure, depart, usual_scopes
from portal.services.oauth_client.authorization_response import exchanged, fault_of, refused
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
    "The refresh token is not stored: it is not known now which sign-in provider it belongs to. The"
    " access token is used until it expires. Connect in the portal to have it renewed."
)


@dataclass(frozen=True)
class Disconnected:
    """A connection that is ended, and in a sentence what the authorization server said to it."""

    server_id: str
    said: str


def begin(
    session: Session, principal: Principal, server_id: str, *, browser: str, back: str = ""
) -> Departure:
    """Prepare the way to a server's authorization server; asks other machines. `back` is a path of
    ours to return to.

    Raises what `authorization_of` and `client_of` raise, and `InvalidRequest` (`not_oauth`) for a
    server to which people do not connect.
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


def complete(session: Session, principal: Principal, flow: Flow, answer: Mapping[str, str]) -> None:
    """Finish a connection with what the authorization server sent along: code or error, and maybe
    `iss`.

    What became of it is written into the flow, for its result page, and nothing is raised for what
    others did. The flow was taken before, and that committed: its code is spent once, whatever
    happens here.
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
    """End a flow that came back to nobody, or to somebody else, without looking at what it
    brought."""
    finish_flow(session, flow.flow_id, {"state": state, "back": ""})


def get_result(
    session: Session, principal: Principal, flow_id: str, browser: str | None
) -> dict[str, Any]:
    """What became of a flow that began in this browser, and for which server. Raises `NotFound`."""
    flow = peek_flow(session, flow_id, kinds=(FLOW,), browser=browser)
    if flow is None or flow.outcome is None:
        raise NotFound("What became of it is not known any more. Look at your credentials.")
    if flow.user_id != principal.user_id:
        return {"state": "other_person", "server_id": None}
    return {**flow.outcome, "server_id": flow.server_id}


def get_state(session: Session, principal: Principal, server_id: str) -> ConnectionState:
    """The caller's connection to a server."""
    row = _find(session, principal, server_id)
    return connection_state_of(session, principal, row)


def list_own(
    session: Session, principal: Principal
) -> list[tuple[ConnectionState, str | None, str | None]]:
    """The caller's connections with the name and alias of each server, None where it is gone or not
    for them to see any more; one query.

    Raises `InvalidRequest` for a key that belongs to nobody.
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
    """Store tokens that the caller got elsewhere, in place of any earlier ones.

    They live `expires_in` seconds from now, or for good where none are given. A refresh token
    belongs to the authorization server that the server leads to now, which is discovered if need
    be; it is sent to no other. Where that cannot be known it is not stored, and the answer says so.
    Asks other machines, and ends the transaction then.
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
    """Raise what `save_token` raises before it looks at the token."""
    _find(session, principal, server_id)


def disconnect(session: Session, principal: Principal, server_id: str) -> Disconnected:
    """Forget the caller's tokens, and ask the authorization server to do the same.

    They are gone here whatever it answers. Removing nothing is fine.
    """
    row = own_data.find_held(session, principal, server_id, Action.CREDENTIAL_OWN)
    assert principal.user_id is not None
    found = row.server_id
    credential = session.get(UserCredential, (principal.user_id, found, KIND))
    if credential is None:
        return Disconnected(found, "")
    held = token_store.opened(
        session, token_store.place_of(row, principal.user_id), credential.sealed
    )
    issuer = credential.issuer
    session.delete(credential)
    service_tokens.forget_exchanged(session, row.server_id, principal.user_id)
    audit.record(session, principal, "disconnected", "server", row.server_id, name=row.server_name)
    session.commit()
    said = (
        _revoked(session, row, held, issuer) if held else "There was nothing that could be revoked."
    )
    return Disconnected(found, said)


def _issuer(session: Session, row: Server) -> str | None:
    """Whose tokens the server takes; None where nobody can tell now."""
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
                "The provider offers no way to revoke it; end the portal’s access in your account"
                " there."
            )
        if issuer is None:
            return (
                "Who issued it is not known here, so nobody was asked; end its access in your"
                " account there."
            )
        if client is None or issuer != identity_of(server):
            return (
                "The server has another provider now; end the portal’s access in your account at"
                " the old one."
            )
        release(session)
        oauth = runtime_of(session).oauth
        if held.refresh_token:
            oauth.revoke(server, client, held.refresh_token, hint="refresh_token")
        oauth.revoke(server, client, held.access_token, hint="access_token")
    except PortalError:
        return (
            "The provider did not confirm that it revoked it; end the portal’s access in your"
            " account there."
        )
    return "The provider revoked it, too."


def _completed(
    session: Session, principal: Principal, flow: Flow, answer: Mapping[str, str]
) -> dict[str, Any]:
    begun = flow.contents
    outcome = {"back": flow.contents.get("back", "")}
    try:
        row = _find(session, principal, str(flow.server_id))
        found = authorization_of(session, row)
        row = _find(session, principal, str(flow.server_id))
        if (fault := fault_of(row, found, begun, answer)) is not None:
            return outcome | fault
        return outcome | exchanged(session, principal, row, found, begun, answer["code"])
    except OAuthRefused as refusal:
        return outcome | refused(refusal.error)
    except UpstreamFailure:
        return outcome | {"state": "unreachable"}
    except PortalError as error:
        return outcome | {"state": "failed", "message": error.message}


def _tried(session: Session, principal: Principal, server_id: str) -> dict[str, Any]:
    """Whether the server takes the new token: a handshake and its tools, as the person."""
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
    """What to ask for: the scopes of the definition, else those that discovery found; more where
    more were wanted."""
    more = wanted_scopes(session, row, principal.user_id)
    return list(dict.fromkeys(str(scope) for scope in (*usual_scopes(session, row, found), *more)))


def _find(session: Session, principal: Principal, server_id: str) -> Server:
    return own_data.find_place(session, principal, server_id, Action.CREDENTIAL_OWN)


def _require_personal(row: Server) -> None:
    if not needs_a_person(row):
        raise InvalidRequest(
            "People do not sign in to this server themselves.", code="not_oauth", field="server_id"
        )
