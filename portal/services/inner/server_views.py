"""What leaves the service floor of a server: the object of the wire format, field by field as the viewer may see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Show
from portal.domain.principals import Principal
from portal.domain.upstream import HealthReason
from portal.domain.variables import Scope
from portal.services.inner import loading
from portal.services.inner.definitions import Definition, opened
from portal.services.inner.house import house_of
from portal.store.models import Server

MASK = "••••••"


@dataclass(frozen=True)
class ServerView:
    """A server as the API answers it (`1-system.md`, 3 and 5); emptied fields keep their type."""

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
    HealthReason.DNS: "The server’s name was not found.",
    HealthReason.TLS: "No secure connection to the server could be made.",
    HealthReason.TIMEOUT: "The server did not answer in time.",
    HealthReason.NOT_MCP: "What answered is not an MCP server.",
    HealthReason.HTTP_STATUS: "The server answered with an error.",
    HealthReason.SIGN_IN_NEEDED: "The server asks for a sign-in.",
    HealthReason.PER_USER_VALUE: "The server needs each person’s own values.",
    HealthReason.NEVER_CHECKED: "The server was not checked yet.",
    HealthReason.DISABLED: "The server is switched off here.",
    HealthReason.BLOCKED: "The server’s address may not be reached from here.",
}
"""What a health reason means, for those who may not learn the host."""

_COLUMNS = (
    "server_id", "server_name", "alias", "description", "instructions", "transport", "auth_type", "command",
    "tool_name_to_display_name", "tool_name_to_description", "oauth2_flow", "token_validation", "allow_all_keys",
    "available_on_public_internet", "delegate_auth_to_upstream", "oauth_passthrough", "is_byok",
    "byok_api_key_help_url", "source_url", "timeout", "approval_status", "submitted_by", "submitted_at", "reviewed_by",
    "reviewed_at", "review_notes", "created_at", "created_by", "updated_at", "updated_by", "version",
)  # fmt: skip
_RENAMED = {
    "status": "health_status", "health_check_reason": "health_reason", "last_health_check": "health_checked_at",
    "health_check_error": "health_error",
}  # fmt: skip
_TUPLES = ("allowed_tools", "extra_headers", "byok_description")
_URLS = ("url", "spec_path", "authorization_url", "token_url", "registration_url")


def view_servers(
    session: Session, principal: Principal, rows: list[Server], *, masked: bool = False
) -> list[ServerView]:
    """The views of `rows`, loaded with their parts where `loading.shows_parts`; `masked` opens nothing, for pages."""
    groups, teams = loading.groups_of(session, rows), loading.teams_of(session, rows)
    held, shown = loading.keys_held(session, principal, rows), _shown(principal)
    parts = loading.shows_parts(principal)
    verbatim = loading.reads_verbatim(principal) and not masked
    return [
        _view(
            row, groups[row.server_id], teams[row.server_id], row.server_id in held,
            _parts(session, row, verbatim=verbatim) if parts else {}, shown,
        )
        for row in rows
    ]  # fmt: skip


def _shown(principal: Principal) -> dict[str, Show]:
    """How each field is shown to the viewer; a field that is not here is not."""
    shown = {name: authz.shown(principal, name) for name in ServerView.__dataclass_fields__}
    return {name: show for name, show in shown.items() if show is not None}


def view_server(session: Session, principal: Principal, row: Server, *, masked: bool = False) -> ServerView:
    """The view of one server."""
    return view_servers(session, principal, [row], masked=masked)[0]


def _view(
    row: Server, groups: tuple[loading.GroupRef, ...], teams: list[dict[str, str]], has_key: bool,
    parts: dict[str, Any], shown: Mapping[str, Show],
) -> ServerView:  # fmt: skip
    known: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    known |= {name: getattr(row, column) for name, column in _RENAMED.items()}
    known |= {name: tuple(getattr(row, name)) for name in _TUPLES}
    known |= {"mcp_access_groups": tuple(group.name for group in groups), "teams": tuple(teams)}
    known |= {"mcp_info": mcp_info(row), "has_user_credential": has_key if row.is_byok else None}
    known |= parts
    if shown.get("mcp_info") is Show.ONLY_IS_PUBLIC:
        known["mcp_info"] = {"is_public": True} if row.is_public else None
    if shown.get("health_check_error") is Show.KIND_OF_FAULT and row.health_error:
        known["health_check_error"] = KIND_OF_FAULT[HealthReason(row.health_reason)]
    return ServerView(**{name: value for name, value in known.items() if name in shown})


def mcp_info(row: Server) -> dict[str, Any] | None:
    """`mcp_info` with `is_public` as it is now."""
    if row.is_public:
        return {**(row.mcp_info or {}), "is_public": True}
    return {**row.mcp_info, "is_public": False} if row.mcp_info is not None else None


def _parts(session: Session, row: Server, *, verbatim: bool) -> dict[str, Any]:
    hidden = house_of(session).write_only_globals
    definition = opened(session, row) if verbatim and not hidden else Definition()
    parts: dict[str, Any] = {"static_headers": {}, "env": {}}
    for secret in row.secrets:
        if secret.field in _URLS:
            parts[secret.field] = ("" if hidden else definition.urls.get(secret.field)) if verbatim else secret.hint
        elif secret.field in ("static_headers", "env"):
            source = definition.static_headers if secret.field == "static_headers" else definition.env
            parts[secret.field][secret.name] = source.get(secret.name, "") if verbatim else MASK
    parts["args"] = tuple(definition.args)
    parts["env_vars"] = tuple(_variable(v, definition, verbatim, hidden) for v in row.variables)
    return parts


def _variable(variable: Any, definition: Definition, verbatim: bool, hidden: bool) -> dict[str, Any]:
    is_global = variable.scope == Scope.GLOBAL
    value = definition.globals.get(variable.name, "") if is_global and verbatim else "" if is_global else None
    entry = {
        "name": variable.name, "value": value, "scope": variable.scope, "description": variable.description,
    }  # fmt: skip
    if is_global and (hidden or not verbatim):
        entry["is_set"] = variable.sealed is not None
    return entry
