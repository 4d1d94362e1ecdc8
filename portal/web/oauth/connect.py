"""A person connects to a server: the page with the button, the way out, the way back, and what
became of it."""

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

bp = Blueprint("oauth_connect", __name__)
_OF_AN_APP = "/oauth/allow/"
"""Where an app waits to go on: nothing is to be read in between."""


@bp.get("/credentials/<server_id>/connect")
def ask(server_id: str) -> Response:
    """What connecting means, and the button."""
    return _page(server_id)


@bp.post("/credentials/<server_id>/connect")
@limiter.limit(TRY_UPSTREAM)
def begin(server_id: str) -> Response:
    """Go on to the provider. A page in between: browsers do not let a form lead to another origin
    (form-action)."""
    browser = new_or_bound_browser()
    back = own_path(request.form.get("back")) if request.form.get("back") else ""
    try:
        departure = connections.begin(g.session, g.principal, server_id, browser=browser, back=back)
    except PortalError as error:
        if status_of(error) in (401, 403, 404):
            raise
        g.session.rollback()
        return _page(server_id, status=status_of(error), problem=error)
    message = f"You sign in there, and come back here connected to {departure.server_name}."
    response = onward(departure.url, f"Continue to {departure.host}", message)
    response.headers["Referrer-Policy"] = "no-referrer"
    return bind(response, browser)


@bp.post("/credentials/<server_id>/disconnect")
@limiter.limit(TRY_UPSTREAM)
def disconnect(server_id: str) -> Response:
    """Forget my tokens, here and at the provider."""
    said = connections.disconnect(g.session, g.principal, server_id).said
    flash(f"You are disconnected. {said}".strip(), "success")
    return after_removal(server_id)


@bp.post("/servers/<server_id>/sign-in/forget")
def forget_provider(server_id: str) -> Response:
    """Ask the server anew where people sign in, as an Admin who has looked at it."""
    people = providers.forget_provider(g.session, g.principal, server_id)
    gone = f" {plural(people, 'connection')} ended." if people else ""
    flash(
        f"The sign-in provider is forgotten; the next person who connects finds it anew.{gone}",
        "success",
    )
    return see_other(url_for("servers.users", server_id=server_id))


@bp.get("/oauth/result/<flow_id>")
def result(flow_id: str) -> Response:
    """What became of it, and what to do next."""
    outcome = connections.get_result(g.session, g.principal, flow_id, bound_browser())
    server = None
    if outcome["server_id"]:
        try:
            server = grid.get_card(g.session, g.principal, outcome["server_id"])
        except PortalError:
            server = None  # it is gone, or no longer theirs
    return page(
        "oauth/result.html", nav="credentials", outcome=outcome, server=server, callback=_callback()
    )


def came_back(flow: Flow, answer: dict[str, str]) -> Response:
    """Complete a connection, if who comes back is who left."""
    person = known_person()
    if person is None or person.user_id != flow.user_id:
        connections.give_up(
            g.session, person, flow, "signed_out" if person is None else "other_person"
        )
    else:
        connections.complete(g.session, person, flow, answer)
        outcome = connections.get_result(g.session, person, flow.flow_id, bound_browser())
        if outcome.get("back", "").startswith(_OF_AN_APP) and _needs_no_words(outcome):
            return see_other(outcome["back"])
    return see_other(url_for("oauth_connect.result", flow_id=flow.flow_id))


def _needs_no_words(outcome: dict[str, Any]) -> bool:
    """Whether a connection was made, works, and is just what was asked for."""
    tried = outcome.get("test") or {"ok": True}
    is_other = outcome.get("missing") or outcome.get("old_account")
    return outcome["state"] == "connected" and tried["ok"] and not is_other


def _page(server_id: str, *, status: int = 200, problem: PortalError | None = None) -> Response:
    card = grid.get_card(g.session, g.principal, server_id)
    if not card.sign_in:
        raise problem or InvalidRequest(
            "People do not sign in to this server themselves.", code="not_oauth"
        )
    return page(
        "oauth/connect.html",
        status=status,
        nav="credentials",
        server=card,
        problem=problem,
        connection=connections.get_state(g.session, g.principal, card.server_id),
        callback=_callback(),
        back=own_path(request.values.get("back")) if request.values.get("back") else "",
    )


def _callback() -> str:
    """What a provider has to know the portal by; an Admin registers it there."""
    return f"{settings().public_url}/oauth/callback"
