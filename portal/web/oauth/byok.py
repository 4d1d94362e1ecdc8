"""OAuth flow in which users enter their own key, for MCP clients that name a server by its ID: its
page, and the client's token request."""

from urllib.parse import urlencode

from flask import Blueprint, Response, g, make_response, redirect, request, url_for

from portal.domain.errors import InvalidRequest
from portal.services.oauth_broker import byok
from portal.services.oauth_broker.byok import AuthorizeRequest, Question, TokenRequest
from portal.web.limits import TRY_UPSTREAM, WAY_BACK, limiter
from portal.web.oauth.browsers import bind, bound_browser, new_or_bound_browser
from portal.web.oauth.requests import form_target, parameters, tokens
from portal.web.rendering import page, policy, see_other
from portal.web.request_auth import of_the_broker

bp = Blueprint("oauth_byok", __name__)


def ask() -> Response:
    """Show the page where the user enters their key for a client."""
    browser = new_or_bound_browser()
    asked = AuthorizeRequest(**parameters(request.args, AuthorizeRequest))
    question = byok.ask(g.session, g.principal, asked, browser=browser)
    return bind(_page(question), browser)


@bp.get("/v1/mcp/oauth/authorize")
def ask_at_old_address() -> Response:
    """Redirect from LiteLLM's URL of the same page."""
    query = urlencode(list(request.args.items(multi=True)))
    return make_response(redirect(f"{url_for('oauth_server.authorize')}?{query}", code=302))


@bp.post("/oauth/authorize")
@limiter.limit(TRY_UPSTREAM)
def answer() -> Response:
    """Store the key or the refusal, and redirect to the client."""
    question = byok.take(
        g.session, g.principal, request.form.get("ticket", ""), browser=bound_browser()
    )
    if request.form.get("decision") != "allow":
        return _back(byok.decline(g.session, g.principal, question))
    try:
        return _back(byok.grant(g.session, g.principal, question, request.form.get("key", "")))
    except InvalidRequest as error:
        return _page(question, problem=error.message)


@bp.post("/v1/mcp/oauth/token")
@limiter.limit(WAY_BACK)
@of_the_broker("oauth", asks_who=False)
def token_at_old_address() -> Response:
    """Exchange a code at LiteLLM's URL of the token endpoint."""
    return token()


def token() -> Response:
    """Exchange a client's code for its token."""
    asked = TokenRequest(**parameters(request.form, TokenRequest))
    return tokens(byok.redeem(g.session, asked, g.address))


def _page(question: Question, *, problem: str = "") -> Response:
    response = page(
        "oauth/byok.html", status=422 if problem else 200, question=question, problem=problem
    )
    response.headers["Content-Security-Policy"] = policy(
        form_action=form_target(question.asked["redirect_uri"])
    )
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _back(address: str) -> Response:
    response = (
        see_other(address)
        if request.headers.get("HX-Request")
        else make_response(redirect(address, code=302))
    )
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
