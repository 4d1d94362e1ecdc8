"""The authorization server of the gateway: authorize, token and revoke for MCP clients, and the page
on which a person decides and fills in what is missing.

`/oauth/authorize` and `/oauth/token` are also the addresses at which clients that name a server by
its id bring a key (`byok.py`).
"""

from typing import Any

from flask import Blueprint, Response, g, make_response, redirect, request, url_for

from portal.domain.errors import Forbidden, InvalidInput, InvalidRequest, PortalError
from portal.domain.oauth_requests import AuthorizationRequest, TokenRequest
from portal.services.credentials import connections
from portal.services.oauth_broker.byok import is_issued
from portal.services.oauth_server import authorize as authorizing
from portal.services.oauth_server import token_endpoint
from portal.services.oauth_server.authorize import Question
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
    """An app asks; the person decides on a page of their own."""
    if request.args.get("server_id"):
        return byok.ask()
    browser = new_or_bound_browser()
    asked = AuthorizationRequest(**parameters(request.args, AuthorizationRequest))
    try:
        flow_id = authorizing.begin(g.session, g.principal, asked, browser=browser)
    except (Forbidden, InvalidRequest) as error:
        return _refused(error)
    return bind(_private(see_other(_page_of(flow_id))), browser)


@bp.get("/oauth/allow/<flow_id>")
@also_writes
def question(flow_id: str) -> Response:
    """Ask the person, or, once they agreed and nothing is missing, lead them back to the app."""
    try:
        asked = authorizing.get_question(g.session, g.principal, flow_id, bound_browser())
        if asked.is_allowed and asked.is_complete:
            return _back(authorizing.finish(g.session, g.principal, flow_id, bound_browser()))
    except Forbidden as error:
        return _refused(error)
    return _page(asked)


@bp.post("/oauth/allow/<flow_id>")
@limiter.limit(TRY_UPSTREAM)
def decide(flow_id: str) -> Response:
    """Take the decision and what was entered, and lead on: to what is still missing, or back."""
    browser = bound_browser()
    try:
        if request.form.get("decision") != "allow":
            return _back(authorizing.decline(g.session, g.principal, flow_id, browser))
        problem = _allowed(flow_id, browser)
        asked = authorizing.get_question(g.session, g.principal, flow_id, browser)
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
    """A code or a refresh token for tokens of the portal's own."""
    if is_issued(g.session, request.form.get("code", "")):
        return byok.token()
    asked = TokenRequest(**parameters(request.form, TokenRequest))
    return tokens(token_endpoint.redeem(g.session, asked, g.address))


@bp.post("/oauth/revoke")
@limiter.limit(EXCHANGE)
@of_the_broker("oauth", asks_who=False)
def revoke() -> Response:
    """End a token (RFC 7009); one that is unknown is no fault."""
    sent = parameters(request.form, TokenRequest)
    given = request.form.get("token", "")
    if not given or not sent["client_id"]:
        raise InvalidRequest("A token and a client_id are needed.")
    token_endpoint.revoke(g.session, given, sent["client_id"])
    return tokens({})


def _allowed(flow_id: str, browser: str | None) -> dict[str, list[str]] | None:
    """Store what was entered; what is wrong with it, by field."""
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


def _to_provider(asked: Question) -> Response:
    """On to the server's own sign-in, which leads back to the question."""
    assert asked.setup is not None
    browser = new_or_bound_browser()
    server_id = asked.setup.card.server_id
    back = _page_of(asked.flow_id)
    try:
        departure = connections.begin(g.session, g.principal, server_id, browser=browser, back=back)
    except PortalError as error:
        if status_of(error) in (401, 403, 404):
            raise
        g.session.rollback()
        return _page(asked, problem=error, status=status_of(error))
    message = f"You sign in there, and then return to {asked.destination}."
    return bind(_private(onward(departure.url, f"Continue to {departure.host}", message)), browser)


def _page(asked: Question, *, status: int = 200, **context: Any) -> Response:
    response = page("oauth/allow.html", status=status, question=asked, **context)
    response.headers["Content-Security-Policy"] = policy(
        form_action=form_target(asked.redirect_uri)
    )
    return _private(response)


def _refused(error: PortalError) -> Response:
    """Say why it cannot go on, with a way back to the app where that is known."""
    g.session.rollback()
    back = error.extra.get("back")
    status = status_of(error)
    return page("oauth/refused.html", status=status, message=error.message, back=back)


def _back(address: str) -> Response:
    """Lead the browser back to the app."""
    if request.headers.get("HX-Request"):
        return _private(see_other(address))
    return _private(make_response(redirect(address, code=303)))


def _private(response: Response) -> Response:
    """What stands in these addresses is for nobody else."""
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _page_of(flow_id: str) -> str:
    return url_for("oauth_server.question", flow_id=flow_id)
