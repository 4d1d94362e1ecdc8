"""The audit log: list, export and verify events."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import orjson
from flask import Blueprint, Response, flash, g, request, url_for

from portal.authorization import Action
from portal.domain.errors import InvalidInput
from portal.domain.principals import Principal
from portal.services.audit import trail, verification
from portal.services.audit.trail import FILTER_NAMES, EventFilter
from portal.services.operations import revocations
from portal.services.servers import grid
from portal.web.context import database, may_change, only_with_admin_view
from portal.web.rendering import page, see_other

bp = Blueprint("audit", __name__)
_COLUMNS = (
    "at",
    "actor",
    "actor_id",
    "key_id",
    "address",
    "action",
    "outcome",
    "target_kind",
    "target_id",
    "details",
    "sequence",
    "event_hash",
)


bp.before_request(only_with_admin_view)


@bp.get("/admin/audit")
def events() -> Response:
    """List audit events, newest first. Every filter is in the URL."""
    given = _given()
    error = None
    status = 200
    try:
        found = trail.list_events(g.session, g.principal, trail.filter_of(given), cursor=_cursor())
    except InvalidInput as fault:
        error = fault
        status = 422
        found = trail.list_events(g.session, g.principal, EventFilter())
    asked: dict[str, Any] = {name: value for name, value in given.items() if value}
    kept: dict[str, Any] = {} if error else asked
    next_url = (
        url_for("audit.events", **kept, cursor=found.next_cursor) if found.next_cursor else ""
    )
    return page(
        "audit/events.html",
        fragment="results",
        status=status,
        nav="audit",
        events=found.items,
        given=given,
        asked=asked,
        error=error,
        next_url=next_url,
        first_url=url_for("audit.events", **asked) if _cursor() else "",
        export_url=url_for("audit.export", **kept),
        verified=verification.last_verification(g.session, g.principal),
    )


@bp.get("/admin/audit.csv")
def export() -> Response:
    """Stream the filtered events as CSV."""
    wanted = trail.filter_of(_given())
    response = Response(_csv(database(), g.principal, wanted), mimetype="text/csv")
    response.headers["Content-Disposition"] = 'attachment; filename="audit.csv"'
    return response


@bp.post("/admin/audit/verify")
def verify() -> Response:
    """Verify the integrity of the whole audit log."""
    may_change(Action.AUDIT_VERIFY)
    found = verification.verify(g.session, g.principal)
    if found.is_whole:
        flash(f"Audit log verified: {found.holds:,} events are intact.", "success")
    return see_other(url_for("audit.events"))


@bp.post("/admin/wake")
def wake() -> Response:
    """Re-enable API keys and sign-in after a restore that may have lost revocations."""
    may_change(Action.KEY_MANAGE)
    if revocations.wake(g.session, g.principal):
        flash("API keys and sign-in are enabled again.", "success")
    return see_other(url_for("audit.events"))


@bp.get("/servers/<server_id>/activity")
def activity(server_id: str) -> Response:
    """List the audit events of one server."""
    card = grid.get_card(g.session, g.principal, server_id)
    found = trail.server_events(g.session, g.principal, card.server_id, cursor=_cursor())
    here = url_for("audit.activity", server_id=server_id)
    next_url = (
        url_for("audit.activity", server_id=server_id, cursor=found.next_cursor)
        if found.next_cursor
        else ""
    )
    return page(
        "audit/activity.html",
        nav="servers",
        server=card,
        events=found.items,
        next_url=next_url,
        first_url=here if _cursor() else "",
    )


def _given() -> dict[str, str]:
    return {name: request.args.get(name, "").strip()[:320] for name in FILTER_NAMES}


def _cursor() -> str:
    return request.args.get("cursor", "")[:200]


def _csv(source: Any, principal: Principal, wanted: EventFilter) -> Iterator[str]:
    """Yield the CSV lines, read through a session that is open until the response ends."""
    with source.session() as own:
        rows = trail.export_events(own, principal, wanted)
        yield _line(_COLUMNS)
        for row in rows:
            yield _line([_cell(getattr(row, name)) for name in _COLUMNS])


def _cell(value: Any) -> str:
    """Return a value as text that no spreadsheet reads as a formula."""
    if value is None:
        return ""
    if isinstance(value, dict):
        text = orjson.dumps(value).decode()
    else:
        text = value.astimezone(UTC).isoformat() if hasattr(value, "astimezone") else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _line(cells: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()
