"""Instance settings that an Admin changes while the portal runs."""

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import InvalidInput
from portal.domain.principals import Principal
from portal.services import audit
from portal.store.models import Preference, Server

_NAME = "general_settings"


@dataclass(frozen=True)
class Preferences:
    """The settings with their defaults."""

    user_mcp_management_mode: str = "restricted"
    mcp_required_fields: tuple[str, ...] = ()
    enable_mcp_registry: bool = False
    mcp_internal_ip_ranges: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    trusted_redirect_origins: tuple[str, ...] = ()


def load_preferences(session: Session) -> Preferences:
    """The settings as they are now. Asks nobody: every decision depends on them, none of them is secret."""
    stored: dict[str, Any] = session.scalar(select(Preference.value).where(Preference.name == _NAME)) or {}
    known = {field.name for field in fields(Preferences)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in known}
    return Preferences(**values)


def get_preferences(session: Session, principal: Principal) -> dict[str, object]:
    """The settings, and the ids of the servers that are listed publicly."""
    authz.require(principal, Action.PREFERENCE_READ)
    public = session.scalars(select(Server.server_id).where(Server.is_public).order_by(Server.server_id))
    return {**asdict(load_preferences(session)), "public_mcp_servers": list(public)}


def update_preferences(session: Session, principal: Principal, changes: Mapping[str, object]) -> dict[str, object]:
    """Change the settings that are named. Raises `InvalidInput` for a value that a setting cannot have."""
    authz.require(principal, Action.PREFERENCE_MANAGE)
    _check(changes)
    row = session.get(Preference, _NAME) or Preference(name=_NAME, value={})
    row.value = {**row.value, **changes}
    session.add(row)
    audit.record(session, principal, "settings changed", "settings", None, changed=sorted(changes))
    session.flush()
    return get_preferences(session, principal)


def _check(changes: Mapping[str, object]) -> None:
    if changes.get("user_mcp_management_mode", "restricted") not in ("restricted", "view_all"):
        raise InvalidInput("Choose restricted or view_all.", field="user_mcp_management_mode")
    for field in ("mcp_internal_ip_ranges", "trusted_proxies"):
        ranges = changes.get(field) or ()
        for text in ranges if isinstance(ranges, list | tuple) else ():
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise InvalidInput("Write ranges as 10.0.0.0/8.", field=field) from None
