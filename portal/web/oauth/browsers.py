"""The cookie that binds OAuth flows to the browser in which they began."""

import secrets

from flask import Response, request

from portal.web import context

_LENGTH = 32
_SECONDS = 600


def bound_browser() -> str | None:
    """The secret of the browser that asks, or None where it has none."""
    value = request.cookies.get(_name(), "")
    return value if _LENGTH <= len(value) <= 4 * _LENGTH else None


def new_or_bound_browser() -> str:
    """The secret of the browser that asks, or a fresh one, to be set with `bind`."""
    return bound_browser() or secrets.token_urlsafe(_LENGTH)


def bind(response: Response, browser: str) -> Response:
    """Give `response` the cookie; Lax, for the way back comes from another site."""
    response.set_cookie(
        _name(),
        browser,
        max_age=_SECONDS,
        secure=context.settings().https,
        httponly=True,
        samesite="Lax",
        path="/",
    )
    return response


def _name() -> str:
    return "__Host-portal-oauth" if context.settings().https else "portal-oauth"
