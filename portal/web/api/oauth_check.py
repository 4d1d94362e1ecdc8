"""The OAuth check of a server."""

from flask import Blueprint, Response, g

from portal.services.credentials import oauth_check
from portal.services.credentials.oauth_check import Report
from portal.web.api.answers import answer
from portal.web.documented import documented
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.request_origin import sighting

bp = Blueprint("api_oauth_check", __name__, url_prefix="/v1/mcp")


@bp.get("/server/<server_id>/oauth-check")
@documented(Report, also=(429,))
@limiter.limit(TRY_UPSTREAM)
def check(server_id: str) -> Response:
    """Check the OAuth configuration of a server.

    The report has `sections` of `steps`, each with a result (`ok`, `warn`, `fail`).
    """
    return answer(oauth_check.check_oauth(g.session, g.principal, server_id, sighting()))
