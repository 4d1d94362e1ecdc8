"""Signing in to an unsaved server: its form's input is held for 300 s, tested, and then stored.

Entered secrets and the resulting token stay sealed on the server. The form gets back only the plain
input, the result of the sign-in, and the tools.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.destinations import TOKEN
from portal.domain.errors import Conflict, InvalidRequest, PortalError, UpstreamFailure
from portal.domain.oauth import TokenSet
from portal.domain.principals import Principal
from portal.domain.servers import ServerFields
from portal.domain.token_answers import broken_rule, claimed_account
from portal.domain.variables import Scope
from portal.services import audit
from portal.services.drafts.inheritance import checked, whole
from portal.services.oauth_client import held_definitions, service_tokens
from portal.services.oauth_client.authorization_request import (
    ProviderRedirect,
    depart,
    usual_scopes,
)
from portal.services.oauth_client.authorization_response import failed_outcome, refused, tokens_for
from portal.services.oauth_client.discovery import (
    authorization_of,
    identity_of,
    keep_authorization,
    pin_of,
)
from portal.services.oauth_client.flows import Flow, finish_flow
from portal.services.oauth_client.minted_tokens import minted_for
from portal.services.oauth_client.registration import (
    client_of,
    keep_registration,
    known_client,
    registration_of,
)
from portal.services.runtime import runtime_of
from portal.services.secrets import token_store
from portal.services.secrets.server_definition import route_of
from portal.services.secrets.token_store import is_exchange, needs_a_person
from portal.services.servers import queries, unsaved
from portal.services.upstreams.resolve import build, config_of
from portal.store.database import release
from portal.store.models import Server, new_id
from portal.upstream.oauth_client import OAuthRefused

FLOW = "draft"
_TRY_TIMEOUT = 15.0
_MOST_TOOLS = 200
_MOST_TEXT = 300


@dataclass(frozen=True)
class Draft:
    """An Admin's input: the submitted form fields, and the result of the sign-in since."""

    draft_id: str
    typed: Sequence[tuple[str, str]] = field(repr=False)
    outcome: Mapping[str, Any] | None = None


def hold_draft(
    session: Session,
    principal: Principal,
    fields: ServerFields,
    typed: Sequence[tuple[str, str]],
    *,
    draft_id: str | None = None,
    server_id: str | None = None,
) -> str:
    """Hold the input for 300 s, replacing an earlier draft of the caller, and return its id.

    `server_id` is the stored server being edited, for values that are kept. Raises what saving
    raises, and `InvalidRequest` (`not_oauth`) if users do not sign in to such a server.
    """
    authz.require(principal, Action.SERVER_CREATE)
    stored = (
        queries.find_server(session, principal, server_id, Action.SERVER_UPDATE).row
        if server_id
        else None
    )
    earlier = _contents(session, principal, draft_id) if draft_id else None
    draft_id = draft_id if draft_id and earlier else new_id()
    contents = checked(session, draft_id, fields, whole(session, stored, fields, as_change=True))
    row = unsaved.unsaved_server(session, draft_id, draft_id, contents, author=None)
    if not needs_a_person(row) or is_exchange(row):
        raise InvalidRequest(
            "Users do not sign in to this type of server themselves.",
            code="not_oauth",
            field="auth_type",
        )
    registration = _registration(session, row, stored, earlier)
    kept = {
        "fields": contents,
        "typed": list(typed),
        "user_id": principal.user_id,
        "registration": registration,
        "pin": _pin(session, row, stored, earlier),
    }
    held_definitions.hold(session, principal, draft_id, kept)
    audit.record(
        session,
        principal,
        "definition held",
        "server",
        server_id or draft_id,
        fields=sorted(fields),
    )
    session.flush()
    return draft_id


def hold_typed(
    session: Session,
    principal: Principal,
    typed: Sequence[tuple[str, str]],
    *,
    draft_id: str | None = None,
) -> str:
    """Hold the input for 300 s without testing it, replacing an earlier draft; return its id.

    The result of an earlier sign-in is kept.
    """
    authz.require(principal, Action.SERVER_CREATE)
    earlier = _contents(session, principal, draft_id) if draft_id else None
    draft_id = draft_id if draft_id and earlier else new_id()
    kept = {"fields": {}, **(earlier or {}), "typed": list(typed), "user_id": principal.user_id}
    held_definitions.hold(session, principal, draft_id, kept)
    session.flush()
    return draft_id


def get_draft(session: Session, principal: Principal, draft_id: str) -> Draft | None:
    """Return the caller's draft, if it is still held."""
    contents = _contents(session, principal, draft_id)
    if contents is None:
        return None
    return Draft(
        draft_id, [(name, value) for name, value in contents["typed"]], contents.get("outcome")
    )


def begin_draft_connection(
    session: Session, principal: Principal, draft_id: str, *, browser: str, back: str
) -> ProviderRedirect:
    """Prepare the redirect to a draft's authorization server. Makes outgoing requests.

    Commit the draft first. Raises what `authorization_of` and `client_of` raise.
    """
    row = _row(session, principal, draft_id)
    found = authorization_of(session, row)
    scopes = usual_scopes(session, row, found)
    client = client_of(session, row, found.server, scopes)
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


def complete_draft_connection(
    session: Session, principal: Principal, flow: Flow, answer: Mapping[str, str]
) -> None:
    """Exchange the response for a token, list the tools, and keep both with the draft for 300 s.

    Errors are stored as well; nothing is raised for errors of others.
    """
    authz.require(principal, Action.SERVER_CREATE)
    finish_flow(session, flow.flow_id, {"state": "over", "back": ""})
    session.commit()
    try:
        row = _row(session, principal, str(flow.server_id))
        outcome, signed_in = _completed(session, row, flow.contents, answer)
        held_definitions.remember(session, row, renew=True, outcome=outcome, signed_in=signed_in)
    except Conflict:
        session.rollback()  # the draft expired or was replaced; the form reports it


def adopt(session: Session, principal: Principal, draft_id: str, server_id: str) -> bool:
    """Make a draft's token the caller's connection to the server created from it.

    Also keeps what was discovered and registered. Returns False if there is no token. Raises
    `Conflict` if it cannot be stored; the server stays saved.
    """
    contents = _contents(session, principal, draft_id)
    got = (contents or {}).get("signed_in")
    row = queries.find_server(session, principal, server_id, Action.SERVER_UPDATE).row
    if contents is None or not got or principal.user_id is None:
        return False
    tested = _row(session, principal, draft_id)
    if minted_for(session, tested).people != minted_for(session, row).people:
        raise Conflict("The server’s address or sign-in settings were changed after you signed in.")
    expires_at = datetime.fromisoformat(got["expires_at"]) if got["expires_at"] else None
    tokens = TokenSet(
        got["access_token"],
        got["refresh_token"],
        expires_at,
        tuple(got["scopes"]),
        got["token_type"],
    )
    try:
        with session.begin_nested():
            if contents.get("authorization"):
                keep_authorization(session, row, contents["authorization"])
            registration = contents.get("registration")
            if registration and registration["client_id"] == got["client_id"]:
                keep_registration(session, row, registration)
            token_store.keep(
                session,
                row,
                principal.user_id,
                tokens,
                issuer=got["issuer"],
                client_id=got["client_id"],
                account=got["account"],
            )
            service_tokens.forget_exchanged(session, row.server_id, principal.user_id)
    except SQLAlchemyError:
        raise Conflict("The database could not store the connection.") from None
    audit.record(
        session,
        principal,
        "connected",
        "server",
        row.server_id,
        name=row.server_name,
        issuer=got["issuer"],
        scopes=list(tokens.scopes),
    )
    held_definitions.delete_definition(session, draft_id)
    session.flush()
    return True


def _registration(
    session: Session, row: Server, stored: Server | None, earlier: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return the registration of an earlier draft or the stored server.

    Returns None if the token endpoint has changed.
    """
    token = route_of(session, row).key(TOKEN)
    found: dict[str, Any] | None = (earlier or {}).get("registration")
    if earlier is not None and found is not None:
        before = unsaved.unsaved_server(
            session, row.server_id, row.server_id, earlier["fields"], author=None
        )
        return found if route_of(session, before).key(TOKEN) == token else None
    if stored and route_of(session, stored).key(TOKEN) == token:
        return registration_of(session, stored)
    return None


def _pin(
    session: Session, row: Server, stored: Server | None, earlier: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return the authorization server of an earlier draft's secrets, or of the stored ones."""
    if stored is not None:
        return pin_of(session, row, stored)
    if not earlier or not earlier.get("authorization"):
        return None
    before = unsaved.unsaved_server(
        session, row.server_id, row.server_id, earlier["fields"], author=None
    )
    found: dict[str, Any] = earlier["authorization"]
    if route_of(session, before).key(TOKEN) == route_of(session, row).key(TOKEN):
        return found
    return None


def _contents(session: Session, principal: Principal, draft_id: str) -> dict[str, Any] | None:
    """Return what is held of the caller's own draft, including entered secrets."""
    if not authz.may(principal, Action.SERVER_CREATE) or principal.user_id is None:
        return None
    contents = held_definitions.contents_of(session, draft_id)
    if contents is None or contents.get("user_id") != principal.user_id:
        return None
    return contents if "typed" in contents else None


def _row(session: Session, principal: Principal, draft_id: str) -> Server:
    is_held = bool(_contents(session, principal, draft_id))
    row = unsaved.load_temporary(session, draft_id) if is_held else None
    if row is None:
        raise Conflict("Your input has expired.", code="expired")
    return row


def _completed(
    session: Session, row: Server, begun: Mapping[str, Any], answer: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    try:
        found = authorization_of(session, row)
        client = known_client(session, row, found.server, begun["client_id"])
        fault = (
            failed_outcome(row, found, begun, answer)
            if client is not None
            else {"state": "changed"}
        )
        if client is None or fault is not None:
            return fault or {}, None
        said, tokens = tokens_for(session, found, client, begun, answer["code"])
    except OAuthRefused as refusal:
        return refused(refusal.error), None
    except UpstreamFailure:
        return {"state": "unreachable"}, None
    except PortalError as error:
        return {"state": "failed", "message": error.message}, None
    if tokens is None:
        return refused("invalid_token"), None
    if (rule := broken_rule(row.token_validation, said)) is not None:
        return {"state": "refused_by_rules", "rule": rule}, None
    signed_in = {
        **asdict(tokens),
        "expires_at": tokens.expires_at.isoformat() if tokens.expires_at else None,
        "issuer": identity_of(found.server),
        "client_id": client.client_id,
        "account": claimed_account(said),
    }
    outcome = {"state": "connected", "account": signed_in["account"], "scopes": list(tokens.scopes)}
    return outcome | {"test": _tried(session, row, tokens.access_token)}, signed_in


def _tried(session: Session, row: Server, token: str) -> dict[str, Any]:
    """Connect and list the tools with the token."""
    config = config_of(session, row)
    unset = [variable.name for variable in config.variables if variable.scope is Scope.USER]
    target = build(config, {}, key=token)
    release(session)
    result = runtime_of(session).mcp.probe(target, with_tools=True, timeout=_TRY_TIMEOUT)
    tools = [
        {"name": tool.name, "description": tool.description[:_MOST_TEXT]}
        for tool in result.tools or ()
    ]
    return {
        "status": result.status,
        "reason": result.reason,
        "message": result.message,
        "latency_ms": result.latency_ms,
        "protocol_version": result.protocol_version,
        "server_name": result.server_name,
        "server_version": result.server_version,
        "unset": unset,
        "tools": tools[:_MOST_TOOLS] if result.tools is not None else None,
    }
