"""What of a caller's headers says who asks, and what of them may go on to an upstream."""

from collections.abc import Iterable, Mapping

# By these the portal itself knows a caller or a session, and proxies one another: no upstream
# learns them.
_NOT_PASSED = frozenset(
    {
        "authorization",
        "cookie",
        "x-api-key",
        "x-csrftoken",
        "x-csrf-token",
        "x-litellm-api-key",
    }
)


def bearer_of(header: str) -> str:
    """The token in a value of `Authorization`; nothing for another scheme."""
    scheme, _, value = header.partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def presented_key(headers: Mapping[str, str]) -> str | None:
    """The API key of a request, of its headers by lower-case name. A header that is present decides
    alone, even when it holds no key."""
    header = headers.get("authorization")
    return headers.get("x-api-key") if header is None else bearer_of(header)


def presented_credential(headers: Mapping[str, str]) -> str | None:
    """The key or token with which a request asks the gateway; `x-litellm-api-key` goes first, and
    may hold it with or without `Bearer`."""
    header = headers.get("x-litellm-api-key")
    return presented_key(headers) if header is None else bearer_of(header) or header.strip()


def passable_headers(
    headers: Iterable[tuple[str, str]], credentials: Iterable[str | None]
) -> dict[str, str]:
    """What an upstream may be passed on of a request's headers, if its server lists them.

    Never the portal's own credentials: neither by name, nor a header that repeats one of these
    under another one.
    """
    secrets = [credential for credential in credentials if credential]
    return {
        name.lower(): value
        for name, value in headers
        if name.lower() not in _NOT_PASSED
        and not name.lower().startswith("proxy-")
        and not any(secret in value for secret in secrets)
    }
