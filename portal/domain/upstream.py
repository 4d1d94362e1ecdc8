"""Data types of upstreams: targets, tools, results, and the policy of allowed addresses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Literal
from urllib.parse import urlsplit

Transport = Literal["http", "sse", "stdio"]
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class HealthStatus(StrEnum):
    """Health of a server.

    healthy: initialization succeeded; unhealthy: it failed; unknown: not checked, or not possible
    to check.
    """

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class HealthReason(StrEnum):
    """The reason for a health status."""

    OK = "ok"
    REFUSED = "refused"
    DNS = "dns"
    TLS = "tls"
    TIMEOUT = "timeout"
    NOT_MCP = "not_mcp"
    HTTP_STATUS = "http_status"
    SIGN_IN_NEEDED = "sign_in_needed"
    PER_USER_VALUE = "per_user_value"
    NEVER_CHECKED = "never_checked"
    DISABLED = "disabled"
    BLOCKED = "blocked"


@dataclass(frozen=True, repr=False)
class AwsSigning:
    """Credentials for AWS Signature Version 4; `role` would have to be assumed first."""

    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    region: str = "us-east-1"
    service: str = "bedrock-agentcore"
    role: str = ""

    def __repr__(self) -> str:
        return f"AwsSigning(region={self.region!r}, service={self.service!r})"


@dataclass(frozen=True, repr=False)
class Target:
    """An upstream with all values resolved. Most fields are secret, so `repr` shows only the host.

    `timeout` in seconds limits a whole operation: connection, initialization and work. `spec_url`
    is the URL of an OpenAPI document; a target with only that is checked by fetching it. `home` is
    the name of a command's persistent home folder; without it, the home folder is in memory.
    """

    transport: Transport
    url: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 20.0
    spec_url: str = ""
    signing: AwsSigning | None = None
    home: str = ""

    @property
    def label(self) -> str:
        """Return the host or the command's name, the only parts that messages may contain."""
        if self.transport == "stdio":
            return self.command.rsplit("/", 1)[-1] or "The command"
        try:
            return urlsplit(self.url or self.spec_url).hostname or "The server"
        except ValueError:
            return "The server"

    def __repr__(self) -> str:
        return (
            f"Target(transport={self.transport!r}, label={self.label!r}, timeout={self.timeout!r})"
        )


@dataclass(frozen=True, repr=False)
class ToolDefinition:
    """A tool as its server described it; `wire` is the MCP object with camelCase keys."""

    wire: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.wire["name"])

    @property
    def description(self) -> str:
        text = self.wire.get("description")
        return text if isinstance(text, str) else ""

    @property
    def input_schema(self) -> Mapping[str, Any]:
        schema = self.wire.get("inputSchema")
        return schema if isinstance(schema, dict) else {}

    def __repr__(self) -> str:
        return f"ToolDefinition(name={self.name!r})"


@dataclass(frozen=True, repr=False)
class ToolOutcome:
    """The result of a tool call; `wire` is MCP's CallToolResult.

    `is_error` is the upstream's value. It is also true for a JSON-RPC error; `wire` then contains
    the error message as its only content.
    """

    wire: Mapping[str, Any]
    is_error: bool
    duration_ms: int

    def __repr__(self) -> str:
        return f"ToolOutcome(is_error={self.is_error!r}, duration_ms={self.duration_ms!r})"


@dataclass(frozen=True)
class ProbeResult:
    """The result of a health check.

    `message` is for people and never contains a secret, a URL path or text of the upstream. `tools`
    is None if they were not requested or not returned. `challenge` is true if a 401 had a
    WWW-Authenticate header. `wanted` are the scopes of an insufficient_scope error (RFC 6750,
    section 3.1).
    """

    status: HealthStatus
    reason: HealthReason
    message: str
    latency_ms: int = 0
    protocol_version: str | None = None
    server_name: str | None = None
    server_version: str | None = None
    tools: tuple[ToolDefinition, ...] | None = None
    challenge: bool = False
    wanted: tuple[str, ...] | None = None


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


# Always blocked, whatever the operator allows. None of these is an MCP server, and several return
# cloud credentials.
_NEVER = _networks(
    "0.0.0.0/8",
    "169.254.0.0/16",
    "168.63.129.16/32",  # Azure's host agent
    "100.100.100.200/32",  # Alibaba's metadata, inside the shared space 100.64/10
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "fe80::/10",
    "ff00::/8",
    "fd00:ec2::254/128",  # AWS's metadata, inside the unique local space
    "fd20:ce::254/128",  # Google's
)
_PRIVATE = _networks(
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "::1/128",
    "fc00::/7",
)
# The rest of IANA's special-purpose registries. They are listed here, since `is_global` is true
# for several of them.
_SPECIAL = _networks(
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "2001::/23",
    "2001:db8::/32",
    "2620:4f:8000::/48",
    "3fff::/20",
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_LOW_32_BITS = _networks("::ffff:0:0/96", "::/96", "64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that packets to `address` may go to.

    See RFC 4291, 6052, 8215, 3056 and 4380.
    """
    bits = int(address)
    low = IPv4Address(bits & 0xFFFFFFFF)
    if bits > 1 and _within(address, _LOW_32_BITS):  # :: and ::1 are themselves
        return (low,)
    if address in _LOCAL_NAT64:
        # The operator of the translator chooses the prefix length, so both ends of the table in
        # RFC 6052 are checked.
        spread = (bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF
        return (low, IPv4Address(spread)) if spread else (low,)
    if address in _SIX_TO_FOUR:
        return (IPv4Address(bits >> 80 & 0xFFFFFFFF),)
    if address in _TEREDO:
        return (IPv4Address(bits >> 64 & 0xFFFFFFFF), IPv4Address(~bits & 0xFFFFFFFF))
    return ()


@dataclass(frozen=True)
class OutboundPolicy:
    """The addresses that the portal may connect to.

    `allow_private` allows loopback and private ranges: all, none, or the listed CIDRs. Raises
    `ValueError` for an invalid CIDR.
    """

    allow_private: bool | tuple[str, ...] = False

    def __post_init__(self) -> None:
        _ = self._allowed

    @cached_property
    def _allowed(self) -> tuple[Network, ...]:
        if isinstance(self.allow_private, bool):
            return _PRIVATE if self.allow_private else ()
        return _networks(*self.allow_private)

    def allows(self, ip: str) -> bool:
        """Return whether connections to `ip`, an IPv4 or IPv6 address, are allowed."""
        try:
            address = ip_address(ip)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and (carried := _embedded(address)):
            return all(self._allows(inner) for inner in carried)
        return self._allows(address)

    def _allows(self, address: Address) -> bool:
        if _within(address, _NEVER):
            return False
        if _within(address, _PRIVATE):
            return _within(address, self._allowed)
        if _within(address, _SPECIAL):
            return False
        return isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST
