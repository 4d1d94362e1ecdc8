"""Initial values of the form for a new server, as in `?from=discover:github`.

The URL only names an entry. Values come from the portal's own lists, so that no link can put a URL
of an attacker's choice into an Admin's form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import g, request

from portal.domain.servers import AuthType, OAuthGrantType, Transport
from portal.services.catalog import discover, openapi


@dataclass(frozen=True)
class Prefill:
    """The initial values of a `ServerForm`, by field name. None of them is secret.

    `todo` lists the remaining steps.
    """

    title: str
    values: Mapping[str, Any]
    todo: tuple[str, ...] = ()


def prefill(kind: str, name: str) -> Prefill | None:
    """Return the values for the entry `name` of the picker `kind`, or None if there is none."""
    find = _PICKERS.get(kind)
    return find(name) if find else None


def prefill_from(source: str) -> Prefill | None:
    """Return the values for `?from=`, in the format `picker:entry`, or None."""
    kind, _, name = source.partition(":")
    return prefill(kind, name)


def _from_discover(name: str) -> Prefill | None:
    entry = discover.get_entry(g.session, g.principal, name)
    if entry is None:
        return None
    values: dict[str, Any] = {"server_name": entry.name, "description": entry.description}
    blocked = discover.why_not(g.session, g.principal, entry)
    if blocked:
        return Prefill(entry.title, values, (blocked,))
    values["transport"] = entry.transport.value
    if entry.transport is Transport.STDIO:
        values |= {"command": entry.command, "args": "\n".join(entry.args)}
        values["env"] = [{"name": needed.name} for needed in entry.env_vars]
    else:
        values |= {"url": entry.url, "auth_type": entry.auth_type.value}
    if entry.auth_type is AuthType.OAUTH2:
        values["oauth2_flow"] = OAuthGrantType.AUTHORIZATION_CODE.value
    needs = tuple(f"{needed.name}: {needed.description}." for needed in entry.env_vars)
    return Prefill(entry.title, values, (*needs, *([entry.note] if entry.note else ())))


def _from_openapi(name: str) -> Prefill | None:
    entry = openapi.get_api(g.session, g.principal, name)
    if entry is None:
        return None
    values: dict[str, Any] = {
        "server_name": entry.name,
        "description": entry.description,
        "transport": "openapi",
        "spec_path": entry.spec_url,
        "base_url": entry.base_url or "",
        "auth_type": entry.auth_type.value,
    }
    todo = [entry.note] if entry.note else []
    if entry.oauth:
        values |= {
            "oauth2_flow": OAuthGrantType.AUTHORIZATION_CODE.value,
            "authorization_url": entry.oauth.authorization_url,
            "token_url": entry.oauth.token_url,
            "scopes": "\n".join(entry.oauth.scopes),
        }
        todo.append(
            f"Register an OAuth app with {entry.title} and enter its client ID:"
            f" {entry.oauth.docs_url}"
        )
    return Prefill(entry.title, values, tuple(todo))


def prefill_from_preview() -> Prefill | None:
    """Return the values sent by the preview of a document, or None for other requests.

    They arrive by POST with a CSRF token, so that no link can fill in the form.
    """
    if request.form.get("add") != "openapi":
        return None
    values = {name: request.form[name] for name in _OF_PREVIEW if name in request.form}
    header = request.form.get("headers-0-name", "")
    todo = ("Check the base URL. Credentials are sent only to this URL.",)
    return Prefill(
        request.form.get("title", "")[:200],
        values,
        (*todo, f"Enter the API key as the header {header[:128]}.") if header else todo,
    )


_OF_PREVIEW = ("spec_path", "base_url", "authorization_url", "token_url", "scopes")
_PICKERS: dict[str, Callable[[str], Prefill | None]] = {
    "discover": _from_discover,
    "openapi": _from_openapi,
}
