"""From a stored server and a person to an upstream that can be spoken to: the last line that opens secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from portal.domain.credentials import auth_headers, setup_url
from portal.domain.errors import CredentialNeeded, MissingVariables
from portal.domain.principals import Principal
from portal.domain.servers import AuthType
from portal.domain.upstream import AwsSigning, HealthReason, Target
from portal.domain.variables import Scope, Variable, interpolate, missing_variables, references, required_variables
from portal.services.inner import personal
from portal.services.inner.definitions import Definition, opened
from portal.services.inner.house import house_of
from portal.store.models import Server

DEFAULT_TIMEOUT = 30.0
Passed = Mapping[str, str]
NOTHING: Passed = {}
_AWS = {
    "aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token", "aws_region_name": "region", "aws_service_name": "service",
    "aws_role_name": "role",
}  # fmt: skip
_OAUTH = (AuthType.OAUTH2, AuthType.OAUTH2_TOKEN_EXCHANGE)


@dataclass(frozen=True)
class Blueprint:
    """All that decides what is sent to an upstream, in the clear and only for as long as it takes to send it."""

    transport: str
    auth_type: str | None
    definition: Definition = field(repr=False)
    command: str | None = None
    variables: tuple[Variable, ...] = ()
    timeout: float | None = None
    extra_headers: tuple[str, ...] = ()


def blueprint_of(session: Session, row: Server) -> Blueprint:
    """The blueprint of a stored server."""
    return Blueprint(
        transport=row.transport,
        auth_type=row.auth_type,
        definition=opened(session, row, credentials=True),
        command=row.command,
        variables=declared(row),
        timeout=row.timeout,
        extra_headers=tuple(row.extra_headers),
    )


def declared(row: Server) -> tuple[Variable, ...]:
    """The variables that a server declares."""
    return tuple(Variable(v.name, Scope(v.scope), v.description, v.sealed is not None) for v in row.variables)


def target_to_call(session: Session, principal: Principal, row: Server, passed: Passed = NOTHING) -> Target:
    """The upstream as `principal` reaches it for a tool call; of the headers in `passed`, those the server lists go on.

    Raises `MissingVariables` (412) with the names, and `CredentialNeeded` (401) where their key or sign-in is missing.
    """
    values = personal.opened_values(session, row, principal.user_id)
    missing = missing_variables([Variable(v.name, Scope.USER) for v in row.variables if v.is_required], values)
    link = setup_url(house_of(session).public_url, row.server_id)
    name = row.server_name or row.alias or row.server_id
    if missing:
        raise MissingVariables(
            f"{name} needs values that only you have: {', '.join(missing)}. Set them at {link} and try again.",
            server_id=row.server_id, server_name=name, names=list(missing), missing=list(missing), setup_url=link,
        )  # fmt: skip
    key = personal.opened_key(session, row, principal.user_id) if row.is_byok else None
    if row.is_byok and key is None:
        raise CredentialNeeded(
            f"{name} needs your own key. Store it at {link} and try again.", code="byok_auth_required",
            server_id=row.server_id, setup_url=link,
        )  # fmt: skip
    if row.auth_type in _OAUTH:
        raise CredentialNeeded(
            f"{name} needs you to sign in. Connect at {link} and try again.", server_id=row.server_id, connect_url=link
        )
    return build(blueprint_of(session, row), values, key=key, passed=passed)


def target_to_probe(session: Session, row: Server) -> Target | HealthReason:
    """The upstream as the portal itself reaches it, or the reason why it cannot be judged without a person."""
    house = house_of(session)
    if row.transport == "stdio" and not house.stdio_enabled:
        return HealthReason.DISABLED
    if any(variable.is_required for variable in row.variables):
        return HealthReason.PER_USER_VALUE
    if row.is_byok or row.auth_type in _OAUTH:
        return HealthReason.SIGN_IN_NEEDED
    return build(blueprint_of(session, row), {})


def target_to_list(session: Session, principal: Principal, row: Server, passed: Passed = NOTHING) -> Target:
    """The upstream for listing tools, which missing values do not block: headers that need one are left out."""
    key = personal.opened_key(session, row, principal.user_id) if row.is_byok else None
    values = personal.opened_values(session, row, principal.user_id)
    return build(blueprint_of(session, row), values, key=key, passed=passed)


def build(
    blueprint: Blueprint, values: Mapping[str, str], *, key: str | None = None, passed: Passed = NOTHING
) -> Target:
    """Put a blueprint and a person's values together; `key` is the person's own and goes before the shared one.

    What a caller passes on (`passed`) gives way to the sign-in, and that to a static header of the same name.
    """
    definition = blueprint.definition
    secret = key if key is not None else definition.credentials.get("auth_value")
    headers = _passed_headers(blueprint, passed)
    if isinstance(secret, str) and secret and blueprint.auth_type:
        _put_over(headers, auth_headers(AuthType(blueprint.auth_type), secret.strip()))
    _put_over(headers, _static_headers(blueprint, values))
    return Target(
        transport="stdio" if blueprint.transport == "stdio" else "http" if blueprint.transport == "http" else "sse",
        url=definition.urls.get("url", ""),
        spec_url=definition.urls.get("spec_path", ""),
        command=blueprint.command or "",
        args=tuple(definition.args),
        env=dict(definition.env),
        headers=headers,
        timeout=blueprint.timeout or DEFAULT_TIMEOUT,
        signing=_signing(definition.credentials) if blueprint.auth_type == AuthType.AWS_SIGV4 else None,
    )


def _signing(credentials: Mapping[str, object]) -> AwsSigning:
    """The stored AWS credentials; where region or service are not stored, LiteLLM's usual ones."""
    stored = {field: credentials.get(name) for name, field in _AWS.items()}
    return AwsSigning(**{field: value.strip() for field, value in stored.items() if isinstance(value, str) and value})


def _passed_headers(blueprint: Blueprint, passed: Passed) -> dict[str, str]:
    """The caller's headers that the server lists, under the names that it gives them."""
    sent = {name.lower(): value for name, value in passed.items()}
    return {name: sent[name.lower()] for name in blueprint.extra_headers if name.lower() in sent}


def _put_over(headers: dict[str, str], others: Mapping[str, str]) -> None:
    """Add headers, in place of those of the same name however it is spelled."""
    spelled = {name.lower(): name for name in headers}
    for name, value in others.items():
        headers.pop(spelled.get(name.lower(), ""), None)
        headers[name] = value


def _static_headers(blueprint: Blueprint, values: Mapping[str, str]) -> dict[str, str]:
    personal_names = {v.name for v in blueprint.variables if v.scope is Scope.USER}
    known = {name: value for name, value in values.items() if name in personal_names} | dict(
        blueprint.definition.globals
    )
    templates = blueprint.definition.static_headers
    used = {name for template in templates.values() for name in references(template)}
    unset = set(missing_variables(required_variables(blueprint.variables, used), known))
    return {
        name: interpolate(template, known).strip()
        for name, template in templates.items()
        if unset.isdisjoint(references(template))
    }
