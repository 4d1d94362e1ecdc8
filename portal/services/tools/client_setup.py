"""How AI clients connect to a server or toolset that their user may use."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from portal.authorization import Action
from portal.domain.principals import Principal
from portal.domain.snippets import Snippet, endpoint, key_snippets, sign_in_snippets
from portal.services.runtime import runtime_of
from portal.services.servers import queries
from portal.services.servers.queries import prefix_of
from portal.services.tools import toolsets


@dataclass(frozen=True)
class Connection:
    """The gateway address of a server or toolset, and the setup for each client: with a sign-in, or
    with an API key."""

    url: str
    with_sign_in: tuple[Snippet, ...]
    with_key: tuple[Snippet, ...]


def describe_connection(session: Session, principal: Principal, server_id: str) -> Connection:
    """Return the setup for one server at its address of the gateway."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_USE).row
    url = endpoint(runtime_of(session).gateway_url, prefix_of(row))
    return _connection(prefix_of(row), url)


def describe_toolset(session: Session, principal: Principal, toolset_id: str) -> Connection:
    """Return the setup for a toolset, whose tools are served at `/toolset/{name}/mcp`."""
    name = toolsets.get_toolset(session, principal, toolset_id).toolset_name
    base = runtime_of(session).gateway_url.rstrip("/")
    url = endpoint(f"{base}/toolset", name)
    return _connection(name, url)


def _connection(name: str, url: str) -> Connection:
    return Connection(url, sign_in_snippets(name, url), key_snippets(name, url))
