"""Resources of tokens: the server or toolset of a gateway address, and access to it."""

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

_UNKNOWN = "Server or toolset not found, or you do not have access."


@dataclass(frozen=True)
class Resource:
    """The resource of a token: a server, a toolset, or, with neither, the whole gateway."""

    server_id: str | None = None
    toolset_id: str | None = None
    name: str = ""


def address_in(session: Session, resource: str) -> GatewayAddress | None:
    """Return the gateway address in a resource indicator, or None."""
    runtime = runtime_of(session)
    return read_resource(resource, (runtime.gateway_url, runtime.public_url))


def resolve(session: Session, address: GatewayAddress) -> Resource | None:
    """Return the resource at an address, or None, without checking access. IDs take precedence over
    names."""
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
    """Return the resource at an address if `principal` may use it.

    Raises `Forbidden` with the same message for unknown and hidden resources, and `LookOnly` for a
    server that the caller can see but not use.
    """
    found = resolve(session, address)
    if found is None:
        raise Forbidden(_UNKNOWN)
    return require_usable(session, principal, found)


def require_usable(session: Session, principal: Principal, of: Resource) -> Resource:
    """Return the resource with its display name if `principal` may use it.

    Raises the same errors as `find_usable`.
    """
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
            f"You can see the server {name} but do not have access. Ask an Admin to grant access to"
            " you or one of your teams."
        ) from None
    except (Forbidden, NotFound):
        raise Forbidden(_UNKNOWN) from None
