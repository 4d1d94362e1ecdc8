"""Servers as cards of the grid, for one viewer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, ServerFacts
from portal.domain.principals import Principal
from portal.domain.servers import AuthType
from portal.services.servers import config_refusals, queries, tool_snapshots
from portal.services.servers.config_refusals import RefusedEntry
from portal.services.servers.views import HealthView, view_health
from portal.store.models import Server


@dataclass(frozen=True)
class ServerCard:
    """A server on the grid, as the viewer may see it."""

    server_id: str
    name: str
    alias: str | None
    description: str | None
    transport: str
    transport_label: str
    auth_label: str
    logo_url: str | None
    internet: bool
    listed: bool
    from_config: bool
    open_to_all: bool
    access_groups: tuple[str, ...]
    health: HealthView
    missing: tuple[str, ...]
    byok: str
    sign_in: str
    """`connect`, `expired`, `more_rights` or `connected`; "" if the viewer needs no sign-in."""
    flow_unset: bool
    approval_status: str
    address: str | None
    command: str | None
    usable: bool
    version: int
    actions: frozenset[Action]
    tool_changes: int = 0
    """The number of changed tool definitions waiting for an Admin; only with admin view."""
    refused: RefusedEntry | None = None
    """The config file entry that the last start refused, if any; only with admin view."""

    @property
    def needs_me(self) -> bool:
        """Whether the server needs something from the viewer."""
        return bool(self.missing) or self.byok == "connect" or self.sign_in not in ("", "connected")


def cards_of(
    session: Session, principal: Principal, rows: Sequence[Server]
) -> tuple[ServerCard, ...]:
    """Build the cards of `rows`.

    Runs four more queries, five with admin view, and one more for servers of the config file.
    """
    groups = queries.groups_of(session, rows)
    held = queries.keys_held(session, principal, rows)
    ids = [row.server_id for row in rows]
    required = queries.required_of(session, principal, ids)
    changes = tool_snapshots.count_changes(session, ids) if authz.has_admin_view(principal) else {}
    sign_ins = queries.sign_ins(session, principal, rows)
    refused = _refused(session, rows) if authz.has_admin_view(principal) else {}
    cards = []
    for row in rows:
        facts = ServerFacts(
            row, frozenset(group.access_group_id for group in groups[row.server_id])
        )
        variables = required.get(row.server_id, ())
        cards.append(
            _card(
                principal,
                facts,
                tuple(group.name for group in groups[row.server_id]),
                tuple(variable.name for variable in variables if not variable.is_set),
                row.server_id in held,
                changes.get(row.server_id, 0),
                sign_ins.get(row.server_id, ""),
                refused.get(row.server_id),
            )
        )
    return tuple(cards)


def _refused(session: Session, rows: Sequence[Server]) -> Mapping[str, RefusedEntry]:
    if not any(row.origin == "config" for row in rows):
        return {}
    return {entry.server_id: entry for entry in config_refusals.kept(session) if entry.server_id}


def _card(
    principal: Principal,
    server: ServerFacts,
    groups: tuple[str, ...],
    missing: tuple[str, ...],
    has_key: bool,
    changes: int,
    sign_in: str,
    refused: RefusedEntry | None,
) -> ServerCard:
    row = server.row
    actions = authz.allowed_actions(principal, server)
    usable = Action.SERVER_USE in actions
    inspects = Action.SERVER_INSPECT in actions
    auth = AuthType(row.auth_type) if row.auth_type else AuthType.NONE
    logo = (row.mcp_info or {}).get("logo_url")
    is_openapi = row.has_spec and row.transport != "stdio"
    byok = "connected" if has_key else "connect"
    is_flow_unset = (
        auth is AuthType.OAUTH2 and not row.oauth2_flow and not row.delegate_auth_to_upstream
    )
    return ServerCard(
        server_id=row.server_id,
        name=row.server_name or row.alias or row.server_id,
        alias=row.alias if row.alias != row.server_name else None,
        description=row.description,
        transport=row.transport,
        transport_label="OPENAPI" if is_openapi else row.transport.upper(),
        auth_label=auth.label,
        # Pages load nothing from other hosts, so only the portal's own images are shown.
        logo_url=logo if isinstance(logo, str) and logo.startswith("/static/") else None,
        internet=row.available_on_public_internet,
        listed=row.is_public,
        from_config=row.origin == "config",
        open_to_all=row.allow_all_keys,
        access_groups=groups,
        health=view_health(principal, row),
        missing=missing if usable or principal.view_all else (),
        byok=byok if row.is_byok and usable else "",
        sign_in=sign_in if usable else "",
        flow_unset=inspects and is_flow_unset,
        approval_status=row.approval_status,
        address=row.address if inspects else None,
        command=row.command if inspects else None,
        usable=usable,
        version=row.version,
        actions=actions,
        tool_changes=changes if inspects else 0,
        refused=refused if inspects and row.origin == "config" else None,
    )
