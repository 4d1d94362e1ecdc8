"""A request as it came in, without its body."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from portal.domain.errors import InvalidRequest
from portal.domain.gateway_addresses import GatewayAddress
from portal.domain.request_headers import presented_credential

# Two values of one of these would be read as one here and as the other elsewhere.
_ONCE = frozenset(
    {
        "accept",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "origin",
        "x-api-key",
        "x-litellm-api-key",
    }
)
_JOINED = frozenset({"accept"})


@dataclass(frozen=True)
class Asked:
    """Who asks for what: the method, what the address names, and the headers by lower-case name."""

    method: str
    address: GatewayAddress
    headers: Mapping[str, str] = field(repr=False)
    peer: str | None

    @property
    def credential(self) -> str | None:
        """The key or token that was shown."""
        return presented_credential(self.headers)

    @property
    def wants_page(self) -> bool:
        """Whether a browser asks, to show the answer to somebody."""
        return self.method == "GET" and "text/html" in self.headers.get("accept", "")


def read_request(scope: Mapping[str, Any], address: GatewayAddress) -> Asked:
    """The request of an ASGI scope. Raises `InvalidRequest` for a header that is there twice and
    decides something."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE - _JOINED:
            raise InvalidRequest(f"The header {name} is there twice.")
        else:
            headers[name] = f"{headers[name]}, {value}"
    client = scope.get("client")
    return Asked(scope["method"], address, headers, client[0] if client else None)
