"""A server's definition as rows, with each secret sealed separately.

To keep a secret, its row is left alone. This module decides nothing, and only `destinations.py`
writes with it: that module settles secrets whose destination a change moves. Secrets are unsealed
in `opened()`, for sending upstream, and in `servers/views.py`, for what an Admin may read.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from portal.domain.destinations import Route
from portal.domain.servers import (
    CREDENTIAL_NAMES,
    KEPT,
    URL_FIELDS,
    ServerFields,
    Transport,
    origin_of,
)
from portal.domain.variables import Scope, Variable, references, required_variables
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.services.secrets.bindings import hint
from portal.store.models import AccessGroup, AccessGroupServer, Server, ServerSecret, ServerVariable
from portal.store.vault import Vault

_PLAIN = (
    "description",
    "instructions",
    "command",
    "oauth2_flow",
    "mcp_info",
    "tool_name_to_display_name",
    "tool_name_to_description",
    "token_validation",
    "byok_api_key_help_url",
    "source_url",
    "timeout",
    "auth_type",
)
_LISTS = ("allowed_tools", "extra_headers", "byok_description")
_FLAGS = {
    "allow_all_keys": False,
    "available_on_public_internet": True,
    "delegate_auth_to_upstream": False,
    "oauth_passthrough": False,
    "is_byok": False,
}


@dataclass(frozen=True)
class Definition:
    """The unsealed secrets of a server. Never shown, logged or stored; excluded from its `repr`."""

    urls: Mapping[str, str] = field(default_factory=dict, repr=False)
    args: Sequence[str] = field(default=(), repr=False)
    static_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: Mapping[str, object] = field(default_factory=dict, repr=False)
    globals: Mapping[str, str] = field(default_factory=dict, repr=False)


def route_of(session: Session, row: Server) -> Route:
    """Return where a server's definition leads."""
    return route_from(runtime_of(session).vault, row, row.secrets)


def route_from(
    vault: Vault, row: Server, secrets: Iterable[ServerSecret], *, args: Sequence[str] | None = None
) -> Route:
    """Return the route from separately loaded parts.

    Unseals the exchange endpoint and, if not given, `args`.
    """
    known = {(secret.field, secret.name): secret for secret in secrets}
    hints = {name: known[name, ""].hint for name in URL_FIELDS if (name, "") in known}
    typed_args = known.get(("args", ""))
    endpoint = known.get(("credentials", "token_exchange_endpoint"))
    alone = Route(command=row.command)  # the places of these two depend on nothing else
    typed = value_of(vault, row, endpoint, alone) if endpoint is not None else None
    if args is None:
        line = None
        if typed_args is not None and row.command:
            line = value_of(vault, row, typed_args, alone)
        args = json.loads(line or "[]")
    return Route(
        transport=row.transport,
        address=row.address,
        command=row.command,
        args=args,
        authorization_url=hints.get("authorization_url"),
        token_url=hints.get("token_url"),
        registration_url=hints.get("registration_url"),
        exchange=origin_of(str(json.loads(typed))) if typed else None,
    )


def origins_in(vault: Vault, row: Server, secrets: Iterable[ServerSecret]) -> dict[str, str]:
    """Return the origin of each address in a definition; unlike paths, origins are not secret."""
    parts = list(secrets)
    hints = {s.field: s.hint for s in parts}
    found = {name: origin for name in URL_FIELDS if (origin := hints.get(name))}
    if any((s.field, s.name) == ("credentials", "token_exchange_endpoint") for s in parts):
        exchange = route_from(vault, row, parts, args=()).exchange
        return found | ({"token_exchange_endpoint": exchange} if exchange else {})
    return found


def value_of(vault: Vault, row: Server, secret: ServerSecret, route: Route) -> str | None:
    """Return a value in plain text; None if it is unreadable, as after the server's host changed.

    A value of an older version is not bound yet, and is opened as it was sealed.
    """
    if secret.bound is not None:
        return vault.open(
            secret.bound, bindings.of_bound_secret(row, secret.field, secret.name, route)
        )
    return vault.open(secret.sealed, bindings.of_secret(row, secret.field, secret.name))


def global_of(vault: Vault, row: Server, variable: ServerVariable, route: Route) -> str | None:
    """Return a global variable's value in plain text; None if it has none."""
    if variable.bound is not None:
        return vault.open(variable.bound, bindings.of_bound_global(row, variable.name, route))
    return vault.open(variable.sealed, bindings.of_global(row, variable.name))


def opened(session: Session, row: Server, *, credentials: bool = False) -> Definition:
    """Return the definition in plain text; credentials only if requested, to send upstream."""
    parts: dict[str, dict[str, str]] = {"static_headers": {}, "env": {}, "credentials": {}}
    single: dict[str, str] = {}
    vault = runtime_of(session).vault
    route = route_of(session, row)
    for secret in row.secrets:
        if secret.field == "credentials" and not credentials:
            continue
        text = value_of(vault, row, secret, route)
        if text is None:
            continue
        if secret.field in parts:
            parts[secret.field][secret.name] = text
        else:
            single[secret.field] = text
    values = {
        variable.name: global_of(vault, row, variable, route)
        for variable in row.variables
        if variable.scope == Scope.GLOBAL and variable.sealed is not None
    }
    return Definition(
        urls={name: single[name] for name in URL_FIELDS if name in single},
        args=json.loads(single.get("args", "[]")),
        static_headers=parts["static_headers"],
        env=parts["env"],
        credentials={name: json.loads(text) for name, text in parts["credentials"].items()},
        globals={name: value for name, value in values.items() if value},
    )


def write_parts(session: Session, row: Server, fields: ServerFields) -> None:
    """Write the given fields to the row and its parts; `None` clears, omitted fields are kept.

    Only for `destinations.py`: kept values are still bound to the old destination, and new ones to
    none yet.
    """
    for name in _PLAIN:
        if name in fields:
            setattr(row, name, fields[name] or None)  # type: ignore[literal-required]
    for name in _LISTS:
        if name in fields:
            setattr(row, name, list(fields[name] or ()))  # type: ignore[literal-required]
    for name, default in _FLAGS.items():
        if name in fields:
            value = fields[name]  # type: ignore[literal-required]
            setattr(row, name, default if value is None else value)
    if "transport" in fields or not row.transport:
        row.transport = (fields.get("transport") or Transport.SSE).value
    _write_secrets(session, row, fields)
    if "env_vars" in fields:
        _write_variables(session, row, fields)
    if "mcp_access_groups" in fields:
        _write_groups(session, row, fields["mcp_access_groups"] or ())
    mark_required(row)


def clear_credentials(row: Server) -> None:
    """Delete all stored credentials of a server."""
    row.secrets = [secret for secret in row.secrets if secret.field != "credentials"]


def has_part(row: Server, field_name: str) -> bool:
    """Return whether anything is stored for a field."""
    return any(secret.field == field_name for secret in row.secrets)


def _write_secrets(session: Session, row: Server, fields: ServerFields) -> None:
    for name in URL_FIELDS:
        if name in fields:
            value = fields[name]  # type: ignore[literal-required]
            if value is not KEPT:
                _replace(session, row, name, {"": value} if value else {}, hints=True)
    if "url" in fields or "spec_path" in fields:
        row.has_spec = has_part(row, "spec_path")
        row.address = hint(row, "url") or hint(row, "spec_path")
    if "args" in fields:
        args = fields["args"]
        _replace(session, row, "args", {"": json.dumps(args)} if args is not None else {})
    if "static_headers" in fields:
        _replace(session, row, "static_headers", fields["static_headers"] or {})
    if "env" in fields:
        _replace(session, row, "env", fields["env"] or {})
    if "credentials" in fields:
        _merge_credentials(session, row, fields["credentials"])


def _merge_credentials(
    session: Session, row: Server, credentials: Mapping[str, object] | None
) -> None:
    if credentials is None:
        clear_credentials(row)
        return
    for name, value in credentials.items():
        if name not in CREDENTIAL_NAMES or value == "" or value is KEPT:
            continue
        _drop(row, "credentials", name)
        if value is not None:
            session.flush()
            _put(session, row, "credentials", name, json.dumps(value))


def _replace(
    session: Session,
    row: Server,
    field_name: str,
    values: Mapping[str, str],
    *,
    hints: bool = False,
) -> None:
    """Replace all values of a field; kept values leave their rows unchanged."""
    write_only = runtime_of(session).write_only_globals
    stored = {secret.name: secret for secret in row.secrets if secret.field == field_name}
    kept = {
        name
        for name, value in values.items()
        if value is KEPT or (write_only and value == "" and name in stored)
    }
    row.secrets = [s for s in row.secrets if s.field != field_name or s.name in kept]
    session.flush()
    for position, (name, value) in enumerate(values.items()):
        if name not in kept:
            _put(
                session,
                row,
                field_name,
                name,
                value,
                position=position,
                hint_text=origin_of(value) if hints else None,
                refers_to=references(value) if field_name == "static_headers" else (),
            )
        elif name in stored:
            stored[name].position = position


def _put(
    session: Session,
    row: Server,
    field_name: str,
    name: str,
    text: str,
    *,
    position: int = 0,
    hint_text: str | None = None,
    refers_to: Iterable[str] = (),
) -> None:
    row.secrets.append(
        ServerSecret(
            field=field_name,
            name=name,
            position=position,
            hint=hint_text,
            refers_to=list(refers_to),
            sealed=runtime_of(session).vault.seal(text, bindings.of_secret(row, field_name, name)),
        )
    )


def _drop(row: Server, field_name: str, name: str) -> None:
    row.secrets = [s for s in row.secrets if (s.field, s.name) != (field_name, name)]


def _write_variables(session: Session, row: Server, fields: ServerFields) -> None:
    vault = runtime_of(session).vault
    write_only = runtime_of(session).write_only_globals
    stored = {v.name: (v.sealed, v.bound) for v in row.variables if v.scope == Scope.GLOBAL}
    entries = fields["env_vars"] or []
    row.variables = []
    session.flush()
    for position, entry in enumerate(entries):
        name = entry["name"]
        value = entry.get("value")
        scope = Scope.USER if entry.get("scope") == Scope.USER else Scope.GLOBAL
        keeps = "value" not in entry or value is KEPT or (write_only and value == "")
        sealed = bound = None
        if scope is Scope.GLOBAL and keeps:
            sealed, bound = stored.get(name, (None, None))
        elif scope is Scope.GLOBAL and value:
            sealed = vault.seal(value, bindings.of_global(row, name))
        row.variables.append(
            ServerVariable(
                position=position,
                name=name,
                scope=scope.value,
                description=entry.get("description"),
                sealed=sealed or None,
                bound=bound,
            )
        )


def mark_required(row: Server) -> None:
    """Mark the variables that each user has to set."""
    declared = [
        Variable(v.name, Scope(v.scope), v.description, v.sealed is not None) for v in row.variables
    ]
    referenced = {
        name
        for secret in row.secrets
        if secret.field == "static_headers"
        for name in secret.refers_to
    }
    open_names = {variable.name for variable in required_variables(declared, referenced)}
    for variable in row.variables:
        variable.is_required = variable.scope == Scope.USER and variable.name in open_names
        if variable.is_required:
            open_names.discard(variable.name)


def _write_groups(session: Session, row: Server, names: Iterable[str]) -> None:
    session.flush()
    wanted = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    known = {
        group.name: group.access_group_id
        for group in session.scalars(select(AccessGroup).where(AccessGroup.name.in_(wanted)))
    }
    for name in wanted:
        if name not in known:
            group = AccessGroup(name=name)
            session.add(group)
            session.flush()
            known[name] = group.access_group_id
    ids = [known[name] for name in wanted]
    mine = AccessGroupServer.server_id == row.server_id
    # Unchanged rows are not touched, because each deleted row is logged as the end of access.
    session.execute(
        delete(AccessGroupServer).where(mine, AccessGroupServer.access_group_id.not_in(ids))
    )
    there = set(session.scalars(select(AccessGroupServer.access_group_id).where(mine)))
    session.add_all(
        AccessGroupServer(access_group_id=group_id, server_id=row.server_id)
        for group_id in ids
        if group_id not in there
    )
    session.flush()
