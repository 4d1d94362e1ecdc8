"""Listing and calling tools as the caller, within allow-lists and tool permissions."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, ServerFacts, ToolLimits
from portal.domain.context_cost import approximate_tokens
from portal.domain.errors import CredentialNeeded, Forbidden, UpstreamFailure, UpstreamTimeout
from portal.domain.principals import Principal
from portal.domain.tool_groups import group_of
from portal.domain.upstream import HealthReason, Target, ToolDefinition, ToolOutcome
from portal.services.runtime import runtime_of
from portal.services.servers import queries, tool_snapshots
from portal.services.servers.queries import prefix_of
from portal.services.servers.views import KIND_OF_FAULT, MASK
from portal.services.upstreams.resolve import (
    NOTHING,
    AuthorizedTarget,
    Passed,
    ask_upstream,
    authorize_all_to_list,
    authorize_to_call,
    authorize_to_list,
)
from portal.store.database import release
from portal.store.models import Server

_DEADLINE = 10.0
_MOST_SERVERS = 500


@dataclass(frozen=True)
class ToolView:
    """A tool of one server, as its server describes it and as this catalog names it."""

    name: str
    display_name: str
    description: str
    kind: str
    input_schema: Mapping[str, Any]
    wire: Mapping[str, Any]
    allowed: bool = True
    context_tokens: int = 0
    """The approximate number of model tokens of its definition."""
    enabled: bool = True
    """Whether the server's own allow-list includes it, for any caller."""
    own_description: str = ""

    @property
    def group(self) -> str:
        """Create, Read, Update, Delete or Other."""
        return group_of(self.name, self.own_description)


Views = Callable[[Sequence[ToolDefinition]], tuple[ToolView, ...]]


@dataclass(frozen=True)
class CallView:
    """The result of a tool call, the duration (ms), and the names of sent headers."""

    wire: Mapping[str, Any]
    is_error: bool
    duration_ms: int
    headers_sent: tuple[tuple[str, str], ...]


def list_tools(
    session: Session, principal: Principal, server_id: str, passed: Passed = NOTHING
) -> tuple[ToolView, ...]:
    """Return the tools of one server that the caller may call, requested now.

    `passed` are headers of the caller; those that the server lists are forwarded. Raises
    `UpstreamFailure`.
    """
    server = queries.find_server(session, principal, server_id, Action.SERVER_USE)
    return tuple(view for view in _listed(session, principal, server, passed) if view.allowed)


def inspect_tools(session: Session, principal: Principal, server_id: str) -> tuple[ToolView, ...]:
    """Return all tools of one server, including disallowed ones. Raises `UpstreamFailure`."""
    server = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT)
    return _listed(session, principal, server)


def list_all_tools(
    session: Session, principal: Principal, passed: Passed = NOTHING
) -> list[dict[str, Any]]:
    """Return the tools of all servers the caller may use, as `{prefix}-{tool}` in MCP wire format.

    Servers that do not respond in time are left out, so that one does not block the others.
    """
    query = (
        select(Server)
        .where(authz.usable_servers(principal))
        .order_by(Server.sort_key, Server.server_id)
    )
    rows = list(session.scalars(query.limit(_MOST_SERVERS).options(*queries.PARTS)))
    groups = queries.groups_of(session, rows)
    rows = [row for row in rows if row.transport != "stdio" or runtime_of(session).stdio_enabled]
    plan: list[tuple[str, Views]] = []
    for row in rows:
        server = ServerFacts(
            row, frozenset(group.access_group_id for group in groups[row.server_id])
        )
        plan.append((prefix_of(row), _viewer(principal, server)))
    return [
        {**view.wire, "name": f"{prefix}-{view.name}", "description": view.description}
        for (prefix, views), answer in zip(
            plan, _answers(session, principal, rows, passed), strict=True
        )
        if not isinstance(answer, UpstreamFailure)
        for view in views(answer)
        if view.allowed
    ]


def list_tools_of(
    session: Session, principal: Principal, server_ids: Collection[str]
) -> dict[str, tuple[ToolView, ...] | UpstreamFailure]:
    """Return all tools of these servers, requested in parallel, or the failure of a server.

    Servers that the caller may neither use nor inspect are left out.
    """
    query = (
        select(Server)
        .where(Server.server_id.in_(server_ids))
        .order_by(Server.sort_key, Server.server_id)
    )
    rows = list(session.scalars(query.limit(_MOST_SERVERS).options(*queries.PARTS)))
    groups = queries.groups_of(session, rows)
    plan: dict[str, tuple[Server, Views]] = {}
    for row in rows:
        server = ServerFacts(
            row, frozenset(group.access_group_id for group in groups[row.server_id])
        )
        actions = (Action.SERVER_USE, Action.SERVER_INSPECT)
        if any(authz.may(principal, action, server) for action in actions):
            plan[row.server_id] = (row, _viewer(principal, server))
    answers = _answers(session, principal, [row for row, _ in plan.values()])
    found: dict[str, tuple[ToolView, ...] | UpstreamFailure] = {}
    for (server_id, (_, views)), answer in zip(plan.items(), answers, strict=True):
        if isinstance(answer, UpstreamFailure):
            found[server_id] = _told(principal, answer)
        else:
            found[server_id] = views(answer)
    return found


def _listed(
    session: Session, principal: Principal, server: ServerFacts, passed: Passed = NOTHING
) -> tuple[ToolView, ...]:
    """Return all tools of one server, requested now as the caller."""
    views = _viewer(principal, server)
    authorized = authorize_to_list(session, principal, server.row, passed)
    release(session)
    with _asking(principal):
        try:
            return views(
                ask_upstream(session, principal, authorized, runtime_of(session).mcp.list_tools)
            )
        except CredentialNeeded as error:
            raise UpstreamFailure(error.message, reason=HealthReason.SIGN_IN_NEEDED) from None


def _answers(
    session: Session, principal: Principal, rows: Sequence[Server], passed: Passed = NOTHING
) -> list[tuple[ToolDefinition, ...] | UpstreamFailure]:
    """Return the responses of many servers to a parallel request for tools, in order."""
    authorized = authorize_all_to_list(session, principal, rows, passed)
    release(session)
    targets = [one.target for one in authorized if isinstance(one, AuthorizedTarget)]
    answers = iter(runtime_of(session).mcp.list_tools_many(targets, deadline=_DEADLINE))
    return [next(answers) if isinstance(one, AuthorizedTarget) else one for one in authorized]


def _told(principal: Principal, failure: UpstreamFailure) -> UpstreamFailure:
    """Return the failure as the caller may see it: hosts only with admin view."""
    if authz.has_admin_view(principal):
        return failure
    message = KIND_OF_FAULT[HealthReason(failure.reason)]
    if isinstance(failure, UpstreamTimeout):
        return UpstreamTimeout(message)
    return UpstreamFailure(message, reason=failure.reason)


@contextmanager
def _asking(principal: Principal) -> Iterator[None]:
    """Convert upstream failures to what the caller may see."""
    try:
        yield
    except UpstreamFailure as failure:
        raise _told(principal, failure) from None


def call_tool(
    session: Session,
    principal: Principal,
    server_id: str,
    name: str,
    arguments: Mapping[str, Any],
    passed: Passed = NOTHING,
) -> CallView:
    """Call a tool as the caller, with their own values and the headers that the server lists.

    Raises `MissingVariables` (412), `CredentialNeeded` (401), `Forbidden` for a tool that is not
    allowed, and `UpstreamFailure`.
    """
    row, limits, names = authorize_call(session, principal, server_id, name)
    authorized = authorize_to_call(session, principal, row, passed)
    release(session)
    began = time.monotonic()
    mcp = runtime_of(session).mcp

    def asked(target: Target) -> ToolOutcome:
        tool = names[0]
        if len(names) > 1:
            tool = _own_name(names, {tool.name for tool in mcp.list_tools(target)})
        if not limits.allow(tool):
            raise _refused()
        return mcp.call_tool(target, tool, dict(arguments))

    with _asking(principal):
        outcome = ask_upstream(session, principal, authorized, asked)
    took = outcome.duration_ms or int((time.monotonic() - began) * 1000)
    return CallView(
        outcome.wire,
        outcome.is_error,
        took,
        tuple((header, MASK) for header in authorized.target.headers),
    )


def authorize_call(
    session: Session, principal: Principal, server_id: str, name: str
) -> tuple[Server, ToolLimits, tuple[str, ...]]:
    """Return the server, the limits, and the tools' own names that the given name may mean.

    There are two if it begins with the server's prefix, unless it is known as an own name. Raises
    what `find_server` raises, and `Forbidden` if none of them may be called.
    """
    server = queries.find_server(session, principal, server_id, Action.SERVER_USE)
    limits = authz.tool_limits(principal, server)
    prefix = f"{prefix_of(server.row)}-"
    names = [name]
    if name.startswith(prefix) and not limits.name(name):
        known = tool_snapshots.known_names(session, server.row.server_id)
        names += [name.removeprefix(prefix)] * (name not in known)
    if not any(limits.allow(one) for one in names):
        raise _refused()
    return server.row, limits, tuple(names)


def _refused() -> Forbidden:
    return Forbidden("You do not have access to this tool.")


def kind_of(tool: ToolDefinition) -> str:
    """Return `read`, `write` or `delete`, by the tool's MCP annotations or its name's verb."""
    annotations = tool.wire.get("annotations")
    if isinstance(annotations, dict):
        if annotations.get("readOnlyHint") is True:
            return "read"
        if annotations.get("destructiveHint") is True:
            return "delete"
    verb = tool.name.replace("-", "_").split("_")[0].lower()
    if verb in _DELETES:
        return "delete"
    return "read" if verb in _READS else "write"


_READS = frozenset(
    "get list search find read show describe query fetch count lookup whoami echo".split()
)
_DELETES = frozenset("delete remove drop purge destroy revoke".split())


def _viewer(principal: Principal, server: ServerFacts) -> Views:
    """Return a function for how this caller sees the server's tools; reads the row only now."""
    shown = dict(server.row.tool_name_to_display_name or {})
    described = dict(server.row.tool_name_to_description or {})
    limits = authz.tool_limits(principal, server)

    def views(tools: Sequence[ToolDefinition]) -> tuple[ToolView, ...]:
        return tuple(view(tool) for tool in tools)

    def view(tool: ToolDefinition) -> ToolView:
        description = described.get(tool.name) or tool.description
        return ToolView(
            tool.name,
            shown.get(tool.name) or tool.name,
            description,
            kind_of(tool),
            tool.input_schema,
            tool.wire,
            limits.allow(tool.name),
            approximate_tokens(tool.name, description, tool.input_schema),
            limits.allow_list is None or tool.name in limits.allow_list,
            tool.description,
        )

    return views


def _own_name(names: Sequence[str], real: Collection[str]) -> str:
    """Return the first of the possible names that a tool of the server really has, else the
    last."""
    return next((name for name in names if name in real), names[-1])
