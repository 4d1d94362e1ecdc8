"""Writing a server: its names, the rules for the whole definition, and what changes with it."""

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Conflict, InvalidRequest
from portal.domain.principals import Principal
from portal.domain.servers import (
    ServerFields,
    Transport,
    check_definition,
    check_not_reserved,
    normalized_name,
    origin_of,
)
from portal.services.runtime import runtime_of
from portal.services.secrets.server_definition import has_part
from portal.services.servers import secret_moves
from portal.services.servers.destinations import Said, said_by, write_definition
from portal.services.servers.secret_moves import Settled
from portal.store.models import Server, now


def set_names(row: Server, fields: ServerFields) -> None:
    """Write the name, the alias and the sort key. The alias defaults to the name.

    A reserved name is refused, unless the server already had it.
    """
    had = (row.server_name, row.alias)
    name = fields.get("server_name")
    alias = fields.get("alias")
    if "server_name" in fields:
        row.server_name = None if name is None else normalized_name(name, "server_name")
    if "alias" in fields:
        row.alias = None if alias is None else normalized_name(alias, "alias")
    for field, called in (("server_name", row.server_name), ("alias", row.alias)):
        if called is not None and called not in had:
            check_not_reserved(called, field)
    if "alias" not in fields and "server_name" in fields:
        row.alias = row.server_name
    row.sort_key = (row.server_name or row.alias or row.server_id).casefold()


def refuse_taken_names(session: Session, row: Server) -> None:
    """Raise `Conflict` if another server, live or submitted, has this name or alias."""
    for field, name in (("server_name", row.server_name), ("alias", row.alias)):
        if name is None:
            continue
        taken = session.scalar(
            select(Server.server_id).where(
                (Server.server_name == name) | (Server.alias == name),
                Server.server_id != row.server_id,
            )
        )
        if taken is not None:
            raise Conflict(
                f"Another server is already called {name}. Choose another {_WORD[field]}.",
                field=field,
            )


_DECIDES_HEALTH = (
    "url",
    "spec_path",
    "transport",
    "command",
    "args",
    "env",
    "static_headers",
    "credentials",
    "env_vars",
)
_OF_A_COMMAND = ("transport", "command", "args", "env")
_WORD = {"server_name": "name", "alias": "alias"}


def require_commands(principal: Principal, transport: str | None, fields: ServerFields) -> None:
    """Raise `Forbidden` if `fields` add, change or remove a command and the caller may not do that.

    `transport` is that of the stored server, None for a new one.
    """
    if Transport.STDIO in (transport, fields.get("transport")) and any(
        name in fields for name in _OF_A_COMMAND
    ):
        authz.require(principal, Action.COMMAND_MANAGE)


def check_result(session: Session, row: Server, fields: ServerFields) -> None:
    """Check the rules for a whole definition, on the row as it would be after `fields`."""
    runtime = runtime_of(session)
    transport = fields.get("transport") if "transport" in fields else row.transport
    stored_url = row.address if has_part(row, "url") else None
    check_definition(
        transport=Transport(transport or Transport.SSE),
        url=fields.get("url", stored_url),
        spec_path=fields.get("spec_path", row.address if row.has_spec else None),
        command=fields.get("command", row.command),
        has_args=fields["args"] is not None if "args" in fields else has_part(row, "args"),
        stdio_enabled=runtime.stdio_enabled,
        stdio_commands=runtime.stdio_commands,
        no_sandbox=runtime.sandbox.refusal,
    )
    if "url" in fields and fields["url"] and origin_of(fields["url"]) is None:
        raise InvalidRequest("The URL has no host.", field="url")


def change_row(
    session: Session, principal: Principal, row: Server, fields: ServerFields
) -> Settled:
    """Change the given fields, after checking the resulting definition, and settle moved secrets.

    Raises what the rules of a definition raise, `Conflict` for a taken name and for secrets that
    would move, and `Forbidden` for a key that may not change commands or send secrets to another
    host.
    """
    require_commands(principal, row.transport, fields)
    set_names(row, fields)
    check_result(session, row, fields)
    with session.no_autoflush:
        refuse_taken_names(session, row)
    settled = with_conflicts_named(session, row, fields, said_by(session, principal, fields))
    secret_moves.record_moves(session, principal, row, settled)
    if settled.changed_auth or any(name in fields for name in _DECIDES_HEALTH):
        row.health_status, row.health_reason, row.health_error = "unknown", "never_checked", None
        row.health_checked_at, row.health_latency_ms, row.probe_started_at = None, None, None
        row.probe_due_at, row.probe_failures = now(), 0
    return settled


def with_conflicts_named(
    session: Session, row: Server, fields: ServerFields, said: Said
) -> Settled:
    """Write the definition. Raises `Conflict` if another server has just taken a unique name."""
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
            settled = write_definition(session, row, fields, said)
            session.flush()
    except IntegrityError:
        raise Conflict(
            "Another server now has this id, name or alias. Choose another.", field="server_name"
        ) from None
    return settled
