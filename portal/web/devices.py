"""The device cookie: a random ID of browsers used to sign in. Only its hash is stored."""

import re
import secrets

from flask import Response, g, request

from portal.services.access import principals
from portal.services.access.known_sign_ins import DEVICE_LIFETIME, Known
from portal.web import context

_SHAPE = re.compile(r"[A-Za-z0-9_-]{43}")


def presented() -> str | None:
    """Return the device ID of this browser, or None."""
    cookie = request.cookies.get(_name(), "")
    return cookie if _SHAPE.fullmatch(cookie) else None


def new_or_presented() -> str:
    """Return the device ID of this browser, or a new one."""
    return presented() or secrets.token_urlsafe(32)


def known_here() -> Known | None:
    """Return whether the submitted email signed in before in this browser or at this address.

    The result is cached for the request and read in a separate transaction.
    """
    if request.method != "POST":  # not a sign-in attempt
        return None
    if "known_here" not in g:
        with context.database().session() as own:
            g.known_here = principals.known_from(
                own, request.form.get("email", ""), presented(), g.address
            )
    found: Known | None = g.known_here
    return found


def remember(response: Response, device: str) -> Response:
    """Set or renew the device cookie on the response."""
    response.set_cookie(
        _name(),
        device,
        max_age=int(DEVICE_LIFETIME.total_seconds()),
        secure=context.settings().https,
        httponly=True,
        samesite="Lax",
        path="/",
    )
    return response


def _name() -> str:
    return "__Host-portal-device" if context.settings().https else "portal-device"
