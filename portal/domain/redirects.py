"""Allowed redirect URIs: the portal's origin, loopback hosts, and the operator's list."""

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote, urlsplit

from portal.domain.addresses import is_this_machine
from portal.domain.errors import InvalidRequest

NATIVE_CLIENTS = frozenset({"cursor://anysphere.cursor-mcp/oauth/callback"})
MAX_LENGTH = 2_048
HINT = "An Admin can list the client's origin under Settings, Trusted redirect origins."
_VISIBLE = re.compile(r"[\x21-\x7e]+\Z")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_redirect_uri(text: str, *, public_url: str | None, trusted: Iterable[str] = ()) -> None:
    """Raise `InvalidRequest` for the field `redirect_uri` if the URI is not allowed.

    `trusted` are the operator's entries: `host`, `host:port`, `*.suffix` (subdomains only), https
    only, or the complete URI of a native app. The message never contains the portal's URL.
    """
    reason = _fault(text, public_url, tuple(trusted))
    if reason:
        raise InvalidRequest(f"{reason} {HINT}", field="redirect_uri", hint=HINT)


def is_trusted_entry(entry: str) -> bool:
    """Return whether an entry of the operator's list is valid."""
    text = entry.strip()
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() not in _DEFAULT_PORTS:
        return (
            bool(re.fullmatch(r"[a-z][a-z0-9.+-]*", scheme))
            and bool(_VISIBLE.match(rest))
            and "\\" not in rest
        )
    name = _listed_name(text.lower()) if scheme.lower() != "http" else None
    return name is not None


def is_loopback(uri: str) -> bool:
    """Return whether `uri` is an app on the user's computer, where any app may claim to be it."""
    parts = urlsplit(uri)
    return parts.scheme not in _DEFAULT_PORTS or is_this_machine(parts.hostname or "")


def shown_destination(uri: str) -> str:
    """Return the destination of `uri` for display: a host, or an app on the user's computer."""
    parts = urlsplit(uri)
    if parts.scheme not in _DEFAULT_PORTS:
        return f"the app for {parts.scheme}:// links"
    return f"an app on this computer ({parts.netloc})" if is_loopback(uri) else parts.netloc


def same_registered_uri(asked: str, registered: str) -> bool:
    """Return whether the URIs are equal, ignoring the port of loopback hosts (RFC 8252, 7.3)."""
    if asked == registered:
        return True
    one = urlsplit(asked)
    other = urlsplit(registered)
    if one.scheme != "http" or not is_this_machine(one.hostname or ""):
        return False
    return (one.scheme, one.hostname, one.path, one.query) == (
        other.scheme,
        other.hostname,
        other.path,
        other.query,
    )


def _fault(text: str, public_url: str | None, trusted: tuple[str, ...]) -> str:
    if not 0 < len(text) <= MAX_LENGTH or not _VISIBLE.match(text) or "\\" in text:
        return "The redirect URI is missing, too long, or contains invalid characters."
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "The redirect URI is not a valid URL."
    if parts.scheme not in _DEFAULT_PORTS:
        listed = NATIVE_CLIENTS | {entry.strip() for entry in trusted}
        return (
            "" if text in listed and "://" in text else "The redirect URI's scheme is not allowed."
        )
    if (
        "#" in text
        or not parts.hostname
        or "@" in parts.netloc
        or port == 0
        or parts.netloc.endswith(":")
    ):
        return "The redirect URI must have a host, and no user or fragment."
    if any(unquote(segment) in (".", "..") for segment in parts.path.split("/")):
        return "The redirect URI's path must not contain “.” or “..” segments."
    if (
        _is_ours(parts, public_url)
        or is_this_machine(parts.hostname)
        or _is_trusted(parts, trusted)
    ):
        return ""
    return "The host of the redirect URI is not trusted."


def _is_ours(parts: SplitResult, public_url: str | None) -> bool:
    if not public_url:
        return False
    ours = urlsplit(public_url)
    return _origin(parts) == _origin(ours)


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    return parts.scheme, (parts.hostname or ""), parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _is_trusted(parts: SplitResult, trusted: Iterable[str]) -> bool:
    if parts.scheme != "https":
        return False
    host = parts.hostname or ""
    port = parts.port or 443
    return any(_matches(host, port, entry) for entry in trusted)


def _matches(host: str, port: int, entry: str) -> bool:
    """Return whether an entry of the operator covers a host. Invalid entries cover nothing."""
    listed = _listed_name(entry.strip().lower())
    if listed is None or listed[1] != port:
        return False
    wanted = listed[0]
    return host.endswith(wanted.removeprefix("*")) if wanted.startswith("*.") else host == wanted


def _listed_name(text: str) -> tuple[str, int] | None:
    """Return host (with `*.` if given) and port of an entry, or None if it is invalid."""
    rest = text.partition("://")[2] if "://" in text else text
    try:
        listed = urlsplit(f"//{rest}")
        host = listed.hostname or ""
        port = listed.port or 443
    except ValueError:
        return None
    return (host, port) if _HOST.match(host.removeprefix("*.")) and not listed.username else None
