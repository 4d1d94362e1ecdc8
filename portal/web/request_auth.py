"""How a request says who asks, and how it wants to be answered; the broker's views have ways of
their own."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, request

from portal.domain import request_headers

View = TypeVar("View", bound=Callable[..., Any])


def of_the_broker(speaks: str, *, asks_who: bool = True) -> Callable[[View], View]:
    """Mark a view of the OAuth broker: a key, a session or nobody may ask; not `asks_who`: it is
    the same for all.

    It `speaks` `oauth`, with the errors of RFC 6749, `document`, which is JSON, or `browser`: pages
    to people, JSON to programs.
    """

    def marked(view: View) -> View:
        view.marks = {"speaks": speaks, "asks": "who" if asks_who else ""}  # type: ignore[attr-defined]
        return view

    return marked


def speaks_oauth() -> bool:
    """Whether errors of this request are those of RFC 6749, 5.2."""
    return marks().get("speaks") == "oauth"


def marks() -> dict[str, str]:
    """What `of_the_broker` says of the view of this request; nothing for all others."""
    return getattr(current_app.view_functions.get(request.endpoint or ""), "marks", {})


def wants_page() -> bool:
    """Whether a browser asks, to show the answer to somebody."""
    return "text/html" in request.headers.get("Accept", "")


def presented_key() -> str | None:
    """The API key of the request. A header that is present decides alone, even when it holds no
    key."""
    return request_headers.presented_key(_headers())


def caller_headers() -> dict[str, str]:
    """What an upstream may be passed on of this request's headers, if its server lists them."""
    return request_headers.passable_headers(request.headers.items(), [presented_key()])


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}
