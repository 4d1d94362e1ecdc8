"""The cookie that binds OAuth flows to the browser that started them."""

import secrets

from flask import Response, request

from portal.web import context

_LENGTH = 32
_SECONDS = 600


def bound_browser() -> str | None:
    """Return the secret of this browser, or None."""
    value = request.cookies.get(_name(), "")
    return value if _LENGTH <= len(value) <= 4 * _LENGTH else None


def new_or_bound_browser() -> str:
    """Return the secret of this browser, or a new one to set with `bind`."""
    return bound_browser() or secrets.token_urlsafe(_LENGTH)


def bind(response: Response, browser: str) -> Response:
    """Set the cookie on `response`. It is Lax, since the callback comes from another site."""
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
