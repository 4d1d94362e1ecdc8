"""Building upstream targets from a stored server and a user; the last step, which opens secrets."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

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
_RENEWING = 8.0  # seconds for renewing connections before a request to many servers
_OAUTH = (AuthType.OAUTH2, AuthType.OAUTH2_TOKEN_EXCHANGE)


@dataclass(frozen=True)
class UpstreamConfig:
    """Everything that determines what is sent to an upstream, in plain text while it is being sent.

    `may_start`: whether its command may be started, that is, if the server is saved and active, or
    for a test that an Admin confirmed. `home` identifies the command's home folder.
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
        """Whether an access token is needed before anything is sent."""
        return self.auth_type in _OAUTH


@dataclass(frozen=True)
class PendingTarget:
    """All parts of a target except a needed access token.

    `key` is the user's own key, or that token.
    """

    row: Server
    config: UpstreamConfig
    values: Mapping[str, str] = field(repr=False)
    key: str | None = field(repr=False)
    passed: Passed = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class AuthorizedTarget:
    """A target with its access token ("" for none), and what is needed to get another one."""

    target: Target
    pending: PendingTarget
    token: str = field(default="", repr=False)


def config_of(session: Session, row: Server) -> UpstreamConfig:
    """Return the config of a stored server."""
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
    """Return the name of a command's home folder; a recreated server gets a new one."""
    return f"{server_id}\n{incarnation}"


def declared(row: Server) -> tuple[Variable, ...]:
    """Return the variables that a server declares."""
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
    """Return the upstream for a tool call by `principal`, with the `passed` headers that it lists.

    May ask an authorization server first, which ends the transaction. If the upstream `refused` an
    access token, requests another one. Raises `MissingVariables` (412) with the names,
    `CredentialNeeded` (401) if the user's key or sign-in is missing, and `UpstreamFailure` if the
    authorization server fails.
    """
    values = user_values.opened_values(session, row, principal.user_id)
    missing = missing_variables(
        [Variable(v.name, Scope.USER) for v in row.variables if v.is_required], values
    )
    link = setup_url(runtime_of(session).public_url, row.server_id)
    name = name_of(row)
    if missing:
        raise MissingVariables(
            f"{name} needs your own values for: {', '.join(missing)}. Set them at {link} and try"
            " again.",
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
    """Return the upstream for a health check, or the reason why it needs a user.

    Returns a `PendingTarget` if the portal's own token is needed first, from `signed`.
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
    """Return the upstream with the portal's own token.

    Raises `UpstreamFailure`; ends the transaction.
    """
    return build(pending.config, pending.values, key=machine_token(session, pending.row))


def authorize_to_list(
    session: Session, principal: Principal, row: Server, passed: Passed = NOTHING
) -> AuthorizedTarget:
    """Return the upstream for listing tools; headers with missing values are left out.

    Raises `UpstreamFailure` (`sign_in_needed`) if the user's connection is missing.
    """
    found = authorize_all_to_list(session, principal, [row], passed)[0]
    if isinstance(found, UpstreamFailure):
        raise found
    return found


def authorize_all_to_list(
    session: Session, principal: Principal, rows: Sequence[Server], passed: Passed = NOTHING
) -> list[AuthorizedTarget | UpstreamFailure]:
    """Return `authorize_to_list` for many servers in order, with failures in their place.

    Reads what is stored for all of them first, because getting a token may end the transaction.
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
            found.append(UpstreamTimeout("There was not enough time to renew your connection."))
            continue
        try:
            known = replace(pending, key=fresh[server_id]) if server_id in fresh else pending
            found.append(_authorized(session, principal, known))
        except UpstreamFailure as failure:
            found.append(failure)
        except CredentialNeeded as error:
            found.append(UpstreamFailure(error.message, reason=HealthReason.SIGN_IN_NEEDED))
    return found


def ask_upstream(
    session: Session,
    principal: Principal,
    authorized: AuthorizedTarget,
    question: Callable[[Target], T],
) -> T:
    """Call `question` with the upstream, and again with a new token if it refuses the first.

    Raises what `question` raises, and `CredentialNeeded` if only a new connection helps. Tries no
    other credential. Release the transaction before the call.
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
    """Return the access token for the server's authentication type, and no other."""
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
    """Combine a config and a user's values; the user's own `key` overrides the shared one.

    With OAuth, `key` is the access token, and a shared key never replaces it. Authentication
    overrides the caller's `passed` headers, and static headers override both. Raises
    `UpstreamFailure` (`disabled`) for a command that may not be started.
    """
    if config.transport == "stdio" and not config.may_start:
        raise UpstreamFailure(
            "The portal runs a command only after the server is saved and active.",
            reason=HealthReason.DISABLED,
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
        transport=_transport(config.transport),
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


def _transport(stored: str) -> Literal["stdio", "http", "sse"]:
    if stored == "stdio":
        return "stdio"
    return "http" if stored == "http" else "sse"


def _signing(credentials: Mapping[str, object]) -> AwsSigning:
    """Return the stored AWS credentials; region and service default as in LiteLLM."""
    stored = {field: credentials.get(name) for name, field in _AWS.items()}
    return AwsSigning(
        **{
            field: value.strip()
            for field, value in stored.items()
            if isinstance(value, str) and value
        }
    )


def _passed_headers(config: UpstreamConfig, passed: Passed) -> dict[str, str]:
    """Return the caller's headers that the server lists, under the names in its list."""
    sent = {name.lower(): value for name, value in passed.items()}
    return {name: sent[name.lower()] for name in config.extra_headers if name.lower() in sent}


def _put_over(headers: dict[str, str], others: Mapping[str, str]) -> None:
    """Add headers, replacing those with the same name in any case."""
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
