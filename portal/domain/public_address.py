"""The portal's own address: what is configured, what a browser sees, and what proxies in between
say."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from portal.domain.addresses import in_ranges, is_this_machine
from portal.domain.discovery import Step, Verdict

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Sighting:
    """How one request found the portal: what its browser calls us, and what the connection and
    proxies say."""

    origin: str = ""
    """What the browser's address bar begins with, where the browser says it."""
    host: str = ""
    peer: str = ""
    forwarded_for: str = ""
    forwarded_host: str = ""
    forwarded_proto: str = ""
    operator_proxies: tuple[str, ...] = ()


def judge_address(
    public_url: str, seen: Sighting, trusted_proxies: Sequence[str]
) -> tuple[Step, ...]:
    """Whether people and clients reach the portal where it says that it is, step by step."""
    return (
        _same_address(public_url, seen),
        _safe_transport(public_url, seen),
        _proxy(public_url, seen, trusted_proxies),
    )


def _same_address(public_url: str, seen: Sighting) -> Step:
    title = "Compare PORTAL_PUBLIC_URL with your browser"
    found = seen.origin or (f"{urlsplit(public_url).scheme}://{seen.host}" if seen.host else "")
    answer = f"configured: {public_url}\nyour request: {found or 'not told'}"
    if not found or _origin(found) == _origin(public_url):
        return Step(title, Verdict.OK, "It is the address that you use.", answer=answer)
    ours = urlsplit(public_url)
    here = urlsplit(found)
    if is_this_machine(ours.hostname) and is_this_machine(here.hostname) and ours.port == here.port:
        said = (
            "You use another name of this computer: a sign-in comes back to the configured one,"
            " without your cookie."
        )
        return Step(
            title, Verdict.WARN, said, answer=answer, remedy=f"Open the portal at {public_url}."
        )
    said = (
        "Your browser reaches the portal at another address: sign-ins will come back to one that"
        " may not work."
    )
    return Step(
        title,
        Verdict.FAIL,
        said,
        answer=answer,
        remedy=f"Set PORTAL_PUBLIC_URL={found} and restart.",
    )


def _safe_transport(public_url: str, seen: Sighting) -> Step:
    title = "Check https and cookies"
    parts = urlsplit(public_url)
    if parts.scheme == "https":
        return Step(
            title, Verdict.OK, "https: cookies are Secure and bound to this host (__Host-)."
        )
    remedy = "Put https in front, and set PORTAL_PUBLIC_URL to the https address."
    if seen.origin.startswith("https:") or seen.forwarded_proto == "https":
        said = (
            "People come by https, but PORTAL_PUBLIC_URL says http: providers would send them back"
            " by http."
        )
        return Step(title, Verdict.FAIL, said, remedy=remedy)
    if is_this_machine(parts.hostname):
        said = (
            "http on this computer, for development: no __Host- cookies, and nobody can read the"
            " portal's documents."
        )
        return Step(title, Verdict.WARN, said, remedy=remedy)
    said = (
        "http: providers refuse such a callback, __Host- cookies are impossible, and tokens can be"
        " read on the way."
    )
    return Step(title, Verdict.FAIL, said, remedy=remedy)


def _proxy(public_url: str, seen: Sighting, trusted: Sequence[str]) -> Step:
    title = "Look for proxies in between"
    told = {
        "X-Forwarded-For": seen.forwarded_for,
        "X-Forwarded-Host": seen.forwarded_host,
        "X-Forwarded-Proto": seen.forwarded_proto,
    }
    answer = "\n".join(f"{name}: {value[:200]}" for name, value in told.items() if value)
    if not answer:
        return Step(title, Verdict.OK, "None said that it is there.")
    answer = f"from {seen.peer or 'an unknown address'}\n{answer}"
    if seen.forwarded_for and not in_ranges(seen.peer, trusted):
        said = (
            "Somebody in between names the caller, but is not trusted: everybody seems to come from"
            " that address."
        )
        remedy = f"If {seen.peer} is your proxy, add it under Settings, Trusted proxies."
        return Step(title, Verdict.WARN, said, answer=answer, remedy=remedy)
    scheme = urlsplit(public_url).scheme
    public_host = urlsplit(public_url).netloc
    if seen.forwarded_host and _origin(f"{scheme}://{seen.forwarded_host}") != _origin(public_url):
        said = "The proxy was asked for another host than PORTAL_PUBLIC_URL names."
        return Step(
            title,
            Verdict.WARN,
            said,
            answer=answer,
            remedy=f"Let it serve {public_host}, or change the setting.",
        )
    if seen.forwarded_proto and seen.forwarded_proto != scheme:
        said = "The proxy was reached by another scheme than PORTAL_PUBLIC_URL names."
        remedy = (
            "Redirect http to https at the proxy."
            if scheme == "https"
            else "Set PORTAL_PUBLIC_URL to https."
        )
        return Step(title, Verdict.WARN, said, answer=answer, remedy=remedy)
    return Step(title, Verdict.OK, "It says what PORTAL_PUBLIC_URL says.", answer=answer)


def _origin(address: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
