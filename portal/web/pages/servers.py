"""The server grid, and the pages of one server."""

from urllib.parse import urlencode

from flask import Blueprint, Response, flash, g, request, url_for

from portal.domain.snippets import KEY_VARIABLE
from portal.services.credentials import providers
from portal.services.servers import crud, grid, inspection, secret_moves
from portal.services.servers.grid_filters import GridQuery
from portal.services.tools import client_setup
from portal.services.upstreams import health
from portal.web.context import reads_only, settings
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.rendering import is_fragment_request, page, see_other

bp = Blueprint("servers", __name__, url_prefix="/servers")
_VIEW_COOKIE = "view"


@bp.get("", endpoint="grid")
def grid_page() -> Response:
    """Show the grid, or only its results for an htmx request."""
    query = _query()
    found = grid.get_grid(g.session, g.principal, query)
    ids = [card.server_id for card in found.cards]
    health_url = url_for("servers.health_badges", ids=",".join(ids)) if ids else ""
    response = page(
        "servers/grid.html", fragment="results", nav="servers", grid=found, health_url=health_url
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
        response.headers["HX-Push-Url"] = url_for("servers.grid") + (
            f"?{urlencode(wanted)}" if wanted else ""
        )
    return response


@bp.get("/health-badges")
def health_badges() -> Response:
    """Show the stored health of several servers. No server is contacted."""
    ids = [part for part in request.args.get("ids", "").split(",") if part][: grid.PAGE_SIZE]
    states = health.stored_health(g.session, g.principal, ids)
    return page("servers/health_badges.html", fragment="badges", health=states)


@bp.get("/<server_id>")
def detail(server_id: str) -> Response:
    """Show the overview of a server."""
    card = grid.get_card(g.session, g.principal, server_id)
    view = inspection.get_masked(g.session, g.principal, server_id)
    addresses = secret_moves.addresses_among(view.origins or {}, card.address)
    return page("servers/overview.html", nav="servers", server=card, view=view, addresses=addresses)


@bp.get("/<server_id>/connect")
def connect(server_id: str) -> Response:
    """Show the client configuration for a server."""
    gateway = settings().gateway_url
    connection = client_setup.describe_connection(g.session, g.principal, server_id, gateway)
    card = grid.get_card(g.session, g.principal, server_id)
    return page(
        "servers/connect.html",
        nav="servers",
        server=card,
        connection=connection,
        has_gateway=bool(gateway),
        key_variable=KEY_VARIABLE,
    )


@bp.get("/<server_id>/configuration")
def configuration(server_id: str) -> Response:
    """Show the configuration of a server. Secrets appear only as set or not set."""
    view = inspection.get_inspected(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    addresses = secret_moves.addresses_among(view.origins or {}, card.address)
    return page(
        "servers/configuration.html", nav="servers", server=card, view=view, addresses=addresses
    )


@bp.get("/<server_id>/access")
def access(server_id: str) -> Response:
    """Show who has access to a server, and why."""
    view = inspection.get_inspected(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    reach = crud.cut_off(g.session, g.principal, server_id)
    return page("servers/access.html", nav="servers", server=card, view=view, reach=reach)


@bp.get("/<server_id>/credentials")
def users(server_id: str) -> Response:
    """List the users with stored credentials for a server, without the values."""
    people = inspection.list_holders(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    provider = providers.get_provider(g.session, g.principal, server_id)
    return page("servers/users.html", nav="servers", server=card, people=people, provider=provider)


@bp.get("/<server_id>/health", endpoint="health")
def health_page(server_id: str) -> Response:
    """Show the health history of a server."""
    history = health.history(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    return page("servers/health.html", nav="servers", server=card, history=history)


@bp.post("/<server_id>/probe")
@limiter.limit(TRY_UPSTREAM)
@reads_only
def probe(server_id: str) -> Response:
    """Run a health check now."""
    state = health.probe_server(g.session, g.principal, server_id)
    flash(f"{state.label}. {state.message}", "success" if state.status == "healthy" else "info")
    return see_other(url_for("servers.health", server_id=server_id))


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
