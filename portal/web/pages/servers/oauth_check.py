"""The OAuth check of a server."""

from flask import Blueprint, Response, g

from portal.services.credentials import oauth_check
from portal.services.servers import grid
from portal.web.context import reads_only
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.rendering import page
from portal.web.request_origin import sighting

bp = Blueprint("oauth_check", __name__, url_prefix="/servers/<server_id>/oauth-check")


@bp.get("")
def index(server_id: str) -> Response:
    """Show the page, whose form starts the check after it has loaded."""
    callback = oauth_check.callback_url(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    return page(
        "oauth_check/index.html", nav="servers", server=card, callback=callback, report=None
    )


@bp.post("")
@limiter.limit(TRY_UPSTREAM)
@reads_only
def run(server_id: str) -> Response:
    """Run the OAuth check and show its report."""
    report = oauth_check.check_oauth(g.session, g.principal, server_id, sighting())
    card = grid.get_card(g.session, g.principal, server_id)
    return page(
        "oauth_check/index.html",
        fragment="report",
        nav="servers",
        server=card,
        callback=report.callback,
        report=report,
    )
