"""A definition under test made whole with what is stored of the server that it is about.

A stored secret is never combined with an address that was just typed: where the definition would
lead a stored secret elsewhere, the secret has to be sent again. `destinations.py` decides, as for a
change that is saved.
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
    """`fields` with what is kept of `stored`, ready to be written as JSON: no `KEPT` is left in it.

    `as_change`: they are those of a PUT, so that what is not named stays. Without it they are those of a POST, which
    inherits the stored credentials where it brings no secret. Raises `Conflict` (`credentials_would_move`) where a
    stored secret would go elsewhere.
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
    """The parts of a definition that is tried out, as JSON; what it has none of is left out."""
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
    """A whole definition, held to the rules of one that is saved, with its names as they would be
    stored.

    A command is refused: it is never started for something that nobody saved.
    """
    check_values(fields)
    if fields.get("transport") is Transport.STDIO:
        raise InvalidRequest(
            "A command is not started before it is saved.",
            code="stdio_not_allowed",
            field="transport",
        )
    row = Server(server_id=server_id)
    set_names(row, fields)
    check_result(session, row, ServerFields(**contents))  # type: ignore[typeddict-item]
    return {**contents, "server_name": row.server_name, "alias": row.alias}
