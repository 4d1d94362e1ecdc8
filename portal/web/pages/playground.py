"""The playground: call a tool from the browser as the signed-in user."""

import json
from typing import Any

from flask import Blueprint, Response, g, request, url_for

from portal.authorization import Action
from portal.domain.errors import (
    CredentialNeeded,
    Forbidden,
    InvalidRequest,
    MissingVariables,
    UpstreamFailure,
)
from portal.domain.servers import check_headers
from portal.domain.upstream import HealthReason
from portal.services.credentials.setup import get_setup
from portal.services.servers import grid, inspection
from portal.services.tools import calls
from portal.services.tools.calls import ToolView
from portal.web.context import reads_only
from portal.web.errors import status_of
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.rendering import is_fragment_request, page
from portal.web.tool_forms import arguments, tool_fields

bp = Blueprint("playground", __name__, url_prefix="/playground")


@bp.get("")
def index() -> Response:
    """Show the servers, the tools of one, and the form of one tool."""
    return _page("workbench", request.args.get("server", ""), request.args.get("tool", ""))


@bp.post("/call")
@limiter.limit(TRY_UPSTREAM)
@reads_only
def call() -> Response:
    """Call the tool, or show the credentials form if a value is missing (412)."""
    server_id = request.form.get("server", "")
    name = request.form.get("tool", "")
    passed, wrong = _typed_headers()
    if wrong:
        return _page("result", server_id, name, status=422, errors=wrong)
    try:
        listed = calls.list_tools(g.session, g.principal, server_id, passed)
    except UpstreamFailure as error:
        more = _setup(server_id, name) if error.reason == HealthReason.SIGN_IN_NEEDED else {}
        return _page(
            "result",
            server_id,
            name,
            status=412 if more else status_of(error),
            problem=error.message,
            **more,
        )
    tool = next((t for t in listed if t.name == name), None)
    if tool is None:
        raise Forbidden("Tool not found, or you do not have access to it.")
    values, fields = arguments(tool_fields(tool.input_schema, request.form))
    if wrong := {f"argument-{f.name}": [f.error] for f in fields if f.error}:
        return _page("result", server_id, name, status=422, errors=wrong, tool=tool, fields=fields)
    shown: dict[str, Any] = {"tool": tool, "fields": fields}
    try:
        result = calls.call_tool(g.session, g.principal, server_id, name, values, passed)
    except (MissingVariables, CredentialNeeded) as error:
        # The user enters the missing values on this page, and calls again.
        return _page(
            "result",
            server_id,
            name,
            status=412,
            **shown,
            **_setup(server_id, name),
            problem=error.message,
        )
    except UpstreamFailure as error:
        return _page(
            "result", server_id, name, status=status_of(error), **shown, problem=error.message
        )
    raw = json.dumps(result.wire, indent=2, ensure_ascii=False)
    return _page("result", server_id, name, **shown, result=result, raw=raw)


def _typed_headers() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the submitted values of forwarded headers, and the errors by field."""
    fields = {
        name: text.strip()
        for name, text in request.form.items()
        if name.startswith("header-") and text.strip()
    }
    passed = {name.removeprefix("header-"): text for name, text in fields.items()}
    wrong: dict[str, list[str]] = {}
    for name, text in passed.items():
        try:
            check_headers({name: text}, "headers")
        except InvalidRequest as error:
            wrong[f"header-{name}"] = [error.message]
    return passed, wrong


def _header_names(server_id: str) -> tuple[str, ...]:
    """Return the names of forwarded headers, or none for users without admin view."""
    card = grid.get_card(g.session, g.principal, server_id)
    if Action.SERVER_INSPECT not in card.actions or card.transport == "stdio":
        return ()
    return inspection.get_inspected(g.session, g.principal, card.server_id).extra_headers


def _setup(server_id: str, tool: str) -> dict[str, Any]:
    setup = get_setup(g.session, g.principal, server_id)
    return {
        "server": setup.card,
        "connection": setup.connection,
        "back": url_for("playground.index", server=server_id, tool=tool or None),
        "requirement": setup.requirement,
        "key": setup.key,
        "about": setup.about,
    }


def _page(
    fragment: str, server_id: str, tool_name: str, *, status: int = 200, **context: Any
) -> Response:
    """Show the page or one fragment. Tools are listed only if the fragment shows them."""
    found: tuple[ToolView, ...] = ()
    fault = None
    if server_id and not (fragment == "result" and is_fragment_request()):
        try:
            found = calls.list_tools(g.session, g.principal, server_id)
        except UpstreamFailure as error:
            fault = error.message
            if error.reason == HealthReason.SIGN_IN_NEEDED:
                context |= _setup(server_id, tool_name)
    tool = context.pop("tool", None) or next((t for t in found if t.name == tool_name), None)
    fields = context.pop("fields", None) or (tool_fields(tool.input_schema) if tool else [])
    return page(
        "playground/index.html",
        fragment=fragment,
        status=status,
        nav="playground",
        server_id=server_id,
        servers=grid.list_usable(g.session, g.principal),
        tools=found,
        tool=tool,
        fields=fields,
        fault=fault,
        passed_on=_header_names(server_id) if tool and found else (),
        **context,
    )
