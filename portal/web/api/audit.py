"""The audit log: allowed and refused actions."""

from typing import Literal

from flask import Blueprint, Response, g, request

from portal.authorization import Action
from portal.services.audit import Outcome, trail
from portal.services.audit.trail import EventView
from portal.web.api.answers import answer, page_of, to_json
from portal.web.api.guarding import guard
from portal.web.api.payloads import list_place
from portal.web.documented import PAGED, Query, documented, listed

bp = Blueprint("api_audit", __name__, url_prefix="/v1/audit")
guard(bp, read=Action.AUDIT_READ, write=Action.AUDIT_VERIFY)


@bp.get("")
@documented(
    listed(EventView),
    query=(
        Query("actor", "Part of the actor's name or ID."),
        Query("action", "Part of the action."),
        Query("target", "Type or ID of the target."),
        Query("outcome", "Outcome of the action.", Outcome | Literal[""]),
        Query("since", "Earliest day or time, ISO 8601."),
        Query("until", "Latest day (inclusive) or time, ISO 8601."),
        *PAGED,
    ),
)
def list_events() -> Response:
    """List audit events, newest first."""
    wanted = trail.filter_of(request.args)
    return page_of(trail.list_events(g.session, g.principal, wanted, **list_place()), to_json)


@bp.get("/<event_id>")
@documented(EventView)
def get_event(event_id: str) -> Response:
    """Get an audit event."""
    return answer(trail.get_event(g.session, g.principal, event_id))
