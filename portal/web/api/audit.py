"""The record of what was done and refused."""

from flask import Blueprint, Response, g, request

from portal.authorization import Action
from portal.services import trail
from portal.web.api.answers import answer, page_of, to_json
from portal.web.api.guarding import guard
from portal.web.api.payloads import list_place

bp = Blueprint("api_audit", __name__, url_prefix="/v1/audit")
guard(bp, read=Action.AUDIT_READ, write=Action.AUDIT_VERIFY)


@bp.get("")
def list_events() -> Response:
    """A page of events, newest first; `?actor=`, `action`, `target`, `outcome`, `since` and `until` narrow it."""
    wanted = trail.filter_of(request.args)
    return page_of(trail.list_events(g.session, g.principal, wanted, **list_place()), to_json)


@bp.get("/<event_id>")
def get_event(event_id: str) -> Response:
    """One event."""
    return answer(trail.get_event(g.session, g.principal, event_id))
