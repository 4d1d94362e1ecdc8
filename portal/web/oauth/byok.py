"""OAuth flow in which users enter their own key: its page, and the client's token request."""

from dataclasses import fields
from urllib.parse import urlencode, urlsplit

import orjson
from flask import Blueprint, Response, g, make_response, redirect, request, url_for
from werkzeug.datastructures import MultiDict

from portal.domain.errors import InvalidRequest
from portal.services.oauth_broker import byok
from portal.services.oauth_broker.byok import AuthorizeRequest, Question, TokenRequest
from portal.web.context import also_writes
from portal.web.limits import TRY_UPSTREAM, WAY_BACK, limiter
from portal.web.oauth.browsers import bind, bound_browser, new_or_bound_browser
from portal.web.rendering import page, policy, see_other
from portal.web.request_auth import of_the_broker

bp = Blueprint("oauth_byok", __name__)
_LONGEST = 8_192
_MOST_PARAMETERS = 40


@bp.get("/oauth/authorize")
@limiter.limit(TRY_UPSTREAM)
@also_writes
def ask() -> Response:
    """Show the page where the user enters their key for a client."""
    browser = new_or_bound_browser()
    asked = AuthorizeRequest(**_parameters(request.args, AuthorizeRequest))
    question = byok.ask(g.session, g.principal, asked, browser=browser)
    return bind(_page(question), browser)


@bp.get("/v1/mcp/oauth/authorize")
def ask_at_old_address() -> Response:
    """Redirect from LiteLLM's URL of the same page."""
    query = urlencode(list(request.args.items(multi=True)))
    return make_response(redirect(f"{url_for('oauth_byok.ask')}?{query}", code=302))


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


@bp.post("/oauth/token")
@bp.post("/v1/mcp/oauth/token", endpoint="token_at_old_address")
@limiter.limit(WAY_BACK)
@of_the_broker("oauth", asks_who=False)
def token() -> Response:
    """Exchange a client's code for its token."""
    asked = TokenRequest(**_parameters(request.form, TokenRequest))
    body = byok.redeem(g.session, asked, g.address)
    response = Response(orjson.dumps(body), mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response


def _page(question: Question, *, problem: str = "") -> Response:
    response = page(
        "oauth/byok.html", status=422 if problem else 200, question=question, problem=problem
    )
    response.headers["Content-Security-Policy"] = policy(
        form_action=_form_target(question.asked["redirect_uri"])
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


def _parameters(given: MultiDict[str, str], shape: type) -> dict[str, str]:
    """Return the parameters by name.

    Raises `InvalidRequest` for repeated (RFC 6749, section 3.1) or too long parameters.
    """
    if len(given) > _MOST_PARAMETERS:
        raise InvalidRequest("The request has too many parameters.")
    for _name, values in given.lists():
        if len(values) > 1 or len(values[0]) > _LONGEST:
            raise InvalidRequest("A parameter is repeated or too long.")
    return {field.name: given.get(field.name, "") for field in fields(shape)}


def _form_target(uri: str) -> str:
    """Return the external `form-action` source of the form. CSP has no IPv6 addresses."""
    parts = urlsplit(uri)
    return (
        f"{parts.scheme}:" if ":" in (parts.hostname or "") else f"{parts.scheme}://{parts.netloc}"
    )
