"""Authorization server of the gateway: authorize, token and revoke endpoints, and the consent page.

Clients that name a server by its ID also use `/oauth/authorize` and `/oauth/token` to enter a key
(`byok.py`).
"""

from typing import Any

from flask import Blueprint, Response, g, make_response, redirect, request, url_for

from portal.domain.errors import Forbidden, InvalidInput, InvalidRequest, PortalError
from portal.domain.oauth_requests import AuthorizationRequest, TokenRequest
from portal.services.credentials import connections
from portal.services.oauth_broker.byok import is_issued
from portal.services.oauth_server import authorize as authorizing
from portal.services.oauth_server import token_endpoint
from portal.services.oauth_server.authorize import AppQuestion
from portal.web.context import also_writes, commit_now
from portal.web.errors import status_of
from portal.web.limits import EXCHANGE, TRY_UPSTREAM, limiter
from portal.web.oauth import byok
from portal.web.oauth.browsers import bind, bound_browser, new_or_bound_browser
from portal.web.oauth.requests import form_target, parameters, tokens
from portal.web.rendering import onward, page, policy, see_other
from portal.web.request_auth import of_the_broker

bp = Blueprint("oauth_server", __name__)


@bp.get("/oauth/authorize")
@limiter.limit(TRY_UPSTREAM)
@also_writes
def authorize() -> Response:
    """Start an authorization request and redirect to its consent page."""
    if request.args.get("server_id"):
        return byok.ask()
    browser = new_or_bound_browser()
    asked = AuthorizationRequest(**parameters(request.args, AuthorizationRequest))
    try:
        flow_id = authorizing.begin_app_sign_in(g.session, g.principal, asked, browser=browser)
    except (Forbidden, InvalidRequest) as error:
        return _refused(error)
    return bind(_private(see_other(_page_of(flow_id))), browser)


@bp.get("/oauth/allow/<flow_id>")
@also_writes
def question(flow_id: str) -> Response:
    """Show the consent page, or redirect to the app if nothing is missing."""
    try:
        asked = authorizing.get_app_question(g.session, g.principal, flow_id, bound_browser())
        if asked.is_allowed and asked.is_complete:
            return _back(authorizing.finish(g.session, g.principal, flow_id, bound_browser()))
    except Forbidden as error:
        return _refused(error)
    return _page(asked)


@bp.post("/oauth/allow/<flow_id>")
@limiter.limit(TRY_UPSTREAM)
def decide(flow_id: str) -> Response:
    """Store the decision and the values; redirect to the provider or to the app."""
    browser = bound_browser()
    try:
        if request.form.get("decision") != "allow":
            return _back(authorizing.decline_app(g.session, g.principal, flow_id, browser))
        problem = _allowed(flow_id, browser)
        asked = authorizing.get_app_question(g.session, g.principal, flow_id, browser)
    except Forbidden as error:
        return _refused(error)
    if problem is not None:
        return _page(asked, errors=problem, status=422)
    if asked.is_complete:
        return _back(authorizing.finish(g.session, g.principal, flow_id, browser))
    return _to_provider(asked)


@bp.post("/oauth/token")
@limiter.limit(EXCHANGE)
@of_the_broker("oauth", asks_who=False)
def token() -> Response:
    """Exchange a code or a refresh token for tokens of the portal."""
    if is_issued(g.session, request.form.get("code", "")):
        return byok.token()
    asked = TokenRequest(**parameters(request.form, TokenRequest))
    return tokens(token_endpoint.redeem(g.session, asked, g.address))


@bp.post("/oauth/revoke")
@limiter.limit(EXCHANGE)
@of_the_broker("oauth", asks_who=False)
def revoke() -> Response:
    """Revoke a token (RFC 7009); an unknown token is not an error."""
    sent = parameters(request.form, TokenRequest)
    given = request.form.get("token", "")
    if not given or not sent["client_id"]:
        raise InvalidRequest("token and client_id are required.")
    token_endpoint.revoke(g.session, given, sent["client_id"])
    return tokens({})


def _allowed(flow_id: str, browser: str | None) -> dict[str, list[str]] | None:
    """Store the consent and values; return the errors by field, or None."""
    values = {
        name.removeprefix("value-"): value
        for name, value in request.form.items()
        if name.startswith("value-")
    }
    key = request.form.get("key", "")
    try:
        authorizing.allow(g.session, g.principal, flow_id, browser, values=values, key=key)
    except InvalidInput as error:
        return {field: [message] for field, message in error.errors}
    finally:
        commit_now()
    return None


def _to_provider(asked: AppQuestion) -> Response:
    """Redirect to the server's own sign-in, which returns to the consent page."""
    assert asked.setup is not None
    browser = new_or_bound_browser()
    server_id = asked.setup.card.server_id
    back = _page_of(asked.flow_id)
    try:
        departure = connections.begin_connection(
            g.session, g.principal, server_id, browser=browser, back=back
        )
    except PortalError as error:
        if status_of(error) in (401, 403, 404):
            raise
        g.session.rollback()
        return _page(asked, problem=error, status=status_of(error))
    message = f"Sign in there. You then return to {asked.destination}."
    return bind(_private(onward(departure.url, f"Continue to {departure.host}", message)), browser)


def _page(asked: AppQuestion, *, status: int = 200, **context: Any) -> Response:
    response = page("oauth/allow.html", status=status, question=asked, **context)
    response.headers["Content-Security-Policy"] = policy(
        form_action=form_target(asked.redirect_uri)
    )
    return _private(response)


def _refused(error: PortalError) -> Response:
    """Show why the app cannot continue, with a link to the app if known."""
    g.session.rollback()
    back = error.extra.get("back")
    status = status_of(error)
    return page("oauth/refused.html", status=status, message=error.message, back=back)


def _back(address: str) -> Response:
    """Redirect the browser to the app."""
    if request.headers.get("HX-Request"):
        return _private(see_other(address))
    return _private(make_response(redirect(address, code=303)))


def _private(response: Response) -> Response:
    """Send no referrer: the URL contains a secret."""
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _page_of(flow_id: str) -> str:
    return url_for("oauth_server.question", flow_id=flow_id)
