"""Authorization endpoint of the gateway: consent, missing credentials, and the code for the app.

Authorization code with PKCE (RFC 6749, 7636), resource indicators (RFC 8707) and the issuer in the
response (RFC 9207). The request is stored in a flow, which only the same user in the same browser
can continue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from portal.domain.errors import Forbidden, InvalidInput, InvalidRequest, PortalError
from portal.domain.oauth import with_parameters
from portal.domain.oauth_requests import AuthorizationRequest
from portal.domain.principals import Principal
from portal.domain.redirects import is_loopback, shown_destination
from portal.services import audit
from portal.services.credentials import self_service
from portal.services.credentials.setup import Setup, get_setup
from portal.services.oauth_broker.common import (
    check_redirect,
    note_client_seen,
    note_client_use,
    registered_client,
)
from portal.services.oauth_client.flows import (
    Flow,
    begin_flow,
    keep_in_flow,
    peek_flow,
    take_flow_by_id,
)
from portal.services.oauth_server.families import CODE_LIFETIME
from portal.services.oauth_server.resources import (
    Resource,
    address_in,
    find_usable,
    require_usable,
)
from portal.services.runtime import runtime_of
from portal.store.models import new_id

QUESTION = "app_question"
CODE = "app_code"
_OVER = "This request has expired or was started in another browser. Start again in the app."


@dataclass(frozen=True)
class AppQuestion:
    """The contents of the consent page. `claimed_name` is the app's own name for itself, `setup` is
    what the server needs from the user, and `is_allowed` is true after the user's consent."""

    flow_id: str
    client_id: str
    claimed_name: str
    is_self_registered: bool
    resource_name: str
    is_toolset: bool
    destination: str
    redirect_uri: str
    is_loopback: bool
    account: str
    is_allowed: bool
    setup: Setup | None

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the names of the values that are not set."""
        return self.setup.requirement.missing if self.setup else ()

    @property
    def needs_key(self) -> bool:
        """Return whether the user must enter their own key."""
        return self.setup is not None and self.setup.card.byok == "connect"

    @property
    def needs_sign_in(self) -> bool:
        """Return whether the user must sign in at the server's own provider."""
        return self.setup is not None and self.setup.card.sign_in in ("connect", "expired")

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is missing."""
        return not (self.missing or self.needs_key or self.needs_sign_in)


def begin_app_sign_in(
    session: Session, principal: Principal, asked: AuthorizationRequest, *, browser: str
) -> str:
    """Start the flow of an authorization request; return its ID.

    Raises `InvalidRequest` for an unknown client or redirect URI. Other errors have a `back` in
    `extra`: the URL that reports the error to the app.
    """
    if not asked.redirect_uri or not asked.client_id:
        raise InvalidRequest("The app sent no client_id or no redirect_uri.", field="client_id")
    check_redirect(session, asked.redirect_uri)
    known = registered_client(session, None, asked.client_id, asked.redirect_uri)
    try:
        found = _asked_for(session, principal, asked)
    except (Forbidden, InvalidRequest) as error:
        raise _with_way_back(session, asked, error) from None
    note_client_seen(session, asked.client_id)
    contents = {
        "client_id": asked.client_id,
        "redirect_uri": asked.redirect_uri,
        "state": asked.state,
        "challenge": asked.code_challenge,
        "server_id": found.server_id,
        "toolset_id": found.toolset_id,
        "name": known.client_name or "" if known is not None else "",
        "registered": known is not None,
        "allowed": False,
    }
    flow_id, _ = begin_flow(
        session,
        QUESTION,
        contents,
        browser=browser,
        user_id=principal.user_id,
        server_id=found.server_id,
    )
    return flow_id


def get_app_question(
    session: Session, principal: Principal, flow_id: str, browser: str | None
) -> AppQuestion:
    """Return the contents of the consent page.

    Raises `InvalidRequest` if the flow has ended, and `Forbidden` if the user can no longer use the
    server.
    """
    return _question(session, principal, _peeked(session, principal, flow_id, browser))


def decline_app(session: Session, principal: Principal, flow_id: str, browser: str | None) -> str:
    """End the flow; return the URL that tells the app about the refusal (RFC 6749, 4.1.2.1)."""
    flow = _peeked(session, principal, flow_id, browser)
    _take(session, flow, browser)
    _record(session, principal, "app not allowed", flow)
    said = {"error": "access_denied", "error_description": "The user did not allow it."}
    return _to_app(session, flow.contents, said)


def allow(
    session: Session,
    principal: Principal,
    flow_id: str,
    browser: str | None,
    *,
    values: Mapping[str, str],
    key: str,
) -> None:
    """Store the user's consent and what they entered for the server.

    Raises `InvalidInput` with the fields that are missing or invalid. Valid values and the consent
    are stored even then.
    """
    flow = _peeked(session, principal, flow_id, browser)
    question = _question(session, principal, flow)
    if not question.is_allowed:
        _record(session, principal, "app allowed", flow)
    keep_in_flow(session, flow, {**flow.contents, "allowed": True})
    wrong = list[tuple[str, str]]()
    server_id = flow.contents["server_id"]
    if server_id and question.missing:
        given = {name: values.get(name, "").strip() for name in question.missing}
        wrong += _stored(session, principal, server_id, given)
    if server_id and question.needs_key:
        try:
            self_service.save_key(session, principal, server_id, key)
        except InvalidRequest as error:
            wrong.append(("key", error.message))
    if wrong:
        raise InvalidInput("Complete the missing fields.", errors=wrong)


def finish(session: Session, principal: Principal, flow_id: str, browser: str | None) -> str:
    """End the flow; return the app's redirect URI with a code.

    Raises `InvalidRequest` without consent, or if something is missing.
    """
    flow = _peeked(session, principal, flow_id, browser)
    question = _question(session, principal, flow)
    if not question.is_allowed or not question.is_complete:
        raise InvalidRequest("Your consent or a credential is still missing.")
    _take(session, flow, browser)
    begun = flow.contents
    kept = {
        name: begun[name]
        for name in ("client_id", "redirect_uri", "challenge", "server_id", "toolset_id", "name")
    }
    _, code = begin_flow(
        session,
        CODE,
        {**kept, "grant_id": new_id()},
        browser=None,
        user_id=principal.user_id,
        server_id=begun["server_id"],
        lifetime=CODE_LIFETIME,
    )
    note_client_use(session, begun["client_id"])
    return _to_app(session, begun, {"code": code})


def _asked_for(session: Session, principal: Principal, asked: AuthorizationRequest) -> Resource:
    if asked.response_type != "code":
        raise InvalidRequest("Only the response_type code is supported.", field="response_type")
    asked.check()
    address = address_in(session, asked.resource)
    if address is None:
        raise InvalidRequest(
            "The app did not send a resource (RFC 8707), or the resource is not an address of this"
            " portal’s gateway.",
            code="invalid_target",
        )
    return find_usable(session, principal, address)


def _with_way_back(
    session: Session, asked: AuthorizationRequest, error: PortalError
) -> PortalError:
    code = "access_denied" if isinstance(error, Forbidden) else error.code
    said = {"error": code, "error_description": error.message}
    begun = {"redirect_uri": asked.redirect_uri, "state": asked.state}
    return type(error)(
        error.message, code=code, field=error.field, back=_to_app(session, begun, said)
    )


def _peeked(session: Session, principal: Principal, flow_id: str, browser: str | None) -> Flow:
    flow = peek_flow(session, flow_id, kinds=(QUESTION,), browser=browser)
    if flow is None or flow.status != "pending" or flow.user_id != principal.user_id:
        raise InvalidRequest(_OVER)
    return flow


def _take(session: Session, flow: Flow, browser: str | None) -> None:
    if take_flow_by_id(session, flow.flow_id, kinds=(QUESTION,), browser=browser) is None:
        raise InvalidRequest(_OVER)


def _question(session: Session, principal: Principal, flow: Flow) -> AppQuestion:
    begun = flow.contents
    check_redirect(session, begun["redirect_uri"])
    of = Resource(begun["server_id"], begun["toolset_id"])
    try:
        usable = require_usable(session, principal, of)
    except Forbidden as error:
        said = {"error": "access_denied", "error_description": error.message}
        raise type(error)(error.message, back=_to_app(session, begun, said)) from None
    setup = get_setup(session, principal, of.server_id) if of.server_id else None
    return AppQuestion(
        flow_id=flow.flow_id,
        client_id=begun["client_id"],
        claimed_name=begun["name"],
        is_self_registered=begun["registered"],
        resource_name=usable.name,
        is_toolset=of.toolset_id is not None,
        destination=shown_destination(begun["redirect_uri"]),
        redirect_uri=begun["redirect_uri"],
        is_loopback=is_loopback(begun["redirect_uri"]),
        account=principal.name,
        is_allowed=begun["allowed"],
        setup=setup,
    )


def _stored(
    session: Session, principal: Principal, server_id: str, given: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Store the valid values; return the errors of the others."""
    wrong = [(f"value-{name}", f"Enter {name}.") for name, value in given.items() if not value]
    for name, value in given.items():
        try:
            if value:
                self_service.save_variables(session, principal, server_id, {name: value})
        except InvalidRequest as error:
            wrong.append((f"value-{name}", error.message))
    return wrong


def _record(session: Session, principal: Principal, action: str, flow: Flow) -> None:
    begun = flow.contents
    kind = "toolset" if begun["toolset_id"] else "server"
    audit.record(
        session,
        principal,
        action,
        kind,
        begun["server_id"] or begun["toolset_id"],
        client_id=begun["client_id"],
        returns_to=shown_destination(begun["redirect_uri"]),
    )


def _to_app(session: Session, begun: Mapping[str, Any], answer: dict[str, str]) -> str:
    """Return the redirect URI with a response, the app's state, and the issuer."""
    state = {"state": begun["state"]} if begun["state"] else {}
    issuer = runtime_of(session).public_url
    return with_parameters(begun["redirect_uri"], {**answer, **state, "iss": issuer})
