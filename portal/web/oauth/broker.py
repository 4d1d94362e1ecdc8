"""Endpoints of the OAuth broker: authorization and token for MCP clients, and the consent page.

The same views serve three kinds of URL: `/v1/mcp/server/oauth/{server}/…`, `/{prefix}/…` as in the
portal's metadata, and the root, for clients that do not know the name of a server.
"""

from urllib.parse import urlencode

from flask import Blueprint, Response, g, make_response, redirect, request, url_for

from portal.domain.errors import Forbidden, InvalidRequest
from portal.domain.oauth_requests import AuthorizationRequest, TokenRequest
from portal.domain.principals import Principal
from portal.services.access import principals
from portal.services.oauth_broker import authorize_endpoint, byok, metadata, token_endpoint
from portal.services.oauth_broker.common import issuer_named
from portal.services.oauth_client.flows import Flow
from portal.web.context import also_writes, known_person
from portal.web.errors import status_of
from portal.web.limits import AUTHORIZE, EXCHANGE, limiter
from portal.web.oauth.browsers import bind, bound_browser, new_or_bound_browser
from portal.web.oauth.requests import form_target, parameters, tokens
from portal.web.rendering import onward, page, policy
from portal.web.request_auth import of_the_broker

bp = Blueprint("oauth_broker", __name__)


@bp.get("/v1/mcp/server/oauth/<server_id>/authorize")
@limiter.limit(AUTHORIZE)
@also_writes
@of_the_broker("browser")
def authorize(server_id: str) -> Response:
    """Redirect to the upstream's provider, for users after the consent page."""
    return _authorized(server_id)


@bp.get("/<prefix>/authorize")
@bp.get("/mcp/<prefix>/authorize", endpoint="authorize_from_root")
@bp.get("/authorize", defaults={"prefix": ""}, endpoint="authorize_at_root")
@limiter.limit(AUTHORIZE)
@also_writes
@of_the_broker("browser")
def authorize_by_name(prefix: str) -> Response:
    """Start an authorization at the URLs in the portal's metadata."""
    if prefix and byok.takes_keys(g.session, g.principal, prefix):
        return _to_the_key_page(prefix)
    # At the root, the issuer does not name a server (RFC 9207).
    known_as = prefix if request.endpoint == "oauth_broker.authorize_by_name" else None
    server = prefix or metadata.only_server(g.session, g.principal)
    return _authorized(server, issuer=issuer_named(g.session, known_as))


@bp.post("/v1/mcp/server/oauth/<server_id>/token")
@limiter.limit(EXCHANGE)
@of_the_broker("oauth")
def token(server_id: str) -> Response:
    """Return the upstream's tokens for a code or a refresh token."""
    return _redeemed(server_id)


@bp.post("/<prefix>/token")
@bp.post("/mcp/<prefix>/token", endpoint="token_from_root")
@bp.post("/token", defaults={"prefix": ""}, endpoint="token_at_root")
@limiter.limit(EXCHANGE)
@of_the_broker("oauth")
def token_by_name(prefix: str) -> Response:
    """Return tokens at the URLs in the portal's metadata, also for codes of key servers."""
    if prefix and byok.issued(g.session, request.form.get("code", ""), prefix):
        asked = byok.TokenRequest(**parameters(request.form, byok.TokenRequest))
        return tokens(byok.redeem(g.session, asked, g.address))
    return _redeemed(prefix or metadata.only_server(g.session, g.principal))


@bp.get("/oauth/consent/<flow_id>")
def consent(flow_id: str) -> Response:
    """Show the consent page for an app."""
    try:
        question = authorize_endpoint.get_question(g.session, _person(), flow_id, bound_browser())
    except Forbidden as error:
        return _wrong_person(error)
    response = page("oauth/consent.html", question=question)
    response.headers["Content-Security-Policy"] = policy(
        form_action=form_target(question.redirect_uri)
    )
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@bp.post("/oauth/consent/<flow_id>")
def decide(flow_id: str) -> Response:
    """Store the decision, and continue to the upstream or back to the app.

    A page leads to the upstream, since `form-action` would block the redirects that follow there.
    """
    browser = new_or_bound_browser()
    allow = request.form.get("decision") == "allow"
    try:
        departure = authorize_endpoint.decide(g.session, _person(), flow_id, browser, allow=allow)
    except Forbidden as error:
        return _wrong_person(error)
    if not departure.is_to_app:
        response = onward(
            departure.url, "Sign in to the server", "Continue to the server’s sign-in provider."
        )
    else:
        response = make_response(redirect(departure.url, code=303))
    response.headers["Referrer-Policy"] = "no-referrer"
    return bind(response, browser)


def _wrong_person(error: Forbidden) -> Response:
    """Show that another user owns the key that started the flow. The flow stays valid."""
    if error.code != "other_person":
        raise error
    return page("oauth/other_person.html", status=status_of(error), message=error.message)


def finish_broker(flow: Flow, answer: dict[str, str]) -> Response:
    """Forward the upstream's response to the MCP client.

    If the flow started with an API key, the owner of the key must consent first.
    """
    browser = new_or_bound_browser()
    try:
        departure = authorize_endpoint.bring_back(
            g.session, _person(), flow, answer, browser=browser
        )
        target = departure.url or url_for("oauth_broker.consent", flow_id=departure.consent)
        response = make_response(redirect(target, code=302))
        return bind(response, browser) if departure.consent else response
    except InvalidRequest as error:
        return page(
            "errors/error.html",
            status=status_of(error),
            status_code=status_of(error),
            title="Sign-in failed",
            message=error.message,
            code=error.code,
            remedy_url=url_for("grid.index"),
            remedy_label="All servers",
        )


def _to_the_key_page(prefix: str) -> Response:
    """Redirect to the page where users enter their key.

    Metadata is the same for all servers. Only users with access learn that this server uses keys.
    """
    resource = request.args.get("resource", "")
    if resource and not byok.is_endpoint_of(g.session, g.principal, resource, prefix):
        raise InvalidRequest("The resource does not match this server.", code="invalid_target")
    ours = {"server_id": prefix, "known_as": prefix}
    asked = [
        given for given in request.args.items(multi=True) if given[0] not in ("resource", *ours)
    ]
    response = make_response(
        redirect(
            f"{url_for('oauth_server.authorize')}?{urlencode([*asked, *ours.items()])}", code=307
        )
    )
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _authorized(server: str, *, issuer: str | None = None) -> Response:
    asked = AuthorizationRequest(**parameters(request.args, AuthorizationRequest))
    by_key = g.principal.key_id is not None
    browser = None if by_key else new_or_bound_browser()
    by_themselves = request.headers.get("Sec-Fetch-Site") in ("none", "same-origin")
    departure = authorize_endpoint.begin(
        g.session,
        g.principal,
        server,
        asked,
        browser=browser,
        may_skip=by_themselves,
        issuer=issuer,
    )
    target = departure.url or url_for("oauth_broker.consent", flow_id=departure.consent)
    response = make_response(redirect(target, code=307))
    response.headers["Referrer-Policy"] = "no-referrer"
    return response if browser is None else bind(response, browser)


def _redeemed(server: str) -> Response:
    asked = TokenRequest(**parameters(request.form, TokenRequest))
    return tokens(token_endpoint.redeem(g.session, g.principal, server, asked))


def _person() -> Principal:
    """Return the signed-in user, else an anonymous principal."""
    return known_person() or principals.stranger(g.session, g.address)
