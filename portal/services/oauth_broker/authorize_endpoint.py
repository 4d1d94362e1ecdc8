"""The portal between an MCP client and an upstream's authorization server.

Covers the redirect to the upstream, consent, and the redirect back. The upstream sees the portal as
its client, always with the portal's own redirect URI. The MCP client gets the upstream's code under
its own PKCE challenge.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from portal.authorization import Action
from portal.domain.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from portal.domain.oauth import Client, Discovery, canonical_resource, with_parameters
from portal.domain.oauth_requests import AuthorizationRequest, scopes_of
from portal.domain.principals import Principal
from portal.domain.redirects import is_loopback, shown_destination
from portal.domain.snippets import endpoint
from portal.services import audit
from portal.services.access.principals import principal_for_key_id
from portal.services.oauth_broker.common import (
    CODE,
    CONSENT,
    ENDED,
    FLOW,
    NO_AUTHORIZATION,
    authorization,
    check_redirect,
    configured_scopes,
    consent_key,
    issuer_of,
    names_of,
    note_client_seen,
    note_client_use,
    registered_client,
    require_oauth,
)
from portal.services.oauth_broker.subjects import find_subject
from portal.services.oauth_client.discovery import identity_of
from portal.services.oauth_client.flows import Flow, begin_flow, peek_flow, take_flow_by_id
from portal.services.oauth_client.registration import client_of, redirect_uri
from portal.services.runtime import runtime_of
from portal.store.models import Server
from portal.store.oauth_tables import Consent

_CODE_LIFETIME = timedelta(seconds=60)
_OF_NOBODY = (
    "This API key has no owner, so nobody can sign in with it. Use a key of the user who signs"
    " in, or start in their browser."
)
_SOMEBODY_ELSE = (
    "This request was started with an API key of another user. If the key is yours, sign out,"
    " sign in as yourself, and open the link again. If someone sent you the link, close this"
    " page: continuing would connect your account at the server to their account here."
)
_OVER = (
    "This request to connect an app has ended, or was started in another browser. Start again in"
    " the app."
)


@dataclass(frozen=True)
class NextRedirect:
    """Where the browser goes next: the upstream, the app, or the consent page of a flow."""

    url: str = ""
    consent: str = ""
    is_to_app: bool = False


@dataclass(frozen=True)
class ConsentQuestion:
    """The question on the consent page.

    `claimed_name` is the client's own name for itself, `account` the name of the signed-in user.
    """

    flow_id: str
    client_id: str
    claimed_name: str
    is_self_registered: bool
    server_name: str
    destination: str
    redirect_uri: str
    is_loopback: bool
    scopes: tuple[str, ...]
    account: str | None
    is_remembered: bool
    is_by_key: bool = False


def begin(
    session: Session,
    principal: Principal,
    reference: str,
    asked: AuthorizationRequest,
    *,
    browser: str | None,
    may_skip: bool = False,
    issuer: str | None = None,
) -> NextRedirect:
    """Start an MCP client's sign-in to a server. Makes outgoing requests.

    `issuer` is the portal's issuer in the metadata that the client read, if any. `browser` is the
    secret of the user's browser; None for a program with an API key. Anyone could open the link of
    such a program, so its flow ends only in a browser where the key's owner is signed in and
    consents. `may_skip` is true if the user came by themselves, so that an earlier consent counts.
    Raises `InvalidInput` and `InvalidRequest` for invalid requests; users are never sent to an
    unchecked redirect URI.
    """
    row = _subject(session, principal, reference, asked)
    if browser is None and principal.user_id is None:
        raise InvalidRequest(_OF_NOBODY, code="no_person")
    require_oauth(row)
    check_redirect(session, asked.redirect_uri)
    known = registered_client(session, row, asked.client_id, asked.redirect_uri)
    found = authorization(session, row)
    if not found.server.authorization_endpoint:
        raise InvalidRequest(NO_AUTHORIZATION, code="no_authorization_server")
    row = find_subject(session, principal, reference, Action.SERVER_SIGN_IN)
    _check_resource(session, row, found, asked.resource)
    scopes = scopes_of(asked.scope) or configured_scopes(session, row) or found.scopes
    client = client_of(session, row, found.server, scopes)
    row = find_subject(session, principal, reference, Action.SERVER_SIGN_IN)
    contents = _contents(
        session, row, found, client, asked, scopes, issuer or issuer_of(session, row)
    )
    note_client_seen(session, asked.client_id)
    contents |= {"name": known.client_name or "" if known else "", "registered": known is not None}
    if browser is None:
        contents |= {"key_id": principal.key_id}
        return NextRedirect(_departed(session, contents, principal.user_id, row.server_id, None))
    if may_skip and known is None and _is_remembered(session, principal, row, asked, scopes):
        return NextRedirect(_departed(session, contents, principal.user_id, row.server_id, browser))
    flow_id, _ = begin_flow(
        session,
        CONSENT,
        contents,
        browser=browser,
        user_id=principal.user_id,
        server_id=row.server_id,
    )
    return NextRedirect(consent=flow_id)


def get_question(
    session: Session, principal: Principal, flow_id: str, browser: str | None
) -> ConsentQuestion:
    """Return the question for the consent page.

    Raises `InvalidRequest` if there is nothing to decide, `Unauthenticated` if the user has to sign
    in first, and `Forbidden` (`other_person`) if another user is signed in.
    """
    flow = peek_flow(session, flow_id, kinds=(CONSENT,), browser=browser)
    if flow is None or flow.status != "pending":
        raise InvalidRequest(_OVER)
    asking = _asking(session, principal, flow, browser)
    row = find_subject(session, asking, str(flow.server_id), Action.SERVER_SIGN_IN)
    begun = flow.contents
    back = begun["redirect_uri"]
    return ConsentQuestion(
        flow_id,
        begun["client_id"],
        begun["name"],
        begun["registered"],
        row.server_name or row.alias or row.server_id,
        shown_destination(back),
        back,
        is_loopback(back),
        tuple(begun["scopes"]),
        principal.name if principal.user_id else None,
        is_remembered=not (begun["registered"] or is_loopback(back))
        and principal.user_id is not None,
        is_by_key=bool(begun.get("key_id")),
    )


def decide(
    session: Session, principal: Principal, flow_id: str, browser: str, *, allow: bool
) -> NextRedirect:
    """Apply the user's decision once, and return where their browser goes next.

    That is the upstream, the app with a refusal, or the app with the code if the upstream was asked
    before. Raises what `get_question` raises.
    """
    get_question(session, principal, flow_id, browser)
    flow = take_flow_by_id(session, flow_id, kinds=(CONSENT,), browser=browser)
    if flow is None:
        raise InvalidRequest(_OVER)
    row = find_subject(
        session,
        _asking(session, principal, flow, browser),
        str(flow.server_id),
        Action.SERVER_SIGN_IN,
    )
    begun = flow.contents
    check_redirect(session, begun["redirect_uri"])
    details = {
        "client_id": begun["client_id"],
        "returns_to": shown_destination(begun["redirect_uri"]),
    }
    details |= {"begun_with_key": begun["key_id"]} if begun.get("key_id") else {}
    if not allow:
        audit.record(session, principal, "app not allowed", "server", row.server_id, **details)
        refusal = {"error": "access_denied", "error_description": "The user denied access."}
        return NextRedirect(_to_client(begun, refusal), is_to_app=True)
    if row.incarnation != begun["incarnation"]:
        raise InvalidRequest(_OVER)
    audit.record(session, principal, "app allowed", "server", row.server_id, **details)
    note_client_seen(session, begun["client_id"])
    _remember(session, principal, row, begun)
    if begun.get("code"):
        return NextRedirect(_with_code(session, flow, begun["code"]), is_to_app=True)
    return NextRedirect(_departed(session, begun, flow.user_id, row.server_id, browser))


def _asking(session: Session, principal: Principal, flow: Flow, browser: str | None) -> Principal:
    """Return the principal to check access for: the user, or the key that started the flow.

    Only the key's owner may complete its flow, and only while the key is valid.
    """
    key_id = flow.contents.get("key_id")
    if not browser or (not key_id and flow.user_id != principal.user_id):
        raise InvalidRequest(_OVER)
    if not key_id:
        return principal
    if principal.user_id is None:
        raise Unauthenticated("Sign in as the owner of the API key that started this request.")
    if principal.user_id != flow.user_id:
        raise Forbidden(_SOMEBODY_ELSE, code="other_person")
    try:
        return principal_for_key_id(session, key_id, principal.address)
    except Unauthenticated:
        raise InvalidRequest(_OVER) from None


def bring_back(
    session: Session, principal: Principal, flow: Flow, answer: Mapping[str, str], *, browser: str
) -> NextRedirect:
    """Return where to send an authorization server's response.

    That is the MCP client's redirect URI with the code or the error or, for a flow started with an
    API key, the consent page in this `browser`, the only one that can continue. The flow was
    consumed before. Raises `InvalidRequest` if another user returned, the user may no longer use
    the server, another authorization server answered (RFC 9207), or the redirect URI is no longer
    trusted.
    """
    begun = flow.contents
    if begun["is_bound"]:
        if flow.user_id != principal.user_id:
            raise InvalidRequest(
                "Another user was signed in when this request started. Start again in the app."
            )
        try:
            find_subject(session, principal, str(flow.server_id), Action.SERVER_SIGN_IN)
        except (Forbidden, NotFound, Unauthenticated):
            raise InvalidRequest(ENDED) from None
    iss = answer.get("iss")
    is_wrong = iss != begun["upstream_issuer"] if iss is not None else begun["upstream_iss"]
    if begun["upstream_issuer"] and is_wrong:
        raise InvalidRequest(
            "This response came from an unexpected sign-in provider. Start again in the app."
        )
    check_redirect(session, begun["redirect_uri"])
    if answer.get("error"):
        said = {
            name: answer[name][:500]
            for name in ("error", "error_description", "error_uri")
            if answer.get(name)
        }
        return NextRedirect(_to_client(begun, said), is_to_app=True)
    code = answer.get("code")
    if not code:
        raise InvalidRequest(
            "The sign-in provider returned neither a code nor an error (invalid_request: code is"
            " missing)."
        )
    if begun["is_bound"]:
        return NextRedirect(_with_code(session, flow, code), is_to_app=True)
    if not begun.get("key_id"):
        raise InvalidRequest(_OVER)  # the key's owner is unknown
    flow_id, _ = begin_flow(
        session,
        CONSENT,
        {**begun, "code": code},
        browser=browser,
        user_id=flow.user_id,
        server_id=flow.server_id,
    )
    return NextRedirect(consent=flow_id)


def _with_code(session: Session, flow: Flow, code: str) -> str:
    """Return the client's redirect URI with the upstream's code, valid for a minute."""
    begun = flow.contents
    kept = {
        name: begun[name]
        for name in (
            "client_id",
            "redirect_uri",
            "challenge",
            "upstream_client_id",
            "incarnation",
            "scopes",
        )
    }
    begin_flow(
        session,
        CODE,
        kept,
        browser=None,
        user_id=flow.user_id,
        server_id=flow.server_id,
        state=f"{flow.server_id} {code}",
        lifetime=_CODE_LIFETIME,
    )
    note_client_use(session, begun["client_id"])
    return _to_client(begun, {"code": code})


def _subject(
    session: Session, principal: Principal, reference: str, asked: AuthorizationRequest
) -> Server:
    """Return the server.

    Checks access first, then the request, and only then whether the server exists.
    """
    missing: NotFound | None = None
    row: Server | None = None
    try:
        row = find_subject(session, principal, reference, Action.SERVER_SIGN_IN)
    except NotFound as error:
        missing = error
    asked.check()
    if row is None:
        raise missing or NotFound("Server not found.")
    return row


def _check_resource(session: Session, row: Server, found: Discovery, resource: str) -> None:
    """Raise `InvalidRequest` (`invalid_target`) unless the resource is this server (RFC 8707)."""
    if not resource:
        return
    runtime = runtime_of(session)
    ours = {f"{runtime.gateway_url}/mcp", runtime.gateway_url, runtime.public_url, found.resource}
    for name in names_of(row):
        ours |= {endpoint(runtime.gateway_url, name), f"{runtime.gateway_url}/mcp/{name}"}
    try:
        named = canonical_resource(resource)
    except ValueError:
        named = ""
    if not named or named not in {canonical_resource(one) for one in ours if one}:
        raise InvalidRequest("The resource does not match this server.", code="invalid_target")


def _contents(
    session: Session,
    row: Server,
    found: Discovery,
    client: Client,
    asked: AuthorizationRequest,
    scopes: tuple[str, ...],
    issuer: str,
) -> dict[str, Any]:
    parameters = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect_uri(session),
        "code_challenge": asked.code_challenge,
        "code_challenge_method": asked.code_challenge_method,
        **({"scope": " ".join(scopes)} if scopes else {}),
        **({"resource": found.resource} if found.resource else {}),
    }
    return {
        "upstream": with_parameters(found.server.authorization_endpoint, parameters),
        "upstream_issuer": found.server.issuer, "upstream_iss": found.server.sends_iss,
        "upstream_identity": identity_of(found.server), "upstream_client_id": client.client_id,
        "redirect_uri": asked.redirect_uri, "state": asked.state, "client_id": asked.client_id,
        "challenge": asked.code_challenge, "scopes": list(scopes), "incarnation": row.incarnation,
        "issuer": issuer,
    }  # fmt: skip


def _departed(
    session: Session,
    contents: Mapping[str, Any],
    user_id: str | None,
    server_id: str,
    browser: str | None,
) -> str:
    kept = {**contents, "is_bound": browser is not None}
    _, state = begin_flow(
        session, FLOW, kept, browser=browser, user_id=user_id, server_id=server_id
    )
    return with_parameters(contents["upstream"], {"state": state})


def _to_client(begun: Mapping[str, Any], parameters: dict[str, str]) -> str:
    state = {"state": begun["state"]} if begun["state"] else {}
    return with_parameters(begun["redirect_uri"], {**parameters, **state, "iss": begun["issuer"]})


def _is_remembered(
    session: Session,
    principal: Principal,
    row: Server,
    asked: AuthorizationRequest,
    scopes: tuple[str, ...],
) -> bool:
    """Return whether the user already consented to this request; never for loopback redirects."""
    if principal.user_id is None or is_loopback(asked.redirect_uri):
        return False
    key = (principal.user_id, row.server_id, consent_key(asked.client_id, asked.redirect_uri))
    consent = session.get(Consent, key)
    return consent is not None and set(scopes) <= set(consent.scopes)


def _remember(
    session: Session, principal: Principal, row: Server, begun: Mapping[str, Any]
) -> None:
    if principal.user_id is None or session.get(Server, row.server_id) is None:
        return
    session.merge(
        Consent(
            user_id=principal.user_id,
            server_id=row.server_id,
            client_id=begun["client_id"],
            client_hash=consent_key(begun["client_id"], begun["redirect_uri"]),
            redirect_uri=begun["redirect_uri"],
            client_name=begun["name"] or None,
            scopes=list(begun["scopes"]),
        )
    )
