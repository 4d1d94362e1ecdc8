"""What the form for a new server begins with where it is opened from a picker: `?from=discover:github`.

The address names an entry and nothing else. What is filled in comes from our own lists, so that no link can put an
address of somebody's choosing before an Admin.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import g

from portal.domain.servers import AuthType, OAuthFlow, Transport
from portal.services import catalog


@dataclass(frozen=True)
class Prefill:
    """The first values of a `ServerForm`, by its field names; all of them public. `todo` is what remains to be done."""

    title: str
    values: Mapping[str, Any]
    todo: tuple[str, ...] = ()


def prefill(kind: str, name: str) -> Prefill | None:
    """The values for the entry `name` of the picker `kind`; None where there is no such entry or picker."""
    find = _PICKERS.get(kind)
    return find(name) if find else None


def prefill_from(source: str) -> Prefill | None:
    """The same for the text of `?from=`: the picker, a colon, the entry."""
    kind, _, name = source.partition(":")
    return prefill(kind, name)


def _from_discover(name: str) -> Prefill | None:
    entry = catalog.get_entry(g.session, g.principal, name)
    if entry is None:
        return None
    values: dict[str, Any] = {"server_name": entry.name, "description": entry.description}
    blocked = catalog.why_not(g.session, g.principal, entry)
    if blocked:
        return Prefill(entry.title, values, (blocked,))
    values["transport"] = entry.transport.value
    if entry.transport is Transport.STDIO:
        values |= {"command": entry.command, "args": "\n".join(entry.args)}
        values["env"] = [{"name": needed.name} for needed in entry.env_vars]
    else:
        values |= {"url": entry.url, "auth_type": entry.auth_type.value}
    if entry.auth_type is AuthType.OAUTH2:
        values["oauth2_flow"] = OAuthFlow.AUTHORIZATION_CODE.value
    needs = tuple(f"{needed.name}: {needed.description}." for needed in entry.env_vars)
    return Prefill(entry.title, values, (*needs, *([entry.note] if entry.note else ())))


_PICKERS: dict[str, Callable[[str], Prefill | None]] = {"discover": _from_discover}
