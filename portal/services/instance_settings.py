"""Instance settings that an Admin changes while the portal runs."""

import difflib
import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.addresses import Appearance, Arrival, client_address, in_ranges, is_internal
from portal.domain.errors import Conflict, InvalidInput
from portal.domain.principals import Principal
from portal.domain.redirects import is_trusted_entry
from portal.services import audit
from portal.store.database import read
from portal.store.models import Preference, Server

_NAME = "general_settings"
REQUIRABLE_FIELDS = (
    "description",
    "alias",
    "server_name",
    "source_url",
    "url",
    "spec_path",
    "auth_type",
    "instructions",
    "mcp_info",
    "allowed_tools",
    "tool_name_to_display_name",
    "tool_name_to_description",
    "extra_headers",
    "static_headers",
    "env_vars",
    "credentials",
    "authorization_url",
    "token_url",
    "registration_url",
    "oauth2_flow",
    "token_validation",
    "is_byok",
    "byok_description",
    "byok_api_key_help_url",
    "timeout",
    "command",
    "args",
    "env",
    "transport",
    "mcp_access_groups",
)
"""The fields that a submission can be required to fill in."""


@dataclass(frozen=True)
class Preferences:
    """The instance settings, with their defaults."""

    user_mcp_management_mode: str = "restricted"
    mcp_required_fields: tuple[str, ...] = ()
    enable_mcp_registry: bool = False
    mcp_internal_ip_ranges: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    trusted_redirect_origins: tuple[str, ...] = ()
    key_max_age_days: int | None = None
    """The maximum lifetime of an API key in days; None for no limit."""


MOST_KEY_AGE_DAYS = 3_650
_MAY_BE_NOTHING = frozenset({"key_max_age_days"})
STORED = select(Preference.value).where(Preference.name == _NAME)
_KNOWN = frozenset(field.name for field in fields(Preferences))


def load_preferences(session: Session) -> Preferences:
    """Return the current settings.

    Checks no permission: every decision depends on the settings, and none of them is secret.
    """
    return preferences_of(read(session, STORED).scalar())


def preferences_of(stored: Mapping[str, Any] | None) -> Preferences:
    """Build the settings from the value that `STORED` selects."""
    given = (stored or {}).items()
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in given if k in _KNOWN
    }
    return Preferences(**values)


def get_preferences(session: Session, principal: Principal) -> dict[str, object]:
    """Return the settings, with the ids of the publicly listed servers."""
    authz.require(principal, Action.PREFERENCE_READ)
    public = session.scalars(
        select(Server.server_id).where(Server.is_public).order_by(Server.server_id)
    )
    return {**asdict(load_preferences(session)), "public_mcp_servers": list(public)}


def update_preferences(
    session: Session,
    principal: Principal,
    changes: Mapping[str, object],
    *,
    arrival: Arrival | None = None,
    confirmed: bool = False,
    seen: str | None = None,
) -> dict[str, object]:
    """Change the given settings. Raises `InvalidInput` for an invalid value.

    `arrival` describes the caller's request. If the change would make the caller external, raises
    `Conflict` (`would_be_external`) unless `confirmed`. `seen` is the `settings_hash` of
    the settings that the caller edited; raises `Conflict` (`stale_version`) if they have changed
    since.
    """
    authz.require(principal, Action.PREFERENCE_MANAGE)
    _check(changes, any_name=principal.is_operator)
    before = load_preferences(session)
    if seen is not None and seen != settings_hash(before):
        raise Conflict(
            "Someone else changed the settings. Reload the page and try again.",
            code="stale_version",
        )
    after = _merged(before, changes)
    if arrival is not None and not confirmed:
        _refuse_to_shut_out(arrival, before, after)
    differences = audit.changed(asdict(before), asdict(after))
    if differences:
        row = session.get(Preference, _NAME) or Preference(name=_NAME, value={})
        row.value = {**row.value, **changes}
        session.add(row)
        audit.record(session, principal, "settings changed", "settings", None, changes=differences)
    session.flush()
    return get_preferences(session, principal)


def settings_hash(preferences: Preferences) -> str:
    """Return a short hash of the settings, to detect changes."""
    return hashlib.sha256(json.dumps(asdict(preferences), sort_keys=True).encode()).hexdigest()[:16]


def appearance(
    session: Session, principal: Principal, arrival: Arrival, changes: Mapping[str, object]
) -> tuple[Appearance, Appearance]:
    """Return how the portal sees the caller now, and how it would with `changes` applied."""
    authz.require(principal, Action.PREFERENCE_READ)
    stored = load_preferences(session)
    return _seen(arrival, stored), _seen(arrival, _merged(stored, changes))


def _merged(stored: Preferences, changes: Mapping[str, object]) -> Preferences:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    return replace(
        stored,
        **{
            name: value
            for name, value in values.items()
            if value is not None or name in _MAY_BE_NOTHING
        },
    )


def _seen(arrival: Arrival, settings: Preferences) -> Appearance:
    proxies = (*arrival.operator_proxies, *settings.trusted_proxies)
    address = client_address(arrival.peer, arrival.forwarded_for, proxies)
    via = arrival.peer if arrival.forwarded_for and in_ranges(arrival.peer, proxies) else None
    return Appearance(address, is_internal(address, settings.mcp_internal_ip_ranges), via)


def _refuse_to_shut_out(arrival: Arrival, before: Preferences, after: Preferences) -> None:
    then = _seen(arrival, after)
    if not _seen(arrival, before).is_internal or then.is_internal:
        return
    changed_ranges = before.mcp_internal_ip_ranges != after.mcp_internal_ip_ranges
    raise Conflict(
        f"After this change your own address ({then.address or 'unknown'}) would count as"
        " external, and you would no longer see internal servers. Confirm the change, or edit"
        " the ranges.",
        code="would_be_external",
        field="mcp_internal_ip_ranges" if changed_ranges else "trusted_proxies",
    )


def _check(changes: Mapping[str, object], *, any_name: bool) -> None:
    if changes.get("user_mcp_management_mode", "restricted") not in ("restricted", "view_all"):
        raise InvalidInput("Choose restricted or view_all.", field="user_mcp_management_mode")
    for field in ("mcp_internal_ip_ranges", "trusted_proxies"):
        ranges = changes.get(field) or ()
        for text in ranges if isinstance(ranges, list | tuple) else ():
            try:
                network = ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise InvalidInput(
                    "Enter ranges in CIDR notation, for example 10.0.0.0/8.", field=field
                ) from None
            if network.prefixlen == 0:
                raise InvalidInput("A range cannot include every address.", field=field)
    days = changes.get("key_max_age_days")
    if days is not None and (not isinstance(days, int) or not 1 <= days <= MOST_KEY_AGE_DAYS):
        raise InvalidInput(
            f"Enter a number of days from 1 to {MOST_KEY_AGE_DAYS}. Leave it empty for no limit.",
            field="key_max_age_days",
        )
    for origin in _listed(changes, "trusted_redirect_origins"):
        if not is_trusted_entry(origin):
            raise InvalidInput(
                "Enter app.example.com, app.example.com:8443, *.example.com, or the full address"
                " of a native app.",
                field="trusted_redirect_origins",
            )
    for name in () if any_name else _listed(changes, "mcp_required_fields"):
        if name not in REQUIRABLE_FIELDS:
            close = difflib.get_close_matches(name, REQUIRABLE_FIELDS, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise InvalidInput(
                f"Servers have no field called {name[:64]}.{hint}", field="mcp_required_fields"
            )


def _listed(changes: Mapping[str, object], name: str) -> list[str]:
    values = changes.get(name)
    return [str(value) for value in values] if isinstance(values, list | tuple) else []
