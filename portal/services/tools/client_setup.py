"""How an AI client gets to a server that its person may use, or to a toolset that is granted to
them."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from portal.authorization import Action
from portal.domain.principals import Principal
from portal.domain.snippets import Snippet, endpoint, snippets
from portal.services.runtime import runtime_of
from portal.services.servers import queries
from portal.services.servers.queries import prefix_of
from portal.services.tools import toolsets


@dataclass(frozen=True)
class Connection:
    """The address of a server or toolset behind the gateway, and how each client is told of it."""

    url: str
    snippets: tuple[Snippet, ...]


def describe_connection(
    session: Session, principal: Principal, server_id: str, gateway: str | None
) -> Connection:
    """The snippets for one server, pointing to `gateway`, or where there is none to the portal's
    public URL."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_USE).row
    url = endpoint(gateway or runtime_of(session).public_url, prefix_of(row))
    return Connection(url, snippets(prefix_of(row), url))


def describe_toolset(
    session: Session, principal: Principal, toolset_id: str, gateway: str | None
) -> Connection:
    """The same for a toolset: the gateway serves its tools, and no others, at
    `/toolset/{name}/mcp`."""
    name = toolsets.get_toolset(session, principal, toolset_id).toolset_name
    base = (gateway or runtime_of(session).public_url).rstrip("/")
    url = endpoint(f"{base}/toolset", name)
    return Connection(url, snippets(name, url))
