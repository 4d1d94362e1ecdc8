"""The cookie by which a browser is known in which somebody signed in: a random id, of which we keep
the hash."""

import re
import secrets

from flask import Response, g, request

from portal.services.access import principals
from portal.services.access.known_sign_ins import DEVICE_LIFETIME, Known
from portal.web import context

_SHAPE = re.compile(r"[A-Za-z0-9_-]{43}")


def presented() -> str | None:
    """The id that this browser holds; None where it holds none."""
    cookie = request.cookies.get(_name(), "")
    return cookie if _SHAPE.fullmatch(cookie) else None


def new_or_presented() -> str:
    """The id of this browser, a new one where it has none."""
    return presented() or secrets.token_urlsafe(32)


def known_here() -> Known | None:
    """How the person with the e-mail that was typed is known in this browser or at this address;
    asked once a request, in a transaction of its own."""
    if request.method != "POST":  # nobody tries anything
        return None
    if "known_here" not in g:
        with context.database().session() as own:
            g.known_here = principals.known_from(
                own, request.form.get("email", ""), presented(), g.address
            )
    found: Known | None = g.known_here
    return found


def remember(response: Response, device: str) -> Response:
    """Have the browser keep its id, anew for as long as it is known."""
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
