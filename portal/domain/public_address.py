"""Checks of the portal's URL: configured, seen by the browser, and reported by proxies."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from portal.domain.addresses import in_ranges, is_this_machine
from portal.domain.discovery import DiscoveryStep, StepResult

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Sighting:
    """The portal's address in one request, from the browser, the connection and proxies."""

    origin: str = ""
    """Origin of the page in the browser, if the browser sent it."""
    host: str = ""
    peer: str = ""
    forwarded_for: str = ""
    forwarded_host: str = ""
    forwarded_proto: str = ""
    operator_proxies: tuple[str, ...] = ()


def judge_address(
    public_url: str, seen: Sighting, trusted_proxies: Sequence[str]
) -> tuple[DiscoveryStep, ...]:
    """Check whether users and clients reach the portal at its public URL, step by step."""
    return (
        _same_address(public_url, seen),
        _safe_transport(public_url, seen),
        _proxy(public_url, seen, trusted_proxies),
    )


def _same_address(public_url: str, seen: Sighting) -> DiscoveryStep:
    title = "Compare PORTAL_PUBLIC_URL with your browser"
    found = seen.origin or (f"{urlsplit(public_url).scheme}://{seen.host}" if seen.host else "")
    answer = f"configured: {public_url}\nyour request: {found or 'unknown'}"
    if not found or _origin(found) == _origin(public_url):
        return DiscoveryStep(
            title, StepResult.OK, "It matches the address in your browser.", answer=answer
        )
    ours = urlsplit(public_url)
    here = urlsplit(found)
    if is_this_machine(ours.hostname) and is_this_machine(here.hostname) and ours.port == here.port:
        said = (
            "Your browser uses another name of this computer. Sign-ins return to the configured"
            " name, without your cookie."
        )
        return DiscoveryStep(
            title, StepResult.WARN, said, answer=answer, remedy=f"Open the portal at {public_url}."
        )
    said = (
        "Your browser uses another address of the portal. Sign-ins return to the configured"
        " address, which may not work."
    )
    return DiscoveryStep(
        title,
        StepResult.FAIL,
        said,
        answer=answer,
        remedy=f"Set PORTAL_PUBLIC_URL={found} and restart.",
    )


def _safe_transport(public_url: str, seen: Sighting) -> DiscoveryStep:
    title = "Check https and cookies"
    parts = urlsplit(public_url)
    if parts.scheme == "https":
        return DiscoveryStep(
            title,
            StepResult.OK,
            "The portal uses https. Cookies are Secure and bound to this host (__Host-).",
        )
    remedy = "Put an https proxy in front, and set PORTAL_PUBLIC_URL to the https address."
    if seen.origin.startswith("https:") or seen.forwarded_proto == "https":
        said = (
            "Users connect over https, but PORTAL_PUBLIC_URL is http. Providers would redirect them"
            " to http."
        )
        return DiscoveryStep(title, StepResult.FAIL, said, remedy=remedy)
    if is_this_machine(parts.hostname):
        said = (
            "The portal uses http on this computer, for development. There are no __Host- cookies,"
            " and providers cannot read the portal's documents."
        )
        return DiscoveryStep(title, StepResult.WARN, said, remedy=remedy)
    said = (
        "The portal uses http. Providers refuse http callbacks, __Host- cookies are not possible,"
        " and tokens are not encrypted in transit."
    )
    return DiscoveryStep(title, StepResult.FAIL, said, remedy=remedy)


def _proxy(public_url: str, seen: Sighting, trusted: Sequence[str]) -> DiscoveryStep:
    title = "Check for proxies"
    told = {
        "X-Forwarded-For": seen.forwarded_for,
        "X-Forwarded-Host": seen.forwarded_host,
        "X-Forwarded-Proto": seen.forwarded_proto,
    }
    answer = "\n".join(f"{name}: {value[:200]}" for name, value in told.items() if value)
    if not answer:
        return DiscoveryStep(title, StepResult.OK, "No proxy headers found.")
    answer = f"from {seen.peer or 'an unknown address'}\n{answer}"
    if seen.forwarded_for and not in_ranges(seen.peer, trusted):
        said = (
            "An untrusted proxy sent the client address, so all users appear to have the address"
            " of the proxy."
        )
        remedy = f"If {seen.peer} is your proxy, add it under Settings, Trusted proxies."
        return DiscoveryStep(title, StepResult.WARN, said, answer=answer, remedy=remedy)
    scheme = urlsplit(public_url).scheme
    public_host = urlsplit(public_url).netloc
    if seen.forwarded_host and _origin(f"{scheme}://{seen.forwarded_host}") != _origin(public_url):
        said = "The host of the request to the proxy does not match PORTAL_PUBLIC_URL."
        return DiscoveryStep(
            title,
            StepResult.WARN,
            said,
            answer=answer,
            remedy=f"Serve {public_host} with the proxy, or change PORTAL_PUBLIC_URL.",
        )
    if seen.forwarded_proto and seen.forwarded_proto != scheme:
        said = "The scheme of the request to the proxy does not match PORTAL_PUBLIC_URL."
        remedy = (
            "Redirect http to https at the proxy."
            if scheme == "https"
            else "Set PORTAL_PUBLIC_URL to https."
        )
        return DiscoveryStep(title, StepResult.WARN, said, answer=answer, remedy=remedy)
    return DiscoveryStep(
        title, StepResult.OK, "The proxy headers match PORTAL_PUBLIC_URL.", answer=answer
    )


def _origin(address: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
