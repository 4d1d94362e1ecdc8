"""A request without its body."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from portal.domain.errors import InvalidRequest
from portal.domain.gateway_addresses import GatewayAddress
from portal.domain.request_headers import presented_credential

# With two values, other software could use a different one than the gateway.
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
    """A request: its method, gateway address, headers by lower-case name, and peer."""

    method: str
    address: GatewayAddress
    headers: Mapping[str, str] = field(repr=False)
    peer: str | None

    @property
    def credential(self) -> str | None:
        """Return the API key or token of the request."""
        return presented_credential(self.headers)

    @property
    def wants_page(self) -> bool:
        """Return whether a browser requests a page."""
        return self.method == "GET" and "text/html" in self.headers.get("accept", "")

    @property
    def is_preflight(self) -> bool:
        """Return whether a browser asks which cross-origin requests are allowed."""
        return self.method == "OPTIONS" and "access-control-request-method" in self.headers


def read_request(scope: Mapping[str, Any], address: GatewayAddress) -> Asked:
    """Return the request of an ASGI scope.

    Raises `InvalidRequest` if a header that affects decisions is repeated.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE - _JOINED:
            raise InvalidRequest(f"The header {name} is repeated.")
        else:
            headers[name] = f"{headers[name]}, {value}"
    client = scope.get("client")
    return Asked(scope["method"], address, headers, client[0] if client else None)
