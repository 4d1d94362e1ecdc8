"""Add servers to the public registry, or remove them."""

from flask import Blueprint, Response, flash, g, request, url_for

from portal.authorization import Action
from portal.services.catalog import registry
from portal.web.context import may_change
from portal.web.pages.servers.servers import find_card
from portal.web.rendering import see_other

bp = Blueprint("registry", __name__, url_prefix="/servers")


@bp.post("/<server_id>/listing")
def set_listed(server_id: str) -> Response:
    """List a server in the public registry, or remove it from there."""
    find_card(server_id, Action.SERVER_INSPECT)
    may_change(Action.PREFERENCE_MANAGE)
    listed = request.form.get("listed") == "yes"
    name = registry.set_listed(g.session, g.principal, server_id, listed)
    flash(f"{name} is {'now' if listed else 'no longer'} listed publicly.", "success")
    return see_other(url_for("servers.access", server_id=server_id))
