"""Sign-in with an OpenID provider: redirect and callback."""

from flask import Blueprint, Response, current_app, g, request, session, url_for

from portal.domain.errors import Forbidden, InvalidRequest, PortalError, UpstreamFailure
from portal.services.access import sso
from portal.services.oauth_client.flows import Flow
from portal.web import context
from portal.web.errors import status_of
from portal.web.limits import SIGN_IN_BY_ADDRESS, limiter
from portal.web.oauth.browsers import bind, bound_browser, new_or_bound_browser
from portal.web.pages.accounts import own_path
from portal.web.rendering import page, see_other

bp = Blueprint("sign_in", __name__)
_DECLINED = "You canceled the sign-in at the provider."


@bp.get("/login/<name>")
@limiter.limit(SIGN_IN_BY_ADDRESS)
def start(name: str) -> Response:
    """Redirect to the provider. This is a link, since `form-action` blocks it for a form."""
    browser = new_or_bound_browser()
    try:
        with context.database().session(writes=True) as own:
            address = sso.begin_sign_in(
                own, name, browser=browser, go_to=own_path(request.args.get("next"))
            )
            own.commit()
    except UpstreamFailure as failure:
        return _failed(name, failure)
    return bind(see_other(address), browser)


@bp.get("/login/<name>/callback")
@limiter.limit(SIGN_IN_BY_ADDRESS)
def callback(name: str) -> Response:
    """Verify the provider's response, start a session, and redirect to the requested page."""
    try:
        flow = _taken(name)
        if "error" in request.args:
            raise InvalidRequest(_DECLINED, code="declined")
        code = request.args.get("code", "")
        if not code:
            raise InvalidRequest("The provider’s response is incomplete.", code="incomplete")
        with context.database().session(writes=True) as own:
            arrived = sso.complete_sign_in(
                own, flow, code=code, iss=request.args.get("iss"), address=g.address
            )
            own.commit()
    except (InvalidRequest, Forbidden, UpstreamFailure) as error:
        return _failed(name, error)
    context.sign_in(arrived.user_id)
    session["signed_in_by"] = arrived.provider
    session["id_token"] = arrived.id_token
    return see_other(arrived.go_to)


def _taken(name: str) -> Flow:
    # Committed before the request to the provider, so that a second response finds the flow used.
    with context.database().session(writes=True) as own:
        flow = sso.take_answer(own, name, request.args.get("state", ""), bound_browser())
        own.commit()
    return flow


def _failed(name: str, error: PortalError) -> Response:
    context.note_failed_sign_in()
    if isinstance(error, UpstreamFailure):
        current_app.logger.warning("sign-in with %s failed: %s", name, error.reason)
    again = url_for("sign_in.start", name=name)
    return page(
        "accounts/sign_in_failed.html",
        status=status_of(error),
        message=error.message,
        code=error.code,
        again=again,
    )
