"""Completing a definition under test with what is stored of its server.

A stored secret is never sent to an address that was just entered: if the definition would move a
stored secret to another host, it must be entered again. `destinations.py` decides, as for saved
changes.
"""

from typing import Any

from sqlalchemy.orm import Session

from portal.domain.errors import InvalidRequest
from portal.domain.servers import KEPT, URL_FIELDS, ServerFields, Transport, check_values
from portal.domain.variables import Scope
from portal.services.secrets.server_definition import opened
from portal.services.servers import destinations
from portal.services.servers.changes import check_result, set_names
from portal.store.models import Server

_NO_SECRETS = frozenset({"scopes"})
_NOT_NAMED = (*URL_FIELDS, "static_headers", "env", "env_vars", "args")


def whole(
    session: Session, stored: Server | None, fields: ServerFields, *, as_change: bool
) -> dict[str, Any]:
    """Return `fields` with what is kept of `stored`, ready for JSON: no `KEPT` is left.

    `as_change`: the fields of a PUT, so that omitted ones are kept. Otherwise those of a POST,
    which inherits the stored credentials if it contains no secret. Raises `Conflict`
    (`credentials_would_move`) if a stored secret would be sent to another host.
    """
    if stored is None:
        return {name: _without_kept(value) for name, value in fields.items() if value is not KEPT}
    change: dict[str, Any] = dict(fields) if as_change else {**dict.fromkeys(_NOT_NAMED), **fields}
    sent = {n: v for n, v in (fields.get("credentials") or {}).items() if v is not KEPT}
    if not as_change and any(value for name, value in sent.items() if name not in _NO_SECRETS):
        change["credentials"] = {
            **dict.fromkeys(s.name for s in stored.secrets if s.field == "credentials"),
            **sent,
        }
    elif "credentials" in change:
        change["credentials"] = sent
    if not as_change and not change.get("auth_type"):
        change.pop("auth_type", None)
    row = destinations.tried(session, stored, ServerFields(**change))  # type: ignore[typeddict-item]
    return {**dict(fields), **_parts(session, row)}


def _parts(session: Session, row: Server) -> dict[str, Any]:
    """Return the parts of a definition under test as JSON."""
    found = opened(session, row, credentials=True)
    variables = [
        {
            "name": v.name,
            "scope": v.scope,
            "description": v.description,
            "value": found.globals.get(v.name) if v.scope == Scope.GLOBAL else None,
        }
        for v in row.variables
    ]
    parts: dict[str, Any] = {name: found.urls.get(name) for name in URL_FIELDS}
    parts |= {
        "static_headers": dict(found.static_headers),
        "env": dict(found.env),
        "env_vars": variables,
    }
    return {**parts, "args": list(found.args) or None, "credentials": dict(found.credentials)}


def _without_kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_kept(part) for name, part in value.items() if part is not KEPT}
    return [_without_kept(part) for part in value] if isinstance(value, list) else value


def checked(
    session: Session, server_id: str, fields: ServerFields, contents: dict[str, Any]
) -> dict[str, Any]:
    """Return a complete definition with normalized names, checked like one that is saved.

    Commands are refused: the portal runs none for a definition that is not saved.
    """
    check_values(fields)
    if fields.get("transport") is Transport.STDIO:
        raise InvalidRequest(
            "The portal runs a command only after it is saved.",
            code="stdio_not_allowed",
            field="transport",
        )
    row = Server(server_id=server_id)
    set_names(row, fields)
    check_result(session, row, ServerFields(**contents))  # type: ignore[typeddict-item]
    return {**contents, "server_name": row.server_name, "alias": row.alias}
