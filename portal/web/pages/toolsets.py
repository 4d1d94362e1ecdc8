"""Toolsets: the user's granted toolsets and, for Admins, the editor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import PortalError, UpstreamFailure
from portal.domain.snippets import KEY_VARIABLE
from portal.services.access import impact, pickers
from portal.services.tools import calls, client_setup, toolsets
from portal.services.tools.calls import ToolView
from portal.services.tools.toolsets import ToolRef, ToolsetView
from portal.web.forms.pickers import is_search
from portal.web.forms.toolsets import ToolsetForm, value_of
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.pages.pickers import one_server_options
from portal.web.rendering import page, see_other

bp = Blueprint("toolsets", __name__, url_prefix="/toolsets")
_HIDDEN = "Server not visible to you"


@dataclass(frozen=True)
class PickedTool:
    """A tool of a toolset; `live` is its current definition, None if the server has none."""

    name: str
    value: str
    live: ToolView | None = None


@dataclass(frozen=True)
class PickedServer:
    """The tools picked from one server.

    `asked` means that its tools were listed now; `fault` is the error, if that failed.
    """

    server_id: str
    name: str
    tools: tuple[PickedTool, ...]
    asked: bool = False
    fault: str = ""

    @property
    def context_tokens(self) -> int:
        """Return the approximate size of its tool definitions in model tokens."""
        return sum(tool.live.context_tokens for tool in self.tools if tool.live)

    @property
    def gone(self) -> int:
        """Return how many of its tools the server no longer offers."""
        return 0 if not self.asked or self.fault else sum(tool.live is None for tool in self.tools)


Answers = dict[str, tuple[ToolView, ...] | UpstreamFailure]


@bp.get("")
def index() -> Response:
    """List the toolsets that the user may see, filtered by name with `?q=`."""
    q = request.args.get("q", "")[:200]
    found = toolsets.list_toolsets(g.session, g.principal, q=q)
    return page("toolsets/list.html", fragment="results", nav="toolsets", toolsets=found, q=q)


@bp.route("/new", methods=["GET", "POST"])
@limiter.limit(TRY_UPSTREAM, methods=["POST"])
def new() -> Response:
    """Create a toolset."""
    authz.require(g.principal, Action.TOOLSET_MANAGE)
    form = ToolsetForm()
    if form.sent():
        with form.showing_errors():
            made = toolsets.create_toolset(
                g.session, g.principal, form.toolset_name.data, form.description.data, form.refs()
            )
            flash(
                f"{made.toolset_name} added. Grant it to a key, a team or a user.",
                "success",
            )
            return see_other(url_for("toolsets.detail", toolset_id=made.toolset_id))
    return _editor(form, None)


@bp.get("/<toolset_id>")
def detail(toolset_id: str) -> Response:
    """Show a toolset; with `?now`, check that its servers still offer these tools."""
    stored = toolsets.get_toolset(g.session, g.principal, toolset_id)
    asked = "now" in request.args
    answers: Answers = (
        calls.list_tools_of(g.session, g.principal, stored.server_ids) if asked else {}
    )
    servers = _picked(stored.tools, answers)
    reach = None
    if authz.may(g.principal, Action.TOOLSET_READ):
        reach = impact.of_toolset(g.session, g.principal, toolset_id)
    return page(
        "toolsets/detail.html",
        fragment="tools",
        nav="toolsets",
        toolset=stored,
        servers=servers,
        asked=asked,
        context_tokens=sum(server.context_tokens for server in servers),
        gone=sum(server.gone for server in servers),
        reach=reach,
    )


@bp.route("/<toolset_id>/edit", methods=["GET", "POST"])
@limiter.limit(TRY_UPSTREAM, methods=["POST"])
def edit(toolset_id: str) -> Response:
    """Change a toolset."""
    authz.require(g.principal, Action.TOOLSET_MANAGE)
    stored = toolsets.get_toolset(g.session, g.principal, toolset_id)
    form = ToolsetForm(
        toolset_name=stored.toolset_name,
        description=stored.description,
        tools=[value_of(ref) for ref in stored.tools],
    )
    if form.sent():
        with form.showing_errors():
            toolsets.change_toolset(
                g.session,
                g.principal,
                toolset_id,
                name=form.toolset_name.data,
                description=form.description.data or "",
                tools=form.refs(),
            )
            flash(f"{form.toolset_name.data} saved.", "success")
            return see_other(url_for("toolsets.detail", toolset_id=toolset_id))
    return _editor(form, stored)


@bp.get("/<toolset_id>/connect")
def connect(toolset_id: str) -> Response:
    """Show the client configurations for just these tools."""
    stored = toolsets.get_toolset(g.session, g.principal, toolset_id)
    connection = client_setup.describe_toolset(g.session, g.principal, toolset_id)
    return page(
        "toolsets/connect.html",
        nav="toolsets",
        toolset=stored,
        connection=connection,
        key_variable=KEY_VARIABLE,
    )


@bp.route("/<toolset_id>/delete", methods=["GET", "POST"])
def delete(toolset_id: str) -> Response:
    """Show who loses access, then delete the toolset."""
    authz.require(g.principal, Action.TOOLSET_MANAGE)
    stored = toolsets.get_toolset(g.session, g.principal, toolset_id)
    if request.method == "POST":
        toolsets.delete_toolset(g.session, g.principal, toolset_id)
        flash(f"{stored.toolset_name} deleted. Its tools were not deleted.", "success")
        return see_other(url_for("toolsets.index"))
    reach = impact.of_toolset(g.session, g.principal, toolset_id)
    return page("toolsets/delete.html", nav="toolsets", toolset=stored, reach=reach)


def _editor(form: ToolsetForm, stored: ToolsetView | None) -> Response:
    """Show the form, or only the tools if the user listed those of a server."""
    server_id = (
        request.form.get("server_id", "")[:256] if request.form.get("look") == "tools" else ""
    )
    answers: Answers = calls.list_tools_of(g.session, g.principal, [server_id]) if server_id else {}
    try:
        refs = form.refs()
    except PortalError:
        refs = []
    typed = request.form.get("find_tool", "")[:200]
    said = answers.get(server_id, ())
    offered = _offered(() if isinstance(said, UpstreamFailure) else said, server_id, refs, typed)
    named = pickers.name_servers(g.session, g.principal, [server_id]) if server_id else {}
    return page(
        "toolsets/edit.html",
        fragment="picked",
        status=422 if form.errors and not is_search() else 200,
        nav="toolsets",
        form=form,
        toolset=stored,
        servers=_picked(refs, answers),
        find_tool=typed,
        offered=offered,
        looked_at=named[server_id].text if server_id in named else "",
        looked=request.form.get("look") == "tools",
        fault=said.message if isinstance(said, UpstreamFailure) else "",
        options=one_server_options(request.form.get("server_id"), url_for("pickers.find_server")),
    )


def _offered(
    found: Sequence[ToolView], server_id: str, refs: Sequence[ToolRef], typed: str
) -> list[PickedTool]:
    """Return a server's unpicked tools whose name or description contains `typed`."""
    words = typed.strip().casefold()
    return [
        PickedTool(tool.name, value_of(ToolRef(server_id, tool.name)), tool)
        for tool in found
        if ToolRef(server_id, tool.name) not in refs
        and words in f"{tool.name} {tool.description}".casefold()
    ]


def _picked(refs: Sequence[ToolRef], answers: Answers) -> list[PickedServer]:
    """Return the tools by server, sorted by server name, with the current answers."""
    named = pickers.name_servers(g.session, g.principal, {ref.server_id for ref in refs})
    servers = []
    for server_id in dict.fromkeys(ref.server_id for ref in refs):
        said = answers.get(server_id)
        live = (
            {}
            if said is None or isinstance(said, UpstreamFailure)
            else {tool.name: tool for tool in said}
        )
        mine = (
            PickedTool(ref.tool_name, value_of(ref), live.get(ref.tool_name))
            for ref in refs
            if ref.server_id == server_id
        )
        more: dict[str, Any] = {"asked": said is not None}
        if isinstance(said, UpstreamFailure):
            more["fault"] = said.message
        name = named[server_id].text if server_id in named else _HIDDEN
        servers.append(PickedServer(server_id, name, tuple(mine), **more))
    return sorted(servers, key=lambda server: server.name.casefold())
