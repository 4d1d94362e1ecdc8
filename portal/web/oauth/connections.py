"""Connect the user to a server with OAuth: start, callback, result and disconnect."""

from typing import Any

from flask import Blueprint, Response, flash, g, request, url_for

from portal.domain.errors import InvalidRequest, PortalError
from portal.services.credentials import connections, providers
from portal.services.oauth_client.flows import Flow
from portal.services.servers import grid
from portal.web.context import known_person, settings
from portal.web.errors import status_of
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.oauth.browsers import bind, bound_browser, new_or_bound_browser
from portal.web.pages.accounts import own_path
from portal.web.pages.credentials import after_removal
from portal.web.rendering import onward, page, plural, see_other

bp = Blueprint("connections", __name__)
_OF_AN_APP = "/oauth/allow/"
"""Start of the page where an app waits; the result page is skipped before it."""


@bp.get("/credentials/<server_id>/connect")
def ask(server_id: str) -> Response:
    """Show the page to connect to a server."""
    return _page(server_id)


@bp.post("/credentials/<server_id>/connect")
@limiter.limit(TRY_UPSTREAM)
def begin(server_id: str) -> Response:
    """Continue to the provider, through a page because of `form-action`."""
    browser = new_or_bound_browser()
    back = own_path(request.form.get("back")) if request.form.get("back") else ""
    try:
        departure = connections.begin_connection(
            g.session, g.principal, server_id, browser=browser, back=back
        )
    except PortalError as error:
        if status_of(error) in (401, 403, 404):
            raise
        g.session.rollback()
        return _page(server_id, status=status_of(error), problem=error)
    message = f"After signing in you return here, connected to {departure.server_name}."
    response = onward(departure.url, f"Continue to {departure.host}", message)
    response.headers["Referrer-Policy"] = "no-referrer"
    return bind(response, browser)


@bp.post("/credentials/<server_id>/disconnect")
@limiter.limit(TRY_UPSTREAM)
def disconnect(server_id: str) -> Response:
    """Delete the user's tokens and revoke them at the provider."""
    said = connections.disconnect(g.session, g.principal, server_id).said
    flash(f"Disconnected. {said}".strip(), "success")
    return after_removal(server_id)


@bp.post("/servers/<server_id>/sign-in/forget")
def forget_provider(server_id: str) -> Response:
    """Reset the discovered sign-in provider of a server."""
    people = providers.forget_provider(g.session, g.principal, server_id)
    ended = f" {plural(people, 'connection')} ended." if people else ""
    flash(f"Sign-in provider reset. It is discovered again on the next sign-in.{ended}", "success")
    return see_other(url_for("servers.users", server_id=server_id))


@bp.get("/oauth/result/<flow_id>")
def result(flow_id: str) -> Response:
    """Show the result of connecting, and the next step."""
    outcome = connections.get_result(g.session, g.principal, flow_id, bound_browser())
    server = None
    if outcome["server_id"]:
        try:
            server = grid.get_card(g.session, g.principal, outcome["server_id"])
        except PortalError:
            server = None  # it was deleted, or the user has no access any more
    return page(
        "connections/result.html",
        nav="credentials",
        outcome=outcome,
        server=server,
        callback=_callback(),
    )


def came_back(flow: Flow, answer: dict[str, str]) -> Response:
    """Complete the connection if the same user is signed in as at the start."""
    person = known_person()
    if person is None or person.user_id != flow.user_id:
        connections.give_up(
            g.session, person, flow, "signed_out" if person is None else "other_person"
        )
    else:
        connections.complete_connection(g.session, person, flow, answer)
        outcome = connections.get_result(g.session, person, flow.flow_id, bound_browser())
        if outcome.get("back", "").startswith(_OF_AN_APP) and _needs_no_words(outcome):
            return see_other(outcome["back"])
    return see_other(url_for("connections.result", flow_id=flow.flow_id))


def _needs_no_words(outcome: dict[str, Any]) -> bool:
    """Return whether a new connection works and has what was requested."""
    tried = outcome.get("test") or {"ok": True}
    is_other = outcome.get("missing") or outcome.get("old_account")
    return outcome["state"] == "connected" and tried["ok"] and not is_other


def _page(server_id: str, *, status: int = 200, problem: PortalError | None = None) -> Response:
    card = grid.get_card(g.session, g.principal, server_id)
    if not card.sign_in:
        raise problem or InvalidRequest(
            "This server does not require users to sign in.", code="not_oauth"
        )
    return page(
        "connections/ask.html",
        status=status,
        nav="credentials",
        server=card,
        problem=problem,
        connection=connections.get_state(g.session, g.principal, card.server_id),
        callback=_callback(),
        back=own_path(request.values.get("back")) if request.values.get("back") else "",
    )


def _callback() -> str:
    """Return the redirect URI that an Admin registers at the provider."""
    return f"{settings().public_url}/oauth/callback"
