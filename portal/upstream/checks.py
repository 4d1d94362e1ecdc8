"""What of the data at hand may become an address or a header on the wire."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2

# RFC 9110, 5.1 and 5.5: a token, and visible text with inner blanks; latin-1 is what goes over the
# wire.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,16384}\Z")
_URL_TEXT = re.compile(r"[^\s\\\x00-\x1f\x7f]{1,2048}\Z")
# How a message is cut and routed is ours to say: a stored `Transfer-Encoding` would be request
# smuggling.
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
    """The URL is none that the portal fetches: another scheme, user-info, or not a URL at all."""


class InvalidHeader(ValueError):
    """A header name or value that may not go over the wire."""


def checked_url(text: str) -> httpx2.URL:
    """`text` as the URL that will be fetched. Raises BadAddress unless it is http(s) with a host
    and no user-info.

    Two parsers must see the same host in it: what one takes for a path, another takes for the host
    to send to.
    """
    if not _URL_TEXT.match(text):
        raise BadAddress("blanks, control characters or a backslash in an address")
    try:
        url = httpx2.URL(text)
        other = urlsplit(text)
        same = (url.host == other.hostname or not url.host.isascii()) and url.port in (
            other.port,
            None,
        )
    except (httpx2.InvalidURL, ValueError) as fault:
        raise BadAddress("not an address") from fault
    if not same:
        raise BadAddress("an address that parsers read differently")
    check_url(url)
    return url


def check_url(url: httpx2.URL) -> None:
    """Judge a URL that is parsed already. Raises BadAddress as `checked_url` does."""
    if url.scheme not in ("http", "https") or not url.host:
        raise BadAddress("not an http address")
    if url.userinfo:
        raise BadAddress("an address with user-info")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers` as they may be sent. Raises InvalidHeader for a line break, NUL or what is no
    header (RFC 9110, 5), and for one that frames or routes the message."""
    for name, value in headers.items():
        if not _HEADER_NAME.match(name):
            raise InvalidHeader("A header's name has characters that are not allowed.")
        if name.lower() in _OURS or name.lower().startswith("proxy-"):
            raise InvalidHeader(f"The header {name} is set by the portal itself.")
        if not _HEADER_VALUE.match(value):
            raise InvalidHeader(
                f"The value of the header {name} has characters that are not allowed."
            )
    return {name: value.strip(" \t") for name, value in headers.items()}
