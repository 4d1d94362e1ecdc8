"""From a stored server and a person to an upstream that can be spoken to: the last line that opens secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from portal.domain.credentials import auth_headers, setup_url
from portal.domain.errors import CredentialNeeded, MissingVariables, UpstreamFailure
from portal.domain.principals import Principal
from portal.domain.servers import AuthType
from portal.domain.upstream import HealthReason, Target
from portal.domain.variables import Scope, Variable, interpolate, missing_variables, references, required_variables
from portal.services.inner import personal
from portal.services.inner.definitions import Definition, opened
from portal.services.inner.house import house_of
from portal.store.models import Server

DEFAULT_TIMEOUT = 30.0
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


def blueprint_of(session: Session, row: Server) -> Blueprint:
    """The blueprint of a stored server."""
    return Blueprint(
        transport=row.transport,
        auth_type=row.auth_type,
        definition=opened(session, row, credentials=True),
        command=row.command,
        variables=declared(row),
        timeout=row.timeout,
    )


def declared(row: Server) -> tuple[Variable, ...]:
    """The variables that a server declares."""
    return tuple(Variable(v.name, Scope(v.scope), v.description, v.sealed is not None) for v in row.variables)


def target_to_call(session: Session, principal: Principal, row: Server) -> Target:
    """The upstream as `principal` reaches it for a tool call.

    Raises `MissingVariables` (412) with the names, `CredentialNeeded` (401) where their key or sign-in is missing, and
    `UpstreamFailure` for a way of authenticating that the portal cannot do.
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
    if row.auth_type == AuthType.AWS_SIGV4:
        raise UpstreamFailure("The portal cannot sign requests with AWS SigV4.", reason=HealthReason.DISABLED)
    return build(blueprint_of(session, row), values, key=key)


def target_to_probe(session: Session, row: Server) -> Target | HealthReason:
    """The upstream as the portal itself reaches it, or the reason why it cannot be judged without a person."""
    house = house_of(session)
    if row.transport == "stdio" and not house.stdio_enabled:
        return HealthReason.DISABLED
    if any(variable.is_required for variable in row.variables):
        return HealthReason.PER_USER_VALUE
    if row.is_byok or row.auth_type in _OAUTH or row.auth_type == AuthType.AWS_SIGV4:
        return HealthReason.SIGN_IN_NEEDED
    return build(blueprint_of(session, row), {})


def target_to_list(session: Session, principal: Principal, row: Server) -> Target:
    """The upstream for listing tools, which missing values do not block: headers that need one are left out."""
    key = personal.opened_key(session, row, principal.user_id) if row.is_byok else None
    return build(blueprint_of(session, row), personal.opened_values(session, row, principal.user_id), key=key)


def build(blueprint: Blueprint, values: Mapping[str, str], *, key: str | None = None) -> Target:
    """Put a blueprint and a person's values together; `key` is the person's own and goes before the shared one."""
    definition = blueprint.definition
    secret = key if key is not None else definition.credentials.get("auth_value")
    headers: dict[str, str] = {}
    if isinstance(secret, str) and secret and blueprint.auth_type:
        headers |= auth_headers(AuthType(blueprint.auth_type), secret.strip())
    headers |= _static_headers(blueprint, values, headers)
    return Target(
        transport="stdio" if blueprint.transport == "stdio" else "http" if blueprint.transport == "http" else "sse",
        url=definition.urls.get("url", ""),
        spec_url=definition.urls.get("spec_path", ""),
        command=blueprint.command or "",
        args=tuple(definition.args),
        env=dict(definition.env),
        headers=headers,
        timeout=blueprint.timeout or DEFAULT_TIMEOUT,
    )


def _static_headers(blueprint: Blueprint, values: Mapping[str, str], already: Mapping[str, str]) -> dict[str, str]:
    personal_names = {v.name for v in blueprint.variables if v.scope is Scope.USER}
    known = {name: value for name, value in values.items() if name in personal_names} | dict(
        blueprint.definition.globals
    )
    templates = blueprint.definition.static_headers
    used = {name for template in templates.values() for name in references(template)}
    unset = set(missing_variables(required_variables(blueprint.variables, used), known))
    spelled = {name.lower(): name for name in already}
    # A static header goes before the one that the auth type makes, under the spelling that is there already.
    return {
        spelled.get(name.lower(), name): interpolate(template, known).strip()
        for name, template in templates.items()
        if unset.isdisjoint(references(template))
    }
