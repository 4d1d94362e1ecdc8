"""Testing a definition before it is saved, with a real MCP handshake."""

import base64
import hashlib
import json
import shlex
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.destinations import RESOURCE
from portal.domain.errors import InsufficientScope, InvalidRequest, UpstreamFailure
from portal.domain.principals import Principal
from portal.domain.servers import (
    ApprovalStatus,
    ServerFields,
    Transport,
    check_definition,
    check_values,
)
from portal.domain.upstream import HealthReason, HealthStatus, ProbeResult, Target
from portal.domain.variables import Scope
from portal.services import audit
from portal.services.oauth_client.discovery import pinned
from portal.services.oauth_client.service_tokens import typed_token
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings, user_values
from portal.services.secrets.server_definition import route_of
from portal.services.secrets.token_store import is_machine
from portal.services.servers import destinations, queries, unsaved
from portal.services.servers.views import KIND_OF_FAULT
from portal.services.upstreams.resolve import (
    UpstreamConfig,
    ask_upstream,
    authorize_to_call,
    build,
    config_of,
    home_of,
)
from portal.store.database import release
from portal.store.models import Server, new_id

_TRY_TIMEOUT = 15.0

_CONFIRM_WITHIN = 300  # seconds


@dataclass(frozen=True)
class Start:
    """A command that a test would start on this host, and the mark that confirms it.

    `line` is the shell command; `variables` are the names in its environment; `user` is the user it
    runs as.
    """

    line: str
    variables: tuple[str, ...]
    user: str
    mark: str = field(repr=False)


class Unconfirmed(Exception):
    """Raised if a test would start an unsaved command that the user has not confirmed."""

    def __init__(self, start: Start) -> None:
        self.start = start
        super().__init__("The command was not confirmed.")


@dataclass(frozen=True)
class Trial:
    """The result of a test, and the variables without a value."""

    result: ProbeResult
    unset: tuple[str, ...] = ()


def try_definition(
    session: Session,
    principal: Principal,
    fields: ServerFields,
    *,
    server_id: str | None = None,
    mark: str = "",
) -> Trial:
    """Connect to the upstream that `fields` describe and list its tools; stores nothing.

    Kept values come from the stored server, and a stored secret is never sent to an address that
    was just entered. Raises what the rules of a definition raise, and `Conflict`
    (`credentials_would_move`).

    Starting a command is audited and committed first. A command that differs from that of an active
    stored server needs its `mark`; without it, raises `Unconfirmed`, which contains the mark.
    """
    authz.require(principal, Action.SERVER_CREATE)
    check_values(fields)
    row = None
    if server_id:
        row = queries.find_server(session, principal, server_id, Action.SERVER_UPDATE).row
    tried = destinations.tried(session, row, fields) if row else _as_typed(session, fields)
    config = config_of(session, tried)
    runtime = runtime_of(session)
    check_definition(
        transport=Transport(config.transport),
        url=config.definition.urls.get("url"),
        spec_path=config.definition.urls.get("spec_path"),
        command=config.command,
        has_args=bool(config.definition.args),
        stdio_enabled=runtime.stdio_enabled,
        stdio_commands=runtime.stdio_commands,
        no_sandbox=runtime.sandbox.refusal,
    )
    if config.transport == Transport.STDIO:
        authz.require(principal, Action.COMMAND_MANAGE)
        if row is not None and row.approval_status != ApprovalStatus.ACTIVE:
            raise InvalidRequest(
                "The portal runs commands only for active servers.",
                code="stdio_not_allowed",
                field="transport",
            )
        _confirm(session, principal, row, config, mark, shows_arguments="args" in fields)
        config = replace(config, may_start=True)
    resource = route_of(session, tried).key(RESOURCE)
    stays = row is not None and route_of(session, row).key(RESOURCE) == resource
    values = user_values.opened_values(session, row, principal.user_id) if row and stays else {}
    unset = tuple(
        v.name for v in config.variables if v.scope is Scope.USER and v.name not in values
    )
    known = pinned(session, row) if row else None
    try:
        token = typed_token(session, config.definition, known=known) if is_machine(tried) else None
    except UpstreamFailure as failure:
        return Trial(
            ProbeResult(HealthStatus.UNHEALTHY, HealthReason(failure.reason), failure.message),
            unset,
        )
    target = build(config, values, key=token)
    target = replace(target, timeout=min(target.timeout, _TRY_TIMEOUT))
    release(session)
    if target.transport == "stdio":
        _put_on_record(session, principal, server_id, target)
    return Trial(runtime.mcp.probe(target, with_tools=True, timeout=_TRY_TIMEOUT), unset)


def why_no_commands(session: Session, principal: Principal) -> str:
    """Return why this host cannot run commands although they are enabled; blank if it can."""
    authz.require(principal, Action.SERVER_CREATE)
    runtime = runtime_of(session)
    return runtime.sandbox.refusal() if runtime.stdio_enabled else ""


def commands_user(session: Session, principal: Principal) -> str:
    """Return the user that commands run as on this host. Raises `NoSandbox` if none can run."""
    authz.require(principal, Action.SERVER_CREATE)
    return runtime_of(session).sandbox.user


def forget_homes(session: Session, principal: Principal) -> None:
    """Delete the home folders of deleted servers' commands on this host."""
    authz.require(principal, Action.SERVER_CREATE)
    known = [
        home_of(*ids)
        for ids in session.execute(select(Server.server_id, Server.incarnation)).tuples()
    ]
    release(session)
    runtime_of(session).sandbox.forget_homes(known)


def _confirm(
    session: Session,
    principal: Principal,
    row: Server | None,
    config: UpstreamConfig,
    mark: str,
    *,
    shows_arguments: bool,
) -> None:
    """Raise `Unconfirmed` unless the user has confirmed the command of `config`.

    Stored arguments are not shown: they are those that were saved for the same command.
    """
    definition = config.definition
    argv = [config.command or "", *definition.args]
    if row is not None:
        stored = config_of(session, row)
        saved = (
            stored.transport,
            stored.command,
            tuple(stored.definition.args),
            dict(stored.definition.env),
        )
        if saved == (
            config.transport,
            config.command,
            tuple(definition.args),
            dict(definition.env),
        ):
            return
    runtime = runtime_of(session)
    place = bindings.of_command_test(principal.user_id or "")
    exact = json.dumps([argv, sorted(definition.env.items())])
    digest = hashlib.sha256(exact.encode()).hexdigest()
    if mark:
        with suppress(ValueError):
            said = (runtime.vault.open(base64.urlsafe_b64decode(mark), place) or "").partition(" ")
            if said[0] == digest and 0 <= time.time() - float(said[2]) < _CONFIRM_WITHIN:
                return
    sealed = base64.urlsafe_b64encode(runtime.vault.seal(f"{digest} {time.time()}", place)).decode()
    line = (
        shlex.join(argv)
        if shows_arguments
        else f"{argv[0]} … (with its {len(argv) - 1} saved arguments)"
    )
    raise Unconfirmed(Start(line, tuple(sorted(definition.env)), runtime.sandbox.user, sealed))


def _put_on_record(
    session: Session, principal: Principal, server_id: str | None, target: Target
) -> None:
    """Audit that a command is about to be started for a test, and commit."""
    audit.record(
        session,
        principal,
        "command started for a test",
        "server",
        server_id,
        command=target.command,
        arguments=len(target.args),
        variables=sorted(target.env),
        runs_as=runtime_of(session).sandbox.user,
    )
    session.commit()


def try_own(session: Session, principal: Principal, server_id: str) -> Trial:
    """Connect to a server as the caller would. Raises what a tool call raises before it is sent."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_USE).row

    def look(target: Target) -> ProbeResult:
        target = replace(target, timeout=min(target.timeout, _TRY_TIMEOUT))
        result = runtime_of(session).mcp.probe(target, with_tools=True, timeout=_TRY_TIMEOUT)
        if result.wanted is not None:
            raise InsufficientScope(result.message, result.wanted)
        if result.reason is HealthReason.SIGN_IN_NEEDED:
            raise UpstreamFailure(result.message, reason=result.reason)
        return result

    try:
        authorized = authorize_to_call(session, principal, row)
        release(session)
        result = ask_upstream(session, principal, authorized, look)
    except UpstreamFailure as failure:
        result = ProbeResult(HealthStatus.UNHEALTHY, HealthReason(failure.reason), failure.message)
    # The message contains the host, which only Admins may see.
    if not authz.has_admin_view(principal):
        result = replace(result, message=KIND_OF_FAULT[result.reason])
    return Trial(result)


def _as_typed(session: Session, fields: ServerFields) -> Server:
    return unsaved.unsaved_server(
        session, new_id(), new_id(), destinations.copied(fields), author=None
    )
