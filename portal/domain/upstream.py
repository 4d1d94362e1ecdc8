"""The machines the portal speaks to: whom to ask, what they answered, and which addresses are
allowed."""

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
    """healthy: the handshake succeeded; unhealthy: tried and failed; unknown: not tried, or not
    ours to judge."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class HealthReason(StrEnum):
    """Why a server has its status."""

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
    """With what requests are signed (AWS Signature Version 4); `role` is one that would have to be
    assumed first."""

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
    """One upstream, ready to be spoken to: every value resolved, so most fields are secret.

    `timeout` (seconds) bounds a whole operation: connecting, the handshake and the work. `spec_url`
    is an OpenAPI document; a target with only that is judged by fetching it. `home` names the home
    folder that a command keeps from one start to the next; without it that is in memory. `repr`
    shows the host and nothing that may be a secret.
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
        """The host or the command's name: all of a target that a message may say."""
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
    """A tool as its server described it: `wire` is MCP's own object with its camelCase keys."""

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
    """What a tool call gave: `wire` is MCP's CallToolResult (content, structuredContent, isError,
    _meta).

    `is_error` is the upstream's own word, and also true when it refused the call with a JSON-RPC
    error; `wire` then holds that error's message as its only content.
    """

    wire: Mapping[str, Any]
    is_error: bool
    duration_ms: int

    def __repr__(self) -> str:
        return f"ToolOutcome(is_error={self.is_error!r}, duration_ms={self.duration_ms!r})"


@dataclass(frozen=True)
class ProbeResult:
    """One look at an upstream. `message` is for people and never holds a secret, a URL path or the
    upstream's words.

    `tools` is None when they were not asked for or not given. `challenge`: a 401 carried
    WWW-Authenticate; `wanted`: the scopes of a refusal that asks for more rights (RFC 6750, 3.1).
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


# Refused whatever the operator allows: none of these is ever an MCP server, and several hand out
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
# The rest of IANA's special-purpose registries. Written out: `is_global` calls several of them
# global.
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
    """The IPv4 addresses that packets to `address` may really go to (RFC 4291, 6052, 8215, 3056,
    4380)."""
    bits = int(address)
    low = IPv4Address(bits & 0xFFFFFFFF)
    if bits > 1 and _within(address, _LOW_32_BITS):  # :: and ::1 are themselves
        return (low,)
    if address in _LOCAL_NAT64:
        # The operator of the translator chooses the prefix length, so both ends of RFC 6052's table
        # are judged.
        spread = (bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF
        return (low, IPv4Address(spread)) if spread else (low,)
    if address in _SIX_TO_FOUR:
        return (IPv4Address(bits >> 80 & 0xFFFFFFFF),)
    if address in _TEREDO:
        return (IPv4Address(bits >> 64 & 0xFFFFFFFF), IPv4Address(~bits & 0xFFFFFFFF))
    return ()


@dataclass(frozen=True)
class OutboundPolicy:
    """Which addresses the portal may connect to.

    `allow_private` opens loopback and private ranges: all of them, none, or those within the listed
    CIDRs. Raises ValueError for a text that is no CIDR.
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
        """Whether to connect to `ip`, a literal IPv4 or IPv6 address; anything else is refused."""
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
