"""The tools of a server: the current list and, for Admins, which are enabled and their names."""

from typing import Any

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Conflict, UpstreamFailure
from portal.domain.servers import ServerFields
from portal.domain.tool_groups import GROUPS
from portal.services.servers import crud, grid, inspection
from portal.services.servers.cards import ServerCard
from portal.services.tools import calls, tool_changes
from portal.services.tools.calls import ToolView
from portal.web.context import database
from portal.web.forms.server_tools import ToolChoice, chosen_fields, read_choice
from portal.web.rendering import page, see_other

bp = Blueprint("server_tools", __name__, url_prefix="/servers/<server_id>/tools")


@bp.get("")
def index(server_id: str) -> Response:
    """Show the page. It requests the live list of tools after it has loaded."""
    return _page(grid.get_card(g.session, g.principal, server_id), ask="now" in request.args)


@bp.post("")
def choose(server_id: str) -> Response:
    """Enable, disable, rename and redescribe tools. Only changes are written."""
    authz.require(g.principal, Action.SERVER_CREATE)
    card = grid.get_card(g.session, g.principal, server_id)
    choice = read_choice(request.form)
    if choice.errors:
        return _page(card, ask=True, choice=choice, errors=choice.errors, status=422)
    changes = chosen_fields(choice, inspection.get_masked(g.session, g.principal, card.server_id))
    version = request.form.get("version", "")
    if version.isascii() and version.isdigit() and len(version) < 10:
        changes = ServerFields(**changes, version=int(version))
    try:
        crud.update_server(g.session, g.principal, card.server_id, changes)
    except Conflict as error:
        g.session.rollback()
        return _page(
            grid.get_card(g.session, g.principal, server_id),
            ask=True,
            errors={"": [error.message]},
            status=409,
        )
    flash(
        f"{len(choice.selected)} of {len(choice.offered)} tools enabled for users.",
        "success",
    )
    return see_other(url_for("server_tools.index", server_id=card.server_id, now=1, view=_view()))


def _page(
    card: ServerCard,
    *,
    ask: bool,
    choice: ToolChoice | None = None,
    status: int = 200,
    **context: Any,
) -> Response:
    found = None
    fault = None
    if ask:
        look = calls.inspect_tools if Action.SERVER_INSPECT in card.actions else calls.list_tools
        try:
            found = look(g.session, g.principal, card.server_id)
        except UpstreamFailure as error:
            fault = error.message
        else:
            _compare(card, found)
        card = grid.get_card(g.session, g.principal, card.server_id)
    return page(
        "server_tools/index.html",
        fragment="tools",
        status=status,
        nav="servers",
        server=card,
        tools=found,
        fault=fault,
        groups=_groups(found or ()),
        view=_view(),
        choice=choice,
        changeable=Action.SERVER_UPDATE in card.actions,
        later=_later(card) if found and Action.SERVER_UPDATE in card.actions else False,
        **context,
    )


def _compare(card: ServerCard, found: tuple[ToolView, ...]) -> None:
    """Record tools that an Admin sees for the first time, in a separate write transaction."""
    if Action.SERVER_ACCEPT not in card.actions:
        return
    wires = [tool.wire for tool in found]
    if not tool_changes.has_unknown_tools(g.session, g.principal, card.server_id, wires):
        return
    g.session.rollback()
    with database().session(writes=True) as own:
        tool_changes.note_tools(own, g.principal, card.server_id, card.version, wires)
        own.commit()


def _groups(found: tuple[ToolView, ...]) -> list[tuple[str, list[tuple[int, ToolView]]]]:
    """Return the tools with their form indexes, as one list or by non-empty group."""
    numbered = list(enumerate(found))
    if _view() != "grouped":
        return [("", numbered)]
    grouped = [(name, [(i, tool) for i, tool in numbered if tool.group == name]) for name in GROUPS]
    return [(name, members) for name, members in grouped if members]


def _later(card: ServerCard) -> bool:
    """Return whether tools that the server adds later are enabled automatically."""
    view = inspection.get_masked(g.session, g.principal, card.server_id)
    return (
        not view.allowed_tools and (view.mcp_info or {}).get("tool_allowlist_enforced") is not True
    )


def _view() -> str:
    return "grouped" if request.values.get("view") == "grouped" else "flat"
