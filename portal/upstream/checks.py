"""Validation of URLs and headers of outgoing requests."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2

# RFC 9110, sections 5.1 and 5.5: a token, and visible text with inner blanks, encoded as latin-1.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,16384}\Z")
_URL_TEXT = re.compile(r"[^\s\\\x00-\x1f\x7f]{1,2048}\Z")
# Headers that only the portal sets. A stored `Transfer-Encoding` would be request smuggling.
_OURS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class BadAddress(httpx2.RequestError):
    """The URL is not valid: not http(s), with user info, or not a URL."""


class InvalidHeader(ValueError):
    """A header name or value is not valid."""


def checked_url(text: str) -> httpx2.URL:
    """Return `text` as a URL. Raises `BadAddress` unless it is http(s) with a host, no user info.

    Two parsers must agree on the host, since parsers differ in what they read as host and path.
    """
    if not _URL_TEXT.match(text):
        raise BadAddress("blanks, control characters or a backslash in a URL")
    try:
        url = httpx2.URL(text)
        other = urlsplit(text)
        same_host = url.host == other.hostname or not url.host.isascii()
        same = same_host and url.port in (other.port, None)
    except (httpx2.InvalidURL, ValueError) as fault:
        raise BadAddress("not a URL") from fault
    if not same:
        raise BadAddress("a URL that parsers read differently")
    check_address(url)
    return url


def check_address(url: httpx2.URL) -> None:
    """Raise `BadAddress` for a parsed URL as `checked_url` does."""
    if url.scheme not in ("http", "https") or not url.host:
        raise BadAddress("not an http URL")
    if url.userinfo:
        raise BadAddress("a URL with user info")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return `headers` to send.

    Raises `InvalidHeader` for invalid headers (RFC 9110, section 5) and those set by the portal.
    """
    for name, value in headers.items():
        if not _HEADER_NAME.match(name):
            raise InvalidHeader("A header name contains invalid characters.")
        if name.lower() in _OURS or name.lower().startswith("proxy-"):
            raise InvalidHeader(f"The header {name} is set by the portal and cannot be changed.")
        if not _HEADER_VALUE.match(value):
            raise InvalidHeader(
                f"The value of the header {name} contains characters that are not allowed."
            )
    return {name: value.strip(" \t") for name, value in headers.items()}
