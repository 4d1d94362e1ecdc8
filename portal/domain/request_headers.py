"""Credentials in a caller's headers, and the headers that may be forwarded to an upstream."""

from collections.abc import Iterable, Mapping

# Credentials of the portal itself, which are never forwarded to an upstream.
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
    """Return the token in a value of `Authorization`, or an empty string for another scheme."""
    scheme, _, value = header.partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def presented_key(headers: Mapping[str, str]) -> str | None:
    """Return the API key in headers by lower-case name, or None.

    An `Authorization` header takes precedence, even without a bearer token: the key is then empty.
    """
    header = headers.get("authorization")
    return headers.get("x-api-key") if header is None else bearer_of(header)


def presented_credential(headers: Mapping[str, str]) -> str | None:
    """Return the key or token of a request to the gateway, or None.

    `x-litellm-api-key` takes precedence, with or without `Bearer`.
    """
    header = headers.get("x-litellm-api-key")
    return presented_key(headers) if header is None else bearer_of(header) or header.strip()


def passable_headers(
    headers: Iterable[tuple[str, str]], credentials: Iterable[str | None]
) -> dict[str, str]:
    """What an upstream may be passed on of a request's headers, if its server lists them.

    The portal's own credentials are excluded, and any header whose value contains one of
    `credentials`.
    """
    secrets = [credential for credential in credentials if credential]
    return {
        name.lower(): value
        for name, value in headers
        if name.lower() not in _NOT_PASSED
        and not name.lower().startswith("proxy-")
        and not any(secret in value for secret in secrets)
    }
