"""Trying out a definition before it is saved: a true MCP handshake with what is typed."""

import base64
import hashlib
import json
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import InsufficientScope, InvalidRequest, UpstreamFailure
from portal.domain.principals import Principal
from portal.domain.servers import (
    KEPT,
    URL_FIELDS,
    ApprovalStatus,
    AuthType,
    OAuthFlow,
    ServerFields,
    Transport,
    check_definition,
    check_values,
    origin_of,
)
from portal.domain.upstream import HealthReason, HealthStatus, ProbeResult, Target
from portal.domain.variables import Scope, Variable
from portal.services import audit
from portal.services.inner import loading, personal, places
from portal.services.inner.definitions import Definition
from portal.services.inner.house import house_of
from portal.services.inner.server_views import KIND_OF_FAULT
from portal.services.inner.shared_tokens import typed_token
from portal.services.inner.targets import Blueprint, approach_to_call, ask, blueprint_of, build
from portal.store.database import release
from portal.store.models import Server

_TRY_TIMEOUT = 15.0


_CONFIRM_WITHIN = 300  # seconds


@dataclass(frozen=True)
class Start:
    """A command that a test would start on this host: what is shown before, and the mark that confirms just this.

    `line` is what a shell would be given; `variables` are the names in its environment; `user` says as whom it runs.
    """

    line: str
    variables: tuple[str, ...]
    user: str
    mark: str = field(repr=False)


class Unconfirmed(Exception):
    """A test would start a command that was never saved, and the person has not confirmed it yet."""

    def __init__(self, start: Start) -> None:
        self.start = start
        super().__init__("A command was not confirmed.")


@dataclass(frozen=True)
class Trial:
    """What a try gave, and which variables had no value for it."""

    result: ProbeResult
    unset: tuple[str, ...] = ()


def try_definition(
    session: Session, principal: Principal, fields: ServerFields, *, server_id: str | None = None, mark: str = ""
) -> Trial:
    """Contact the upstream that `fields` describe and list its tools; nothing is stored.

    Values that are kept come from the stored server, and only where the URL stays at its host: a stored secret is
    never combined with an address that was just typed.

    A command is on record, committed, before it is started. One that is not just what an active server has stored is
    started with the `mark` of this very command only. Raises `Unconfirmed` with that, and what the rules of a
    definition raise.
    """
    authz.require(principal, Action.SERVER_CREATE)
    check_values(fields)
    row = loading.find_server(session, principal, server_id, Action.SERVER_UPDATE).row if server_id else None
    if row is not None:
        _refuse_another_command(session, row, fields)
    blueprint = _blueprint(session, row, fields)
    house = house_of(session)
    check_definition(
        transport=Transport(blueprint.transport),
        url=blueprint.definition.urls.get("url"),
        spec_path=blueprint.definition.urls.get("spec_path"),
        command=blueprint.command,
        has_args=bool(blueprint.definition.args),
        stdio_enabled=house.stdio_enabled,
        stdio_commands=house.stdio_commands,
        no_sandbox=house.sandbox.refusal,
    )
    if blueprint.transport == Transport.STDIO:
        if row is not None and row.approval_status != ApprovalStatus.ACTIVE:
            raise InvalidRequest(
                "A command is not started for a server that is not active.", code="stdio_not_allowed", field="transport"
            )
        _confirm(session, principal, row, blueprint, mark, shows_arguments="args" in fields)
        blueprint = replace(blueprint, may_start=True)
    values = personal.opened_values(session, row, principal.user_id) if row else {}
    unset = tuple(v.name for v in blueprint.variables if v.scope is Scope.USER and v.name not in values)
    flow = fields.get("oauth2_flow") if "oauth2_flow" in fields else row.oauth2_flow if row else None
    by_itself = blueprint.auth_type == AuthType.OAUTH2 and flow == OAuthFlow.CLIENT_CREDENTIALS
    try:
        token = typed_token(session, blueprint.definition) if by_itself else None
    except UpstreamFailure as failure:
        return Trial(ProbeResult(HealthStatus.UNHEALTHY, HealthReason(failure.reason), failure.message), unset)
    target = build(blueprint, values, key=token)
    target = replace(target, timeout=min(target.timeout, _TRY_TIMEOUT))
    release(session)
    if target.transport == "stdio":
        _put_on_record(session, principal, server_id, target)
    return Trial(house.mcp.probe(target, with_tools=True, timeout=_TRY_TIMEOUT), unset)


def why_no_commands(session: Session, principal: Principal) -> str:
    """Why no command can run on this host though the operator allows it, with the remedy; blank where one can."""
    authz.require(principal, Action.SERVER_CREATE)
    house = house_of(session)
    return house.sandbox.refusal() if house.stdio_enabled else ""


def commands_user(session: Session, principal: Principal) -> str:
    """As whom commands run on this host. Raises `NoSandbox` where none can."""
    authz.require(principal, Action.SERVER_CREATE)
    return house_of(session).sandbox.user


def forget_homes(session: Session, principal: Principal) -> None:
    """Delete what commands of servers that are gone have left in their home folders on this host."""
    authz.require(principal, Action.SERVER_DELETE)
    known = session.scalars(select(Server.server_id)).all()
    release(session)
    house_of(session).sandbox.forget_homes(known)


def _refuse_another_command(session: Session, row: Server, fields: ServerFields) -> None:
    """Refuse to hand what is stored for a command to another one: its arguments, and the values of its environment."""
    stored = blueprint_of(session, row)
    same = (fields.get("command", stored.command), tuple(fields.get("args", stored.definition.args) or ())) == (
        stored.command, tuple(stored.definition.args),
    )  # fmt: skip
    if same or fields.get("transport", stored.transport) != Transport.STDIO:
        return
    if "args" not in fields and stored.definition.args:
        raise InvalidRequest(
            "The command is another one, so the stored arguments are not given to it. Type them again.", field="args"
        )
    if any(value is KEPT for value in (fields.get("env") or {}).values()):
        raise InvalidRequest(
            "The command is another one, so stored values are not given to it. Type them again.", field="env"
        )


def _confirm(
    session: Session, principal: Principal, row: Server | None, blueprint: Blueprint, mark: str, *,
    shows_arguments: bool,
) -> None:  # fmt: skip
    """See to it that a person has confirmed the command of `blueprint`. Raises `Unconfirmed` where they have not.

    Stored arguments are not shown to be confirmed: they are those that were saved, for the same command.
    """
    definition = blueprint.definition
    argv = [blueprint.command or "", *definition.args]
    if row is not None:
        stored = blueprint_of(session, row)
        saved = (stored.transport, stored.command, tuple(stored.definition.args), dict(stored.definition.env))
        if saved == (blueprint.transport, blueprint.command, tuple(definition.args), dict(definition.env)):
            return
    house = house_of(session)
    place = places.of_command_test(principal.user_id or "")
    exact = json.dumps([argv, sorted(definition.env.items())])
    digest = hashlib.sha256(exact.encode()).hexdigest()
    if mark:
        with suppress(ValueError):
            said = (house.vault.open(base64.urlsafe_b64decode(mark), place) or "").partition(" ")
            if said[0] == digest and 0 <= time.time() - float(said[2]) < _CONFIRM_WITHIN:
                return
    sealed = base64.urlsafe_b64encode(house.vault.seal(f"{digest} {time.time()}", place)).decode()
    line = shlex.join(argv) if shows_arguments else f"{argv[0]} … (with its {len(argv) - 1} saved arguments)"
    raise Unconfirmed(Start(line, tuple(sorted(definition.env)), house.sandbox.user, sealed))


def _put_on_record(session: Session, principal: Principal, server_id: str | None, target: Target) -> None:
    """Write down that a command is about to be started for a test, and commit it."""
    audit.record(
        session, principal, "command started for a test", "server", server_id, command=target.command,
        arguments=len(target.args), variables=sorted(target.env), runs_as=house_of(session).sandbox.user,
    )  # fmt: skip
    session.commit()


def try_own(session: Session, principal: Principal, server_id: str) -> Trial:
    """Contact a server as the caller would, with what they stored. Raises what a tool call raises before it is sent."""
    row = loading.find_server(session, principal, server_id, Action.SERVER_USE).row

    def look(target: Target) -> ProbeResult:
        target = replace(target, timeout=min(target.timeout, _TRY_TIMEOUT))
        result = house_of(session).mcp.probe(target, with_tools=True, timeout=_TRY_TIMEOUT)
        if result.wanted is not None:
            raise InsufficientScope(result.message, result.wanted)
        if result.reason is HealthReason.SIGN_IN_NEEDED:
            raise UpstreamFailure(result.message, reason=result.reason)
        return result

    try:
        approach = approach_to_call(session, principal, row)
        release(session)
        result = ask(session, principal, approach, look)
    except UpstreamFailure as failure:
        result = ProbeResult(HealthStatus.UNHEALTHY, HealthReason(failure.reason), failure.message)
    if not authz.has_admin_view(principal):  # the message names the host, which is not theirs to learn
        result = replace(result, message=KIND_OF_FAULT[result.reason])
    return Trial(result)


def _blueprint(session: Session, row: Server | None, fields: ServerFields) -> Blueprint:
    stored = blueprint_of(session, row) if row else Blueprint(Transport.SSE, None, Definition())
    old = stored.definition
    urls = {name: _one(name, fields, old) for name in URL_FIELDS}
    if row and _origin(urls) not in (None, _origin(old.urls)):
        old, stored = _only_typed(fields), replace(stored, variables=())
    entries = fields.get("env_vars")
    typed_globals = {
        entry["name"]: old.globals.get(entry["name"], "") if entry.get("value") is KEPT else entry.get("value") or ""
        for entry in entries or ()
        if entry.get("scope") != Scope.USER
    }
    return Blueprint(
        transport=str(fields.get("transport") or stored.transport),
        auth_type=fields.get("auth_type") if "auth_type" in fields else stored.auth_type,
        command=fields.get("command") if "command" in fields else stored.command,
        timeout=fields.get("timeout") if "timeout" in fields else stored.timeout,
        variables=stored.variables
        if entries is None
        else tuple(
            Variable(e["name"], Scope(e.get("scope") or Scope.GLOBAL), has_value=bool(typed_globals.get(e["name"])))
            for e in entries
        ),
        definition=Definition(
            urls={name: url for name, url in urls.items() if url},
            args=fields["args"] or () if "args" in fields else old.args,
            static_headers=_typed(fields.get("static_headers"), old.static_headers, "static_headers" in fields),
            env=_typed(fields.get("env"), old.env, "env" in fields),
            credentials={**_kept_credentials(old, urls), **_sent_credentials(fields)},
            globals=old.globals if entries is None else {k: v for k, v in typed_globals.items() if v},
        ),
    )


def _origin(urls: Mapping[str, str | None]) -> str | None:
    """Where what signs in is sent: the origin of the URL or, without one, of the OpenAPI document."""
    return origin_of(urls.get("url") or urls.get("spec_path"))


def _only_typed(fields: ServerFields) -> Definition:
    """The stored values for another host: none. Raises `InvalidRequest` where one was to be kept."""
    for name in ("static_headers", "env"):
        if any(value is KEPT for value in (fields.get(name) or {}).values()):  # type: ignore[attr-defined]
            raise InvalidRequest(
                "The address is at another host, so stored values are not sent there. Type them again.", field=name
            )
    if any(entry.get("value") is KEPT for entry in fields.get("env_vars") or ()):
        raise InvalidRequest(
            "The address is at another host, so stored values are not sent there. Type them again.", field="env_vars"
        )
    return Definition()


def _kept_credentials(old: Definition, urls: Mapping[str, str | None]) -> Mapping[str, object]:
    """The stored credentials, none of which goes to a token URL at another host than the stored one."""
    typed = urls["token_url"]
    return old.credentials if not typed or origin_of(typed) == origin_of(old.urls.get("token_url")) else {}


def _one(name: str, fields: ServerFields, old: Definition) -> str | None:
    value: Any = fields.get(name, KEPT)
    return old.urls.get(name) if value is KEPT else value


def _typed(sent: object, old: object, is_sent: bool) -> dict[str, str]:
    stored = dict(old) if isinstance(old, dict) else {}
    if not is_sent:
        return stored
    typed = dict(sent) if isinstance(sent, dict) else {}
    return {name: stored.get(name, "") if value is KEPT else value for name, value in typed.items()}


def _sent_credentials(fields: ServerFields) -> dict[str, object]:
    return {name: value for name, value in (fields.get("credentials") or {}).items() if value and value is not KEPT}
