"""Credentials and response format of a request, with the special rules of the OAuth broker."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, request

from portal.domain import request_headers

View = TypeVar("View", bound=Callable[..., Any])


def of_the_broker(speaks: str, *, asks_who: bool = True) -> Callable[[View], View]:
    """Mark a view of the OAuth broker, which accepts a key, a session or an anonymous caller.

    With `asks_who=False`, credentials are ignored. `speaks` is `oauth` (errors of RFC 6749),
    `document` (JSON), or `browser` (pages for browsers, JSON for API clients).
    """

    def marked(view: View) -> View:
        view.marks = {"speaks": speaks, "asks": "who" if asks_who else ""}  # type: ignore[attr-defined]
        return view

    return marked


def speaks_oauth() -> bool:
    """Return whether errors of this request have the format of RFC 6749, section 5.2."""
    return marks().get("speaks") == "oauth"


def marks() -> dict[str, str]:
    """Return the marks of `of_the_broker` on the view of this request, or an empty dict."""
    return getattr(current_app.view_functions.get(request.endpoint or ""), "marks", {})


def wants_page() -> bool:
    """Return whether the request accepts HTML."""
    return "text/html" in request.headers.get("Accept", "")


def presented_key() -> str | None:
    """Return the API key of the request, or None.

    The first header that is present decides, even if it contains no key: the key is then empty.
    """
    return request_headers.presented_key(_headers())


def caller_headers() -> dict[str, str]:
    """Return the request headers that may be forwarded to an upstream if its server lists them.

    The portal's own credentials are excluded, and any header whose value contains the API key.
    """
    return request_headers.passable_headers(request.headers.items(), [presented_key()])


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}
