"""The portal's OAuth redirect URI, which dispatches responses to the flow that started them."""

from collections.abc import Callable

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import BadRequest

from portal.services.credentials.connections import FLOW as CONNECTION
from portal.services.drafts import sign_in
from portal.services.oauth_broker.common import FLOW as BROKER
from portal.services.oauth_client.flows import Flow, is_pending, take_flow
from portal.web.context import also_writes, commit_now
from portal.web.limits import WAY_BACK, limiter
from portal.web.oauth import broker, connections, drafts
from portal.web.oauth.browsers import bound_browser
from portal.web.rendering import page

bp = Blueprint("oauth_callback", __name__)
CAME_BACK: dict[str, Callable[[Flow, dict[str, str]], Response]] = {
    CONNECTION: connections.came_back,
    BROKER: broker.finish_broker,
    sign_in.FLOW: drafts.came_back,
}
"""The handler of each kind of flow. The flow is consumed and committed before the call."""
_LONGEST = 8_192
_SHOWN = 300


@bp.get("/oauth/callback")
@bp.get("/callback")
@limiter.limit(WAY_BACK)
@also_writes
def came_back() -> Response:
    """Handle the redirect of an authorization server. The code does not stay in the URL."""
    answer = _answer()
    flow = take_flow(
        g.session, answer.get("state", ""), kinds=tuple(CAME_BACK), browser=bound_browser()
    )
    if flow is None:
        response = _not_ours(answer)
    else:
        commit_now()
        response = CAME_BACK[flow.kind](flow, answer)
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _answer() -> dict[str, str]:
    """Return the parameters. Raises `BadRequest` for repeated ones (RFC 6749, section 3.1)."""
    for name, values in request.args.lists():
        if len(values) > 1 or len(values[0]) > _LONGEST:
            raise BadRequest(f"The parameter {name[:40]} is repeated or too long.")
    return request.args.to_dict()


def _not_ours(answer: dict[str, str]) -> Response:
    state = answer.get("state")
    why = "missing"
    if state:
        why = "other_browser" if is_pending(g.session, state) else "over"
    return page(
        "oauth/not_ours.html",
        status=400,
        why=why,
        error=answer.get("error", "")[:_SHOWN],
        description=answer.get("error_description", "")[:_SHOWN],
        has_code="code" in answer,
    )
