"""Trying out a definition before it is saved: a true MCP handshake with what is typed."""

from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.destinations import RESOURCE
from portal.domain.errors import InsufficientScope, UpstreamFailure
from portal.domain.principals import Principal
from portal.domain.servers import ServerFields, Transport, check_definition, check_values
from portal.domain.upstream import HealthReason, HealthStatus, ProbeResult, Target
from portal.domain.variables import Scope
from portal.services.inner import destinations, loading, personal, temporary
from portal.services.inner.definitions import route_of
from portal.services.inner.held_tokens import is_machine
from portal.services.inner.house import house_of
from portal.services.inner.server_views import KIND_OF_FAULT
from portal.services.inner.shared_tokens import typed_token
from portal.services.inner.targets import approach_to_call, ask, blueprint_of, build
from portal.store.database import release
from portal.store.models import Server, new_id
from portal.store.oauth_tables import ServerAuthorization

_TRY_TIMEOUT = 15.0


@dataclass(frozen=True)
class Trial:
    """What a try gave, and which variables had no value for it."""

    result: ProbeResult
    unset: tuple[str, ...] = ()


def try_definition(
    session: Session, principal: Principal, fields: ServerFields, *, server_id: str | None = None
) -> Trial:
    """Contact the upstream that `fields` describe and list its tools; nothing is stored.

    Values that are kept come from the stored server: a stored secret is never combined with an address that was just
    typed. Raises what the rules of a definition raise, and `Conflict` (`credentials_would_move`).
    """
    authz.require(principal, Action.SERVER_CREATE)
    check_values(fields)
    row = loading.find_server(session, principal, server_id, Action.SERVER_UPDATE).row if server_id else None
    tried = destinations.tried(session, row, fields) if row else _as_typed(session, fields)
    blueprint = blueprint_of(session, tried)
    house = house_of(session)
    check_definition(
        transport=Transport(blueprint.transport),
        url=blueprint.definition.urls.get("url"),
        spec_path=blueprint.definition.urls.get("spec_path"),
        command=blueprint.command,
        has_args=bool(blueprint.definition.args),
        stdio_enabled=house.stdio_enabled,
        stdio_commands=house.stdio_commands,
    )
    stays = row is not None and route_of(session, row).key(RESOURCE) == route_of(session, tried).key(RESOURCE)
    values = personal.opened_values(session, row, principal.user_id) if row and stays else {}
    unset = tuple(v.name for v in blueprint.variables if v.scope is Scope.USER and v.name not in values)
    known = session.get(ServerAuthorization, row.server_id) if row else None
    try:
        issuer = known.issuer if known else ""
        token = typed_token(session, blueprint.definition, issuer=issuer) if is_machine(tried) else None
    except UpstreamFailure as failure:
        return Trial(ProbeResult(HealthStatus.UNHEALTHY, HealthReason(failure.reason), failure.message), unset)
    target = build(blueprint, values, key=token)
    target = replace(target, timeout=min(target.timeout, _TRY_TIMEOUT))
    release(session)
    return Trial(house.mcp.probe(target, with_tools=True, timeout=_TRY_TIMEOUT), unset)


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


def _as_typed(session: Session, fields: ServerFields) -> Server:
    return temporary.server_of(session, new_id(), new_id(), destinations.copied(fields), author=None)
