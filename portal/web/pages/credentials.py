"""The user's credentials: an overview, and the page of one server that error messages link to."""

from typing import Any

from flask import Blueprint, Response, flash, g, request, url_for

from portal.domain.errors import (
    CredentialNeeded,
    Forbidden,
    InvalidRequest,
    MissingVariables,
    NotFound,
)
from portal.services.credentials import connections, self_service
from portal.services.credentials.setup import get_setup
from portal.services.servers import grid
from portal.services.upstreams import connection_test
from portal.web.context import commit_now
from portal.web.forms.typed import unknown_modes
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.pages.servers.trials import result_of
from portal.web.rendering import is_fragment_request, page, see_other

bp = Blueprint("credentials", __name__, url_prefix="/credentials")


@bp.get("")
def overview() -> Response:
    """List the user's credentials, missing ones first."""
    held = self_service.list_own_keys_held(g.session, g.principal)
    connected = {
        state.server_id: state
        for state, _, _ in connections.list_connections(g.session, g.principal)
    }
    cards = grid.list_cards_of_mine(g.session, g.principal)
    requirements = self_service.requirements_of(
        g.session, g.principal, [card.server_id for card in cards]
    )
    items = [
        {
            "card": card,
            "requirement": requirements.get(card.server_id),
            "key": held.get(card.server_id),
            "connection": connected.get(card.server_id) if card.sign_in else None,
            "needs_me": card.needs_me,
        }
        for card in cards
    ]
    shown = {card.server_id for card in cards}
    left = [
        held
        for held in self_service.list_holdings(g.session, g.principal)
        if held.server_id not in shown
    ]
    return page("credentials/overview.html", nav="credentials", items=items, left=left)


@bp.route("/<server_id>", methods=["GET", "POST"])
@limiter.limit(TRY_UPSTREAM, methods=["POST"])
def edit(server_id: str) -> Response:
    """Show one server's fields; save them and, if requested, test the connection."""
    if request.method == "GET":
        return _page(server_id, saved="saved" in request.args, test="test" in request.args)
    values = {
        k.removeprefix("value-"): v for k, v in request.form.items() if k.startswith("value-")
    }
    test = request.form.get("then") == "test"
    if unknown := unknown_modes():
        wrong = {name: ["Choose whether to keep or replace this value."] for name in unknown}
        return _page(server_id, errors=wrong, status=422)
    try:
        requirement = self_service.save_variables(
            g.session, g.principal, server_id, _chosen(values)
        )
    except InvalidRequest as error:
        return _page(server_id, errors={f"value-{error.field}": [error.message]}, status=422)
    errors = {f"value-{name}": [f"Enter {name}."] for name in requirement.missing if name in values}
    if errors:
        commit_now()
        return _page(server_id, errors=errors, status=422, changed=is_fragment_request())
    return _saved(server_id, test=test)


@bp.post("/<server_id>/forget")
def forget(server_id: str) -> Response:
    """Remove the user's values for a server."""
    self_service.forget_variables(g.session, g.principal, server_id)
    return _done(server_id, "Your values were removed.")


@bp.post("/<server_id>/key")
@limiter.limit(TRY_UPSTREAM)
def connect_key(server_id: str) -> Response:
    """Store or replace the user's own key."""
    try:
        self_service.save_key(g.session, g.principal, server_id, request.form.get("key", ""))
    except InvalidRequest as error:
        return _page(server_id, errors={"key": [error.message]}, status=422)
    return _saved(server_id, test=False)


@bp.post("/<server_id>/key/remove")
def remove_key(server_id: str) -> Response:
    """Remove the user's own key, or as an Admin another user's."""
    user_id = request.args.get("user_id")
    self_service.remove_key(g.session, g.principal, server_id, user_id=user_id)
    if user_id and user_id != g.principal.user_id:
        flash("Key removed.", "success")
        return see_other(url_for("servers.users", server_id=server_id))
    return _done(server_id, "Your key was removed.")


def _chosen(values: dict[str, str]) -> dict[str, str]:
    """Return the submitted values, with an empty string for each value to keep."""
    return {
        name: "" if request.form.get(f"value-{name}__mode") == "keep" else value
        for name, value in values.items()
    }


def _saved(server_id: str, *, test: bool) -> Response:
    commit_now()
    if is_fragment_request():
        return _page(server_id, saved=True, changed=True, test=test)
    return see_other(
        url_for("credentials.edit", server_id=server_id, saved=1, test=1 if test else None)
    )


def _done(server_id: str, message: str) -> Response:
    flash(message, "success")
    if is_fragment_request():
        commit_now()
        return _page(server_id, changed=True)
    return after_removal(server_id)


def after_removal(server_id: str) -> Response:
    """Redirect to the server's credentials, or to the overview if the user no longer has access."""
    try:
        self_service.get_requirement(g.session, g.principal, server_id)
    except (Forbidden, NotFound):
        return see_other(url_for("credentials.overview"))
    return see_other(url_for("credentials.edit", server_id=server_id))


def _page(server_id: str, *, status: int = 200, test: bool = False, **context: Any) -> Response:
    result = None
    if test:
        try:
            result = result_of(connection_test.try_own(g.session, g.principal, server_id))
        except (MissingVariables, CredentialNeeded) as error:
            result = {
                "ok": False,
                "tone": "warn",
                "label": "Not tested yet",
                "message": error.message,
            }
    setup = get_setup(g.session, g.principal, server_id)
    return page(
        "credentials/edit.html",
        fragment="setup",
        status=status,
        nav="credentials",
        server=setup.card,
        requirement=setup.requirement,
        key=setup.key,
        about=setup.about,
        result=result,
        connection=setup.connection,
        **context,
    )
