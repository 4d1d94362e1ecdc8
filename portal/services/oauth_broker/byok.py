"""The authorization server for BYOK servers: MCP clients get access after the user enters a key.

Authorization code with PKCE (RFC 6749, 7636, 9700), only for programs on the user's own computer.
The user enters their key on a page of the portal; it is sealed in the code, and stored when the
client redeems the code. The client gets a portal API key of the user that can list and call the
tools of this one server for an hour, and is listed and can be revoked with the user's other keys.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden, InvalidRequest, NotFound, PortalError, Unauthenticated
from portal.domain.oauth import BYOK_TOKEN_LIFETIME, with_parameters
from portal.domain.principals import Principal
from portal.domain.redirects import check_redirect_uri, is_loopback, shown_destination
from portal.domain.snippets import endpoint
from portal.services.access import keys
from portal.services.access.principals import principal_for_user
from portal.services.credentials import self_service
from portal.services.oauth_broker.common import (
    issuer_named,
    names_of,
    note_client_seen,
    note_client_use,
    registered_client,
    require_known_anywhere,
)
from portal.services.oauth_client.flows import Flow, begin_flow, find_flow, finish_flow, take_flow
from portal.services.runtime import runtime_of
from portal.services.servers import queries
from portal.services.servers.grants import ObjectPermission
from portal.services.servers.queries import prefix_of
from portal.store.models import Server, now
from portal.telemetry import metrics

QUESTION = "byok_ask"
CODE = "byok"
CODE_LIFETIME = timedelta(seconds=120)
ROUTES = ("/v1/mcp/tools",)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_LONGEST_STATE = 4_096
_LONGEST_CLIENT = 512
_NO_SERVER = "Server not found, you do not have access to it, or it does not take your own key."


@dataclass(frozen=True)
class AuthorizeRequest:
    """The parameters of an authorization request.

    Only the redirect URI, the challenge and the server (by `server_id`, or by its endpoint in
    `resource`) are required.
    """

    response_type: str = ""
    redirect_uri: str = ""
    code_challenge: str = ""
    code_challenge_method: str = ""
    state: str = ""
    client_id: str = ""
    server_id: str = ""
    resource: str = ""
    known_as: str = ""
    """The server's name in the metadata that the client read, used in the issuer (RFC 9207)."""


@dataclass(frozen=True)
class TokenRequest:
    """The parameters of a token request."""

    grant_type: str = ""
    code: str = field(default="", repr=False)
    redirect_uri: str = ""
    client_id: str = ""
    code_verifier: str = field(default="", repr=False)


@dataclass(frozen=True)
class Question:
    """The question to the user: a client, by its own name, asks for access with their key."""

    ticket: str = field(repr=False)
    asked: Mapping[str, str]
    server_id: str
    server_name: str
    uses: tuple[str, ...]
    help_url: str | None
    destination: str
    has_key: bool


def ask(
    session: Session, principal: Principal, asked: AuthorizeRequest, *, browser: str
) -> Question:
    """Prepare the question, which only this user in this browser can answer, once.

    Raises `InvalidRequest` for any error, because no redirect happens before the user answers.
    """
    _check(asked)
    row = _find(session, principal, asked.server_id or _named(session, asked.resource))
    registered_client(session, row, asked.client_id, asked.redirect_uri)
    note_client_seen(session, asked.client_id)
    kept = {
        name: getattr(asked, name)
        for name in ("redirect_uri", "code_challenge", "state", "client_id")
    }
    kept["known_as"] = _known_as(session, asked, row)
    _, ticket = begin_flow(
        session, QUESTION, kept, browser=browser, user_id=principal.user_id, server_id=row.server_id
    )
    return _question(session, principal, row, ticket, kept)


def take(session: Session, principal: Principal, ticket: str, *, browser: str | None) -> Question:
    """Return the question being answered, and consume it. Raises `InvalidRequest`."""
    flow = take_flow(session, ticket, kinds=(QUESTION,), browser=browser)
    if flow is None or flow.user_id != principal.user_id:
        raise InvalidRequest(
            "This page has expired, or was opened by another user. Start again in your client."
        )
    finish_flow(session, flow.flow_id, {"state": "answered"})
    row = _find(session, principal, str(flow.server_id))
    return _question(
        session, principal, row, ticket, {name: str(value) for name, value in flow.contents.items()}
    )


def grant(session: Session, principal: Principal, question: Question, key: str) -> str:
    """Grant the client access, and return the redirect URI with the code.

    A blank `key` keeps a stored one. Stores nothing but the sealed code. Raises `InvalidRequest`
    for a key that cannot be sent.
    """
    if key.strip() or not question.has_key:
        self_service.check_value(key, "key")
    contents = {**question.asked, "key": key.strip()}
    _, code = begin_flow(
        session,
        CODE,
        contents,
        browser=None,
        user_id=principal.user_id,
        server_id=question.server_id,
        lifetime=CODE_LIFETIME,
    )
    return _way_back(session, principal, question, {"code": code})


def decline(session: Session, principal: Principal, question: Question) -> str:
    """Return the redirect URI with the error `access_denied` (RFC 6749, 4.1.2.1)."""
    return _way_back(session, principal, question, {"error": "access_denied"})


def redeem(session: Session, asked: TokenRequest, address: str | None) -> dict[str, Any]:
    """Store the user's key from a code, and return the token response (RFC 6749, 5.1).

    Raises `InvalidRequest` with an error code of RFC 6749, 5.2. Only success consumes a code.
    """
    if asked.grant_type != "authorization_code":
        code = "unsupported_grant_type" if asked.grant_type else "invalid_request"
        raise InvalidRequest("The grant type must be authorization_code.", code=code)
    if not asked.code or not asked.redirect_uri or not _VERIFIER.fullmatch(asked.code_verifier):
        raise InvalidRequest(
            "The code, the redirect URI or the PKCE verifier is missing or malformed."
        )
    require_known_anywhere(session, asked.client_id)
    flow = take_flow(session, asked.code, kinds=(CODE,), browser=None)
    if flow is None or not _fits(flow, asked):
        raise _refused("The code is unknown, used, expired, or was issued to another client.")
    try:
        person = principal_for_user(session, str(flow.user_id), address)
        return _redeemed(session, person, flow)
    except (Unauthenticated, Forbidden, NotFound, InvalidRequest):
        raise _refused("The user no longer has access to this server.") from None


def _redeemed(session: Session, person: Principal, flow: Flow) -> dict[str, Any]:
    server_id = str(flow.server_id)
    contents = flow.contents
    finish_flow(session, flow.flow_id, {"state": "redeemed"})
    note_client_use(session, str(contents["client_id"]))
    if contents["key"]:
        self_service.save_key(session, person, server_id, contents["key"])
    else:
        self_service.require_own_key_place(session, person, server_id)
    draft = keys.KeyDraft(
        key_alias=f"Sign-in of {contents['client_id'][:60] or 'an MCP client'}",
        allowed_routes=ROUTES,
        object_permission=ObjectPermission(mcp_servers=(server_id,)),
        expires_at=now() + BYOK_TOKEN_LIFETIME,
    )
    issued = keys.issue_own_key(session, person, draft)
    return {
        "access_token": issued.key,
        "token_type": "bearer",
        "expires_in": int(BYOK_TOKEN_LIFETIME.total_seconds()),
    }


def _check(asked: AuthorizeRequest) -> None:
    _check_loopback(asked.redirect_uri)
    if asked.response_type != "code":
        raise InvalidRequest("The response type must be “code”.", field="response_type")
    if asked.code_challenge_method != "S256" or not _CHALLENGE.fullmatch(asked.code_challenge):
        raise InvalidRequest(
            "The client must use PKCE with the method S256 (RFC 7636).", field="code_challenge"
        )
    if len(asked.state) > _LONGEST_STATE or len(asked.client_id) > _LONGEST_CLIENT:
        raise InvalidRequest("The client sent a state or a client ID that is too long.")
    if not (asked.client_id + asked.state).isprintable():
        raise InvalidRequest("The client sent a non-printable character.")


def _check_loopback(uri: str) -> None:
    try:
        check_redirect_uri(uri, public_url=None)
        on_this_machine = urlsplit(uri).scheme in ("http", "https") and is_loopback(uri)
    except InvalidRequest:
        on_this_machine = False
    if not on_this_machine:
        raise InvalidRequest(
            "The redirect URI must be on your own computer, for example http://127.0.0.1:1234/.",
            field="redirect_uri",
        )


def takes_keys(session: Session, principal: Principal, reference: str) -> bool:
    """Return whether the user may store a key for this server; always False for strangers."""
    if principal.user_id is None or principal.key_id is not None:
        return False
    try:
        return bool(_find(session, principal, reference))
    except InvalidRequest:
        return False


def is_issued(session: Session, code: str) -> bool:
    """Return whether a code belongs to this flow, without consuming it."""
    return bool(code) and find_flow(session, code, kind=CODE) is not None


def issued(session: Session, code: str, reference: str) -> bool:
    """Return whether this flow issued a code for the server `reference`. Consumes nothing."""
    flow = find_flow(session, code, kind=CODE) if code else None
    row = session.get(Server, flow.server_id) if flow is not None and flow.server_id else None
    return row is not None and reference in names_of(row)


def is_endpoint_of(session: Session, principal: Principal, resource: str, reference: str) -> bool:
    """Return whether a resource indicator (RFC 8707) is this server or the gateway as a whole."""
    runtime = runtime_of(session)
    row = _find(session, principal, reference)
    gateway = runtime.gateway_url.rstrip("/")
    address = resource.rstrip("/")
    whole = {gateway, f"{gateway}/mcp", runtime.public_url}
    return address in whole or address in {
        end
        for name in names_of(row)
        for end in (endpoint(gateway, name), f"{gateway}/mcp/{quote(name, safe='')}")
    }


def _known_as(session: Session, asked: AuthorizeRequest, row: Server) -> str:
    """Return the name in the issuer that the client expects, if it is one of the server's names."""
    name = asked.known_as or _named(session, asked.resource)
    return name if name in names_of(row) else prefix_of(row)


def _named(session: Session, resource: str) -> str:
    """Return the server in a resource indicator (RFC 8707) such as `{gateway}/{server}/mcp`."""
    path = resource.removeprefix(f"{runtime_of(session).gateway_url.rstrip('/')}/")
    prefix, slash, rest = path.rstrip("/").partition("/")
    return unquote(prefix) if path != resource and slash and rest == "mcp" else ""


def _find(session: Session, principal: Principal, reference: str) -> Server:
    """Return the BYOK server, if the user may store a key for it; all others look alike."""
    try:
        found = queries.find_server(session, principal, reference, Action.SERVER_READ)
        authz.require(principal, Action.CREDENTIAL_OWN, found)
    except PortalError:
        raise InvalidRequest(_NO_SERVER, field="server_id") from None
    if not found.row.is_byok:
        raise InvalidRequest(_NO_SERVER, field="server_id")
    return found.row


def _question(
    session: Session, principal: Principal, row: Server, ticket: str, asked: Mapping[str, str]
) -> Question:
    return Question(
        ticket=ticket,
        asked=asked,
        server_id=row.server_id,
        server_name=prefix_of(row),
        uses=tuple(row.byok_description),
        help_url=row.byok_api_key_help_url,
        destination=shown_destination(asked["redirect_uri"]),
        has_key=row.server_id in queries.keys_held(session, principal, [row]),
    )


def _way_back(
    session: Session, principal: Principal, question: Question, answer: Mapping[str, str]
) -> str:
    """Return the redirect URI with the response, the client's state, and the issuer (RFC 9207)."""
    row = _find(session, principal, question.server_id)
    issuer = issuer_named(session, question.asked.get("known_as") or prefix_of(row))
    state = {"state": question.asked["state"]} if question.asked["state"] else {}
    return with_parameters(question.asked["redirect_uri"], {**answer, **state, "iss": issuer})


def _fits(flow: Flow, asked: TokenRequest) -> bool:
    digest = hashlib.sha256(asked.code_verifier.encode()).digest()
    proof = base64.urlsafe_b64encode(digest).rstrip(b"=")
    pairs = (
        (proof, str(flow.contents["code_challenge"]).encode()),
        (asked.redirect_uri.encode(), str(flow.contents["redirect_uri"]).encode()),
        (asked.client_id.encode(), str(flow.contents["client_id"]).encode()),
    )
    # Compare all of them, so that the time reveals nothing.
    equal = [hmac.compare_digest(sent, known) for sent, known in pairs]
    return all(equal)


def _refused(message: str) -> InvalidRequest:
    metrics.security("code_refused")
    return InvalidRequest(message, code="invalid_grant")
