"""Tool changes of a server: compare with the accepted version, and accept changes."""

import json

from flask import Blueprint, Response, flash, g, request, url_for

from portal.domain.errors import Conflict, InvalidInput, InvalidRequest, UpstreamFailure
from portal.services.servers import grid
from portal.services.tools import tool_changes
from portal.web.context import reads_only
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.rendering import page, plural, see_other

bp = Blueprint("tool_changes", __name__, url_prefix="/servers/<server_id>/tools/changes")
_MOST_CHOSEN = 100


@bp.get("")
def index(server_id: str) -> Response:
    """Show each changed tool, old beside new."""
    return _page(server_id)


@bp.post("/look")
@limiter.limit(TRY_UPSTREAM)
@reads_only
def look(server_id: str) -> Response:
    """List the server's tools now, and compare them with the accepted ones."""
    try:
        tool_changes.look(g.session, g.principal, server_id)
    except UpstreamFailure as error:
        flash(f"The tools could not be listed. {error.message}", "error")
    return see_other(url_for("tool_changes.index", server_id=server_id))


@bp.post("/accept")
def accept(server_id: str) -> Response:
    """Accept the selected tools as shown, or only those without warnings."""
    chosen = _chosen()
    try:
        if "harmless" in request.form:
            done = tool_changes.accept_harmless(g.session, g.principal, server_id, chosen)
        else:
            for name, sha256 in chosen:
                tool_changes.accept(g.session, g.principal, server_id, name, sha256)
            done = len(chosen)
    except Conflict as error:
        g.session.rollback()
        return _page(server_id, status=409, problem=error.message)
    flash(f"{plural(done, 'change')} accepted.", "success")
    return see_other(url_for("tool_changes.index", server_id=server_id))


@bp.post("/disable")
def disable(server_id: str) -> Response:
    """Disable a changed tool."""
    name = request.form.get("tool_name", "")[:300]
    try:
        tool_changes.disable(g.session, g.principal, server_id, name)
    except InvalidRequest as error:
        g.session.rollback()
        return _page(server_id, status=409, problem=error.message)
    flash(f"{name} disabled. To enable it again, edit the server.", "success")
    return see_other(url_for("tool_changes.index", server_id=server_id))


def _page(server_id: str, *, status: int = 200, problem: str = "") -> Response:
    found = tool_changes.list_changes(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    return page(
        "tool_changes/index.html",
        status=status,
        nav="servers",
        server=card,
        changes=found,
        problem=problem,
    )


def _chosen() -> list[tuple[str, str | None]]:
    """Return the selected tools with the hash of each as shown. Raises `InvalidInput`."""
    found: list[tuple[str, str | None]] = []
    for value in request.form.getlist("chosen")[:_MOST_CHOSEN]:
        try:
            name, sha256 = json.loads(value)
        except (ValueError, TypeError, RecursionError):
            raise InvalidInput("Choose from the list.", field="chosen") from None
        if not isinstance(name, str) or not (sha256 is None or isinstance(sha256, str)):
            raise InvalidInput("Choose from the list.", field="chosen")
        found.append((name, sha256))
    return found
