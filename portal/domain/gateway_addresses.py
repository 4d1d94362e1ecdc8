"""Addresses of the gateway: one server, one toolset, or all servers of the caller."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote, urlsplit

from portal.domain.oauth import canonical_resource
from portal.domain.servers import RESERVED_NAMES

_LONGEST_NAME = 300
_LONGEST_RESOURCE = 2_048
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class Names(StrEnum):
    """The kind of a gateway address."""

    ALL = "all"
    SERVER = "server"
    TOOLSET = "toolset"


@dataclass(frozen=True)
class GatewayAddress:
    """An address of the gateway. `name` is a server's alias, name or ID, or a toolset's name.
    `below_mcp` is true for `/mcp/{name}`, and false for `/{name}/mcp`."""

    names: Names
    name: str = ""
    below_mcp: bool = False

    @property
    def path(self) -> str:
        """Return the URL-encoded path."""
        name = quote(self.name, safe="")
        if self.names is Names.ALL:
            return "/mcp"
        if self.names is Names.TOOLSET:
            return f"/toolset/{name}/mcp"
        return f"/mcp/{name}" if self.below_mcp else f"/{name}/mcp"


def read_path(path: str) -> GatewayAddress | None:
    """Return the address of a URL-encoded path, or None if it is not an address of the gateway."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if not all(part and len(part) <= _LONGEST_NAME and part.isprintable() for part in parts):
        return None
    match parts:
        case ["mcp"]:
            return GatewayAddress(Names.ALL)
        case ["toolset", name, "mcp"]:
            return GatewayAddress(Names.TOOLSET, name)
        case ["mcp", name] if name.lower() not in RESERVED_NAMES:
            return GatewayAddress(Names.SERVER, name, below_mcp=True)
        case [name, "mcp"] if name.lower() not in RESERVED_NAMES:
            return GatewayAddress(Names.SERVER, name)
    return None


def read_resource(resource: str, bases: Iterable[str]) -> GatewayAddress | None:
    """Return the address in a resource indicator (RFC 8707) below one of `bases`, or None."""
    if len(resource) > _LONGEST_RESOURCE or not _VISIBLE.fullmatch(resource) or "#" in resource:
        return None
    try:
        named = canonical_resource(resource)
        is_plain = not urlsplit(resource).query and "@" not in urlsplit(resource).netloc
    except ValueError:
        return None
    for base in bases:
        prefix = canonical_resource(base)
        if is_plain and named.startswith(f"{prefix}/"):
            return read_path(named.removeprefix(prefix))
    return None
