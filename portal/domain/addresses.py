"""Client IP addresses: internal ranges, and forwarded addresses from trusted proxies."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Arrival:
    """The addresses of a request: socket peer, X-Forwarded-For, and the operator's proxies."""

    peer: str | None
    forwarded_for: str | None = None
    operator_proxies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Appearance:
    """How the portal classifies a client; `via` is the trusted proxy, or None."""

    address: str | None
    is_internal: bool
    via: str | None


DEFAULT_INTERNAL_RANGES = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fe80::/10",
    "fc00::/7",
)


def in_ranges(address: str | None, ranges: Iterable[str]) -> bool:
    """Return whether `address` is in one of the CIDR `ranges`. An invalid address is in none."""
    try:
        ip = ipaddress.ip_address((address or "").strip())
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return any((mapped or ip) in network for network in _networks(ranges))


def neighborhood(address: str | None) -> str:
    """Return the network counted as one client in rate limits: an IPv4 address or IPv6 /64."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    mapped = getattr(ip, "ipv4_mapped", None)
    if isinstance(ip, ipaddress.IPv4Address) or mapped:
        return str(mapped or ip)
    return str(ipaddress.ip_network((ip.packed, 64), strict=False))


def is_this_machine(host: str | None) -> bool:
    """Return whether a host, without brackets, is a loopback host (RFC 8252, section 7.3)."""
    return host == "localhost" or in_ranges(host, ("127.0.0.0/8", "::1/128"))


def is_our_host(host: str, public_url: str) -> bool:
    """Return whether the Host header matches the public URL, to prevent DNS rebinding."""
    public = urlsplit(public_url)
    try:
        asked = urlsplit(f"//{host}")
        port = asked.port or (443 if public.scheme == "https" else 80)
    except ValueError:
        return False
    ours = public.port or (443 if public.scheme == "https" else 80)
    if (asked.hostname, port) == (public.hostname, ours):
        return True
    return is_this_machine(public.hostname) and is_this_machine(asked.hostname)


def is_address(text: str) -> bool:
    """Return whether `text` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_internal(address: str | None, ranges: Sequence[str]) -> bool:
    """Return whether a client is internal. Valid custom ranges replace the defaults."""
    custom = [text for text in ranges if any(_networks([text]))]
    return in_ranges(address, custom or DEFAULT_INTERNAL_RANGES)


def client_address(
    peer: str | None, forwarded_for: str | None, trusted_proxies: Sequence[str]
) -> str | None:
    """Return the client address: the socket's or, from a trusted proxy, the last untrusted one."""
    if not forwarded_for or not in_ranges(peer, trusted_proxies):
        return peer
    hops = [hop.strip() for hop in forwarded_for.split(",")]
    untrusted = [hop for hop in hops if not in_ranges(hop, trusted_proxies)]
    candidate = untrusted[-1] if untrusted else hops[0]
    try:
        return str(ipaddress.ip_address(candidate))
    except ValueError:
        return None


def _networks(ranges: Iterable[str]) -> Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for text in ranges:
        try:
            yield ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            continue
