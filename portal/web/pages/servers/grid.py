"""The grid of servers."""

from urllib.parse import urlencode

from flask import Blueprint, Response, g, request, url_for

from portal.services.servers import grid
from portal.services.servers.grid_filters import GridQuery
from portal.web.context import settings
from portal.web.rendering import is_fragment_request, page

bp = Blueprint("grid", __name__, url_prefix="/servers")
_VIEW_COOKIE = "view"


@bp.get("")
def index() -> Response:
    """Show the grid, or only its results for an htmx request."""
    query = _query()
    found = grid.get_grid(g.session, g.principal, query)
    ids = [card.server_id for card in found.cards]
    health_url = url_for("health.badges", ids=",".join(ids)) if ids else ""
    response = page(
        "grid/index.html", fragment="results", nav="servers", grid=found, health_url=health_url
    )
    if request.args.get("view") in ("cards", "table"):
        response.set_cookie(
            _VIEW_COOKIE,
            query.view,
            max_age=31_536_000,
            samesite="Lax",
            httponly=True,
            secure=settings().https,
        )
    if is_fragment_request():
        wanted = {
            k: v
            for k, v in request.args.items()
            if v and (k, v) not in (("sort", "name"), ("view", "cards"))
        }
        response.headers["HX-Push-Url"] = url_for("grid.index") + (
            f"?{urlencode(wanted)}" if wanted else ""
        )
    return response


def _query() -> GridQuery:
    names = ("q", "status", "transport", "auth", "group", "team", "health", "needs", "cursor")
    given = {name: request.args.get(name, "")[:300] for name in names}
    view = request.args.get("view") or request.cookies.get(_VIEW_COOKIE, "")
    sort = request.args.get("sort", "")
    return GridQuery(
        **given,
        sort=sort if sort in dict(grid.SORTS) else "name",
        view="table" if view == "table" else "cards",
    )
