"""From a stored server and a person to an upstream that can be spoken to: the last line that opens
secrets."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from portal.domain.credentials import auth_headers, setup_url
from portal.domain.errors import (
    CredentialNeeded,
    InsufficientScope,
    MissingVariables,
    UpstreamFailure,
    UpstreamTimeout,
)
from portal.domain.principals import Principal
from portal.domain.servers import AuthType
from portal.domain.upstream import AwsSigning, HealthReason, Target
from portal.domain.variables import (
    Scope,
    Variable,
    interpolate,
    missing_variables,
    references,
    required_variables,
)
from portal.services.oauth_client.service_tokens import exchanged_token, machine_token
from portal.services.oauth_client.user_tokens import (
    fresh_tokens,
    name_of,
    needed,
    note_refusal,
    note_wanted,
    own_token,
)
from portal.services.runtime import runtime_of
from portal.services.secrets import user_values
from portal.services.secrets.server_definition import Definition, opened
from portal.services.secrets.token_store import is_exchange, is_machine, needs_a_person
from portal.store.database import release
from portal.store.models import Server

T = TypeVar("T")

DEFAULT_TIMEOUT = 30.0
Passed = Mapping[str, str]
NOTHING: Passed = {}
_AWS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "aws_region_name": "region",
    "aws_service_name": "service",
    "aws_role_name": "role",
}
_RENEWING = 8.0  # seconds for renewing connections before many servers are asked
_OAUTH = (AuthType.OAUTH2, AuthType.OAUTH2_TOKEN_EXCHANGE)


@dataclass(frozen=True)
class UpstreamConfig:
    """All that decides what is sent to an upstream, in the clear and only for as long as it takes
    to send it.

    `may_start`: whether its command may be started. It may where the server is saved and active, and for a test that an
    Admin confirmed. `home` names the home folder that the command keeps.
    """

    transport: str
    auth_type: str | None
    definition: Definition = field(repr=False)
    command: str | None = None
    variables: tuple[Variable, ...] = ()
    timeout: float | None = None
    extra_headers: tuple[str, ...] = ()
    may_start: bool = False
    home: str = ""

    @property
    def needs_a_token(self) -> bool:
        """Whether an access token has to be got before anything is sent."""
        return self.auth_type in _OAUTH


@dataclass(frozen=True)
class PendingTarget:
    """All that a target is made of, but the access token that it may need; `key` is a person's own,
    or that token."""

    row: Server
    config: UpstreamConfig
    values: Mapping[str, str] = field(repr=False)
    key: str | None = field(repr=False)
    passed: Passed = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class AuthorizedTarget:
    """A target, with the access token that is in it ("" for none) and the way to get another
    one."""

    target: Target
    pending: PendingTarget
    token: str = field(default="", repr=False)


def config_of(session: Session, row: Server) -> UpstreamConfig:
    """The config of a stored server."""
    return UpstreamConfig(
        transport=row.transport,
        auth_type=row.auth_type,
        definition=opened(session, row, credentials=True),
        command=row.command,
        variables=declared(row),
        timeout=row.timeout,
        extra_headers=tuple(row.extra_headers),
        may_start=row.approval_status == "active" and not inspect(row).transient,
        home="" if inspect(row).transient else home_of(row.server_id, row.incarnation),
    )


def home_of(server_id: str, incarnation: str) -> str:
    """Whose home folder the command of a server keeps: one that is made anew under the same id gets
    a new one."""
    return f"{server_id}\n{incarnation}"


def declared(row: Server) -> tuple[Variable, ...]:
    """The variables that a server declares."""
    return tuple(
        Variable(v.name, Scope(v.scope), v.description, v.sealed is not None) for v in row.variables
    )


def authorize_to_call(
    session: Session,
    principal: Principal,
    row: Server,
    passed: Passed = NOTHING,
    *,
    refused: str = "",
) -> AuthorizedTarget:
    """The upstream as `principal` reaches it for a tool call; of the headers in `passed`, those the
    server lists go on.

    It may ask an authorization server first, which ends the transaction at hand; where the upstream
    `refused` an access token, for another one.

    Raises `MissingVariables` (412) with the names, `CredentialNeeded` (401) where their key or
    sign-in is missing, and `UpstreamFailure` for an authorization server that fails.
    """
    values = user_values.opened_values(session, row, principal.user_id)
    missing = missing_variables(
        [Variable(v.name, Scope.USER) for v in row.variables if v.is_required], values
    )
    link = setup_url(runtime_of(session).public_url, row.server_id)
    name = name_of(row)
    if missing:
        raise MissingVariables(
            f"{name} needs values that only you have: {', '.join(missing)}. Set them at {link} and"
            " try again.",
            server_id=row.server_id,
            server_name=name,
            names=list(missing),
            missing=list(missing),
            setup_url=link,
        )
    key = user_values.opened_key(session, row, principal.user_id) if row.is_byok else None
    if row.is_byok and key is None:
        raise CredentialNeeded(
            f"{name} needs your own key. Store it at {link} and try again.",
            code="byok_auth_required",
            server_id=row.server_id,
            setup_url=link,
        )
    pending = PendingTarget(row, config_of(session, row), values, key, passed)
    return _authorized(session, principal, pending, refused=refused)


def target_to_probe(session: Session, row: Server) -> Target | HealthReason | PendingTarget:
    """Answer the upstream as the portal itself reaches it, or the reason why it cannot be judged
    without a person.

    It is a `PendingTarget` where the portal's own token has to be got first, by `signed`.
    """
    runtime = runtime_of(session)
    if row.transport == "stdio" and not (runtime.stdio_enabled and row.approval_status == "active"):
        return HealthReason.DISABLED
    if any(variable.is_required for variable in row.variables):
        return HealthReason.PER_USER_VALUE
    if row.is_byok or needs_a_person(row):
        return HealthReason.SIGN_IN_NEEDED
    config = config_of(session, row)
    return PendingTarget(row, config, {}, None) if is_machine(row) else build(config, {})


def signed(session: Session, pending: PendingTarget) -> Target:
    """The upstream with the portal's own token. Raises `UpstreamFailure`; ends the transaction at
    hand."""
    return build(pending.config, pending.values, key=machine_token(session, pending.row))


def authorize_to_list(
    session: Session, principal: Principal, row: Server, passed: Passed = NOTHING
) -> AuthorizedTarget:
    """The upstream for listing tools, which missing values do not block: headers that need one are
    left out.

    Raises `UpstreamFailure` (`sign_in_needed`) where the person's own connection is missing.
    """
    found = authorize_all_to_list(session, principal, [row], passed)[0]
    if isinstance(found, UpstreamFailure):
        raise found
    return found


def authorize_all_to_list(
    session: Session, principal: Principal, rows: Sequence[Server], passed: Passed = NOTHING
) -> list[AuthorizedTarget | UpstreamFailure]:
    """As `authorize_to_list` for many, in their order; a failure stands where one cannot be asked.

    What is stored is read first, for all: getting a token may end the transaction.
    """
    waiting = []
    for row in rows:
        key = user_values.opened_key(session, row, principal.user_id) if row.is_byok else None
        values = user_values.opened_values(session, row, principal.user_id)
        waiting.append(PendingTarget(row, config_of(session, row), values, key, passed))
    personally = [
        pending.row
        for pending in waiting
        if pending.config.needs_a_token and not is_machine(pending.row)
    ]
    fresh = fresh_tokens(
        session, principal.user_id, [row for row in personally if not is_exchange(row)]
    )
    ids = [row.server_id for row in rows]
    deadline = time.monotonic() + _RENEWING
    found: list[AuthorizedTarget | UpstreamFailure] = []
    for server_id, pending in zip(ids, waiting, strict=True):
        if pending.config.needs_a_token and server_id not in fresh and time.monotonic() > deadline:
            found.append(UpstreamTimeout("There was no time to renew your connection."))
            continue
        try:
            known = replace(pending, key=fresh[server_id]) if server_id in fresh else pending
            found.append(_authorized(session, principal, known))
        except UpstreamFailure as failure:
            found.append(failure)
        except CredentialNeeded as error:
            found.append(UpstreamFailure(error.message, reason=HealthReason.SIGN_IN_NEEDED))
    return found


def ask(
    session: Session,
    principal: Principal,
    authorized: AuthorizedTarget,
    question: Callable[[Target], T],
) -> T:
    """Ask an upstream, and once more where it refuses the token: with the one that is got in its
    place.

    Raises what `question` raises, and `CredentialNeeded` where only a new connection helps. No
    other credential is tried. The transaction has to be released before.
    """
    try:
        return question(authorized.target)
    except InsufficientScope as failure:
        if authorized.token and needs_a_person(authorized.pending.row):
            row = authorized.pending.row
            note_wanted(session, row, principal.user_id, failure.scopes)
            raise needed(
                session, row.server_id, name_of(row), scopes=failure.scopes or ("?",)
            ) from None
        raise
    except UpstreamFailure as failure:
        if not authorized.token or failure.reason != HealthReason.SIGN_IN_NEEDED:
            raise
    return _ask_again(session, principal, authorized, question)


def _ask_again(
    session: Session,
    principal: Principal,
    authorized: AuthorizedTarget,
    question: Callable[[Target], T],
) -> T:
    again = _authorized(session, principal, authorized.pending, refused=authorized.token)
    release(session)
    try:
        return question(again.target)
    except UpstreamFailure as failure:
        row = authorized.pending.row
        if failure.reason != HealthReason.SIGN_IN_NEEDED or not needs_a_person(row):
            raise
        if not is_exchange(row):
            note_refusal(session, row, principal.user_id, again.token)
        raise needed(session, row.server_id, name_of(row), "refused") from None


def _authorized(
    session: Session, principal: Principal, pending: PendingTarget, *, refused: str = ""
) -> AuthorizedTarget:
    token = pending.key if pending.config.needs_a_token else None
    if pending.config.needs_a_token and (token is None or token == refused):
        token = _token(session, principal, pending.row, refused)
        pending = replace(pending, key=token)
    return AuthorizedTarget(
        build(pending.config, pending.values, key=pending.key, passed=pending.passed),
        pending,
        token or "",
    )


def _token(session: Session, principal: Principal, row: Server, refused: str) -> str:
    """The access token that the server's auth type asks for, and no other."""
    if is_machine(row):
        return machine_token(session, row, refused=refused)
    if not is_exchange(row):
        return own_token(session, row, principal.user_id, refused=refused)
    subject = own_token(session, row, principal.user_id)
    return exchanged_token(session, row, principal.user_id or "", subject, refused=refused)


def build(
    config: UpstreamConfig,
    values: Mapping[str, str],
    *,
    key: str | None = None,
    passed: Passed = NOTHING,
) -> Target:
    """Put a config and a person's values together; `key` is the person's own and goes before the
    shared one.

    Where the auth type is OAuth `key` is the access token, and no shared one ever takes its place.
    What a caller passes on (`passed`) gives way to the sign-in, and that to a static header of the
    same name.

    Raises `UpstreamFailure` (`disabled`) for a command that may not be started.
    """
    if config.transport == "stdio" and not config.may_start:
        raise UpstreamFailure(
            "A command is not started before it is saved and active.", reason=HealthReason.DISABLED
        )
    definition = config.definition
    secret = (
        key if key is not None or config.needs_a_token else definition.credentials.get("auth_value")
    )
    headers = _passed_headers(config, passed)
    if isinstance(secret, str) and secret and config.auth_type:
        _put_over(headers, auth_headers(AuthType(config.auth_type), secret.strip()))
    _put_over(headers, _static_headers(config, values))
    return Target(
        transport=(
            "stdio"
            if config.transport == "stdio"
            else "http"
            if config.transport == "http"
            else "sse"
        ),
        url=definition.urls.get("url", ""),
        spec_url=definition.urls.get("spec_path", ""),
        command=config.command or "",
        args=tuple(definition.args),
        env=dict(definition.env),
        headers=headers,
        timeout=config.timeout or DEFAULT_TIMEOUT,
        home=config.home,
        signing=(
            _signing(definition.credentials) if config.auth_type == AuthType.AWS_SIGV4 else None
        ),
    )


def _signing(credentials: Mapping[str, object]) -> AwsSigning:
    """The stored AWS credentials; where region or service are not stored, LiteLLM's usual ones."""
    stored = {field: credentials.get(name) for name, field in _AWS.items()}
    return AwsSigning(
        **{
            field: value.strip()
            for field, value in stored.items()
            if isinstance(value, str) and value
        }
    )


def _passed_headers(config: UpstreamConfig, passed: Passed) -> dict[str, str]:
    """The caller's headers that the server lists, under the names that it gives them."""
    sent = {name.lower(): value for name, value in passed.items()}
    return {name: sent[name.lower()] for name in config.extra_headers if name.lower() in sent}


def _put_over(headers: dict[str, str], others: Mapping[str, str]) -> None:
    """Add headers, in place of those of the same name however it is spelled."""
    spelled = {name.lower(): name for name in headers}
    for name, value in others.items():
        headers.pop(spelled.get(name.lower(), ""), None)
        headers[name] = value


def _static_headers(config: UpstreamConfig, values: Mapping[str, str]) -> dict[str, str]:
    personal_names = {v.name for v in config.variables if v.scope is Scope.USER}
    known = {name: value for name, value in values.items() if name in personal_names} | dict(
        config.definition.globals
    )
    templates = config.definition.static_headers
    used = {name for template in templates.values() for name in references(template)}
    unset = set(missing_variables(required_variables(config.variables, used), known))
    return {
        name: interpolate(template, known).strip()
        for name, template in templates.items()
        if unset.isdisjoint(references(template))
    }
