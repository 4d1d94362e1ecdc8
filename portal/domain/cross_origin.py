"""Headers that let scripts of another origin read a response (CORS). Cookies are never allowed."""

from collections.abc import Iterable

_EXPOSED = "Mcp-Session-Id, MCP-Protocol-Version, Retry-After, WWW-Authenticate, X-Request-ID"
_ALLOWED = frozenset(
    {
        "authorization",
        "content-type",
        "last-event-id",
        "x-api-key",
        "x-litellm-api-key",
    }
)
_ALLOWED_PREFIXES = ("mcp-", "x-mcp-")
_SECONDS = 600


def answer_headers(origin: str) -> dict[str, str]:
    """Return the headers of a response that scripts of `origin`, or of `*`, may read."""
    headers = {"access-control-allow-origin": origin, "access-control-expose-headers": _EXPOSED}
    return headers if origin == "*" else headers | {"vary": "Origin"}


def preflight_headers(origin: str, methods: Iterable[str], requested: str) -> dict[str, str]:
    """Return the headers of the response to a preflight request.

    `requested` is its `Access-Control-Request-Headers`. Only headers of MCP and of its clients are
    allowed.
    """
    names = [name.strip().lower() for name in requested.split(",")]
    allowed = [name for name in names if _is_allowed(name)]
    return answer_headers(origin) | {
        "access-control-allow-methods": ", ".join(methods),
        "access-control-allow-headers": ", ".join(dict.fromkeys(allowed)),
        "access-control-max-age": str(_SECONDS),
        "vary": "Origin, Access-Control-Request-Headers",
    }


def _is_allowed(name: str) -> bool:
    is_token = name.replace("-", "").isalnum() and name.isascii()
    return name in _ALLOWED or (is_token and name.startswith(_ALLOWED_PREFIXES))
