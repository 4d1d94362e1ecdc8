"""Which server or toolset an address of the gateway names, and whether somebody may use it."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden, LookOnly, NotFound
from portal.domain.gateway_addresses import GatewayAddress, Names, read_resource
from portal.domain.principals import Principal
from portal.services.runtime import runtime_of
from portal.services.servers import queries
from portal.services.servers.queries import prefix_of
from portal.store.models import Server, Toolset

_UNKNOWN = "There is no such server or toolset, or you may not use it."


@dataclass(frozen=True)
class Resource:
    """What a token is bound to: a server, a toolset, or, with neither, the gateway as a whole."""

    server_id: str | None = None
    toolset_id: str | None = None
    name: str = ""


def address_in(session: Session, resource: str) -> GatewayAddress | None:
    """What a resource indicator names; None where it is no address of this gateway."""
    runtime = runtime_of(session)
    return read_resource(resource, (runtime.gateway_url, runtime.public_url))


def resolve(session: Session, address: GatewayAddress) -> Resource | None:
    """What an address names, whoever asks; None where nothing is called so. An id goes before a
    name."""
    if address.names is Names.ALL:
        return Resource()
    if address.names is Names.TOOLSET:
        named = select(Toolset.toolset_id).where(Toolset.toolset_name == address.name)
        toolset_id = session.scalar(named)
        return Resource(toolset_id=toolset_id, name=address.name) if toolset_id else None
    called = select(Server.server_id).where(queries.is_called(address.name))
    server_id = session.scalar(called.order_by((Server.server_id == address.name).desc()).limit(1))
    return Resource(server_id=server_id, name=address.name) if server_id else None


def find_usable(session: Session, principal: Principal, address: GatewayAddress) -> Resource:
    """What an address names, if `principal` may use it now.

    Raises `Forbidden` in the same words for what is not there and for what they may not see, and
    `LookOnly` for a server that they see and may not use.
    """
    found = resolve(session, address)
    if found is None:
        raise Forbidden(_UNKNOWN)
    return require_usable(session, principal, found)


def require_usable(session: Session, principal: Principal, of: Resource) -> Resource:
    """The resource with the name to show it by, if `principal` may use it now. Raises as
    `find_usable` does."""
    if of.server_id is not None:
        row = _usable_server(session, principal, of.server_id)
        return Resource(server_id=row.server_id, name=row.server_name or prefix_of(row))
    if of.toolset_id is not None:
        granted = authz.granted_toolsets(principal)
        toolset = session.get(Toolset, of.toolset_id)
        if toolset is None or (granted is not None and of.toolset_id not in granted):
            raise Forbidden(_UNKNOWN)
        return Resource(toolset_id=toolset.toolset_id, name=toolset.toolset_name)
    return of


def _usable_server(session: Session, principal: Principal, server_id: str) -> Server:
    try:
        return queries.find_server(session, principal, server_id, Action.SERVER_USE).row
    except LookOnly:
        row = session.get(Server, server_id)
        name = prefix_of(row) if row is not None else server_id
        raise LookOnly(
            f"You see the server {name}, and have no access to it. Ask an Admin to grant it to you"
            " or to a team of yours."
        ) from None
    except (Forbidden, NotFound):
        raise Forbidden(_UNKNOWN) from None
