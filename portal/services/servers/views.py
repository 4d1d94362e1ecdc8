"""The server object of the wire format, field by field as the viewer may see it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Row
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Show
from portal.domain.destinations import Route
from portal.domain.principals import Principal
from portal.domain.upstream import HealthReason, HealthStatus
from portal.domain.variables import Scope
from portal.services.runtime import Runtime, runtime_of
from portal.services.secrets.server_definition import global_of, origins_in, route_from, value_of
from portal.services.secrets.token_store import needs_a_person
from portal.services.servers import queries
from portal.store.models import Server, ServerVariable, User

MASK = "••••••"
_LABELS = {
    HealthReason.SIGN_IN_NEEDED: ("Sign-in needed", "warn"),
    HealthReason.PER_USER_VALUE: ("Needs user values", ""),
    HealthReason.NEVER_CHECKED: ("Never checked", ""),
    HealthReason.DISABLED: ("Disabled", ""),
}
_PER_PERSON = ("Needs user sign-in", "")


@dataclass(frozen=True)
class HealthView:
    """The last health check of a server, for display; times in UTC, latency in milliseconds."""

    status: str
    reason: str
    label: str
    tone: str
    message: str | None
    checked_at: datetime | None
    latency_ms: int | None
    protocol_version: str | None


@dataclass(frozen=True)
class ServerView:
    """A server as the API returns it; emptied fields keep their type."""

    server_id: str
    transport: str
    server_name: str | None = None
    alias: str | None = None
    description: str | None = None
    instructions: str | None = None
    url: str | None = None
    spec_path: str | None = None
    auth_type: str | None = None
    credentials: None = None
    mcp_info: Mapping[str, Any] | None = None
    mcp_access_groups: tuple[str, ...] = ()
    teams: tuple[Mapping[str, str], ...] = ()
    allowed_tools: tuple[str, ...] = ()
    tool_name_to_display_name: Mapping[str, str] | None = None
    tool_name_to_description: Mapping[str, str] | None = None
    extra_headers: tuple[str, ...] = ()
    static_headers: Mapping[str, str] | None = None
    env_vars: tuple[Mapping[str, Any], ...] | None = None
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    authorization_url: str | None = None
    token_url: str | None = None
    registration_url: str | None = None
    origins: Mapping[str, str] | None = None
    oauth2_flow: str | None = None
    token_validation: Mapping[str, Any] | None = None
    allow_all_keys: bool = False
    available_on_public_internet: bool = True
    delegate_auth_to_upstream: bool = False
    oauth_passthrough: bool = False
    is_byok: bool = False
    byok_description: tuple[str, ...] = ()
    byok_api_key_help_url: str | None = None
    has_user_credential: bool | None = None
    source_url: str | None = None
    timeout: float | None = None
    status: str | None = None
    health_check_reason: str | None = None
    last_health_check: datetime | None = None
    health_check_error: str | None = None
    approval_status: str | None = None
    submitted_by: str | None = None
    submitted_at: datetime | None = None
    reviewed_by: str | None = None
    reviewed_at: datetime | None = None
    review_notes: str | None = None
    created_at: datetime | None = None
    created_by: str | None = None
    updated_at: datetime | None = None
    updated_by: str | None = None
    version: int | None = None


KIND_OF_FAULT = {
    HealthReason.OK: "The server answered.",
    HealthReason.REFUSED: "The server refused the connection.",
    HealthReason.DNS: "The server’s host name could not be resolved.",
    HealthReason.TLS: "The TLS connection to the server failed.",
    HealthReason.TIMEOUT: "The server did not answer in time.",
    HealthReason.NOT_MCP: "The response did not come from an MCP server.",
    HealthReason.HTTP_STATUS: "The server returned an error.",
    HealthReason.SIGN_IN_NEEDED: "The server requires a sign-in.",
    HealthReason.PER_USER_VALUE: "The server needs each user’s own values.",
    HealthReason.NEVER_CHECKED: "The server has not been checked yet.",
    HealthReason.DISABLED: "The server is disabled on this portal.",
    HealthReason.BLOCKED: "The portal is not allowed to connect to the server’s address.",
}
"""The meaning of each health reason, for viewers who may not learn the host."""

_PLAIN = (
    "server_id",
    "server_name",
    "alias",
    "description",
    "instructions",
    "transport",
    "auth_type",
    "command",
    "tool_name_to_display_name",
    "tool_name_to_description",
    "oauth2_flow",
    "token_validation",
    "allow_all_keys",
    "available_on_public_internet",
    "delegate_auth_to_upstream",
    "oauth_passthrough",
    "is_byok",
    "byok_api_key_help_url",
    "source_url",
    "timeout",
    "approval_status",
    "submitted_by",
    "submitted_at",
    "reviewed_by",
    "reviewed_at",
    "review_notes",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
    "version",
    "mcp_info",
    "allowed_tools",
    "extra_headers",
    "byok_description",
)
_COLUMNS = {
    **{name: name for name in _PLAIN},
    "status": "health_status",
    "health_check_reason": "health_reason",
    "last_health_check": "health_checked_at",
    "health_check_error": "health_error",
}
"""The database column of each field that has one."""
_BESIDE = (
    Server.sort_key,
    Server.incarnation,
    Server.address,
    Server.is_public,
    Server.health_reason,
)
_URLS = ("url", "spec_path", "authorization_url", "token_url", "registration_url")
_SEALED = (*_URLS, "args", "static_headers", "env")
_NOTHING: dict[str, Any] = {
    found.name: found.default_factory() if found.default_factory is not MISSING else found.default
    for found in fields(ServerView)
}


def view_servers(
    session: Session, principal: Principal, rows: list[Server], *, masked: bool = False
) -> list[ServerView]:
    """Return the views of `rows`, loaded with their parts if `queries.shows_parts`.

    `masked` opens no secret, for pages.
    """
    shown = shown_fields(principal)
    columns = [column for name, column in _COLUMNS.items() if name in shown]
    values = ([_frozen(getattr(row, column)) for column in columns] for row in rows)
    parts = (
        {row.server_id: (row.secrets, row.variables) for row in rows}
        if queries.shows_parts(principal)
        else None
    )
    return [
        ServerView(**found)
        for found in _objects(session, principal, shown, rows, values, parts, masked=masked)
    ]


def list_objects(
    session: Session, principal: Principal, rows: Sequence[Row[Any]]
) -> list[dict[str, Any]]:
    """Return rows of `columns_of` as wire format objects, without building views."""
    parts = queries.shown_parts(session, rows) if queries.shows_parts(principal) else None
    servers = cast(Sequence[Server], rows)
    return list(
        _objects(session, principal, shown_fields(principal), servers, rows, parts, masked=False)
    )


def shown_fields(principal: Principal) -> dict[str, Show]:
    """Return how each visible field is shown to the viewer."""
    shown = {name: authz.shown(principal, name) for name in _NOTHING}
    return {name: show for name, show in shown.items() if show is not None}


def columns_of(shown: Iterable[str]) -> list[ColumnElement[Any]]:
    """Return the columns that a list reads: those of the shown fields, and those they depend on."""
    return [
        *(getattr(Server, _COLUMNS[name]).label(name) for name in _COLUMNS if name in shown),
        *_BESIDE,
    ]


def view_server(
    session: Session, principal: Principal, row: Server, *, masked: bool = False
) -> ServerView:
    """Return the view of one server."""
    return view_servers(session, principal, [row], masked=masked)[0]


def _objects(
    session: Session,
    principal: Principal,
    shown: Mapping[str, Show],
    rows: Sequence[Server],
    values: Iterable[Iterable[Any]],
    parts: Mapping[str, queries.Parts] | None,
    *,
    masked: bool,
) -> Iterator[dict[str, Any]]:
    """Yield each server in the wire format, in the order of `ServerView`.

    `values` are the columns of each row, starting with those shown.
    """
    names = [name for name in _COLUMNS if name in shown]
    emptied = {name: value for name, value in _NOTHING.items() if name not in shown}
    groups = queries.groups_of(session, rows)
    teams = queries.teams_of(session, rows)
    held = queries.keys_held(session, principal, rows)
    runtime = runtime_of(session)
    verbatim = queries.reads_verbatim(principal) and not masked
    for row, columns in zip(rows, values, strict=True):
        server_id = row.server_id
        found = _NOTHING.copy()
        found.update(zip(names, columns, strict=False))
        found["mcp_access_groups"] = tuple([group.name for group in groups[server_id]])
        found["teams"] = tuple(teams[server_id])
        found["has_user_credential"] = server_id in held if row.is_byok else None
        found["mcp_info"] = _mcp_info(row, shown)
        if parts is not None:
            found |= _parts(runtime, row, parts[server_id], verbatim=verbatim)
        if shown.get("health_check_error") is Show.KIND_OF_FAULT and found["health_check_error"]:
            found["health_check_error"] = KIND_OF_FAULT[HealthReason(row.health_reason)]
        found |= emptied
        yield found


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _mcp_info(row: Server, shown: Mapping[str, Show]) -> dict[str, Any] | None:
    """Return `mcp_info` with the current `is_public`, or `is_public` alone."""
    if shown.get("mcp_info") is Show.ONLY_IS_PUBLIC:
        return {"is_public": True} if row.is_public else None
    if row.is_public:
        return {**(row.mcp_info or {}), "is_public": True}
    return {**row.mcp_info, "is_public": False} if row.mcp_info is not None else None


def _parts(
    runtime: Runtime, row: Server, parts: queries.Parts, *, verbatim: bool
) -> dict[str, Any]:
    secrets, variables = parts
    opens = verbatim and not runtime.write_only_globals
    route = route_from(runtime.vault, row, secrets) if opens else None
    found: dict[str, Any] = {"static_headers": {}, "env": {}, "args": ()}
    for secret in secrets:
        name = secret.field
        if name not in _SEALED:
            continue
        text = value_of(runtime.vault, row, secret, route) if route else None
        if name == "args":
            found[name] = tuple(json.loads(text or "[]"))
        elif name in _URLS:
            opened_url = text if opens else ""
            found[name] = opened_url if verbatim else secret.hint
        else:
            found[name][secret.name] = (text or "") if verbatim else MASK
    found["origins"] = origins_in(runtime.vault, row, secrets)
    found["env_vars"] = tuple([_variable(runtime, row, variable, route) for variable in variables])
    return found


def _variable(
    runtime: Runtime, row: Server, variable: ServerVariable, route: Route | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": variable.name,
        "value": None,
        "scope": variable.scope,
        "description": variable.description,
    }
    if variable.scope == Scope.GLOBAL:
        entry["value"] = (global_of(runtime.vault, row, variable, route) if route else None) or ""
        if route is None:
            entry["is_set"] = variable.sealed is not None
    return entry


def view_health(principal: Principal, row: Server) -> HealthView:
    """Return the stored health of a server; the message names the host only with admin view."""
    reason = HealthReason(row.health_reason)
    label, tone = ("Healthy", "ok") if row.health_status == "healthy" else ("Unhealthy", "bad")
    if row.health_status == HealthStatus.UNKNOWN:
        label, tone = _LABELS.get(reason, (label, tone))
        if reason is HealthReason.SIGN_IN_NEEDED and (row.is_byok or needs_a_person(row)):
            label, tone = _PER_PERSON  # another chip shows whether the viewer is signed in
    message = row.health_error if authz.has_admin_view(principal) else None
    return HealthView(
        row.health_status,
        row.health_reason,
        label,
        tone,
        message or KIND_OF_FAULT[reason],
        row.health_checked_at,
        row.health_latency_ms,
        row.protocol_version,
    )


def view_masked(session: Session, principal: Principal, row: Server) -> ServerView:
    """Return a server for a page, with its author's name and every secret masked.

    Secrets are masked even for Admins.
    """
    view = view_server(session, principal, row, masked=True)
    author = session.get(User, view.updated_by) if view.updated_by else None
    return replace(view, updated_by=author.display_name or author.email) if author else view
