"""The public hub: the servers that an Admin listed, shown while the registry is enabled."""

from flask import Blueprint, Response, g, request, url_for

from portal.services.catalog import registry
from portal.web.rendering import page

bp = Blueprint("hub", __name__)


@bp.get("/hub")
def index() -> Response:
    """List the public servers by name."""
    search = request.args.get("q", "").strip()[:200]
    cursor = request.args.get("cursor", "")[:400]
    sort_key, _, server_id = cursor.rpartition("~")
    found = registry.get_hub(
        g.session, search=search, after=(sort_key, server_id) if cursor else None
    )
    next_url = (
        url_for("hub.index", q=search or None, cursor="~".join(found.next_cursor))
        if found.next_cursor
        else ""
    )
    first_url = url_for("hub.index", q=search or None) if cursor else ""
    return page(
        "hub/index.html",
        fragment="results",
        hub=found,
        q=search,
        next_url=next_url,
        first_url=first_url,
    )
