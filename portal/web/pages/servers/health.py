"""The health of servers: the stored history, and a check on request."""

from flask import Blueprint, Response, flash, g, request, url_for

from portal.services.servers import grid
from portal.services.upstreams import health
from portal.web.context import reads_only
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.rendering import page, see_other

bp = Blueprint("health", __name__, url_prefix="/servers")


@bp.get("/health-badges")
def badges() -> Response:
    """Show the stored health of several servers. No server is contacted."""
    ids = [part for part in request.args.get("ids", "").split(",") if part][: grid.PAGE_SIZE]
    states = health.stored_health(g.session, g.principal, ids)
    return page("health/badges.html", fragment="badges", health=states)


@bp.get("/<server_id>/health")
def index(server_id: str) -> Response:
    """Show the health history of a server."""
    history = health.history(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    return page("health/index.html", nav="servers", server=card, history=history)


@bp.post("/<server_id>/probe")
@limiter.limit(TRY_UPSTREAM)
@reads_only
def probe(server_id: str) -> Response:
    """Run a health check now."""
    state = health.probe_server(g.session, g.principal, server_id)
    flash(f"{state.label}. {state.message}", "success" if state.status == "healthy" else "info")
    return see_other(url_for("health.index", server_id=server_id))
