"""Rate limits, shared by all processes in Redis or, without Redis, in the database."""

import hashlib
import hmac
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, g, request
from flask_limiter import Limiter

from portal.domain.addresses import neighborhood
from portal.domain.emails import email_forms
from portal.services.access.known_sign_ins import Known
from portal.settings import Settings
from portal.web import database_counters, devices

if TYPE_CHECKING:
    from portal.web.redis_counters import RedisCounters


def _by_address() -> str:
    return neighborhood(g.get("address") or request.remote_addr)


def by_email() -> str:
    """Return a rate-limit key for the submitted email, as a keyed hash."""
    email = request.form.get("email", "")[:320]
    return _unread(f"email:{email_forms(email)[0]}")


def by_email_and_device() -> str:
    """Return a rate-limit key for the submitted email and this browser."""
    return _unread(f"device:{devices.presented()}") + by_email()


def by_email_and_address() -> str:
    """Return a rate-limit key for the submitted email and this address."""
    return f"{_by_address()}/{by_email()}"


def not_from(*known: Known | None) -> Callable[[], bool]:
    """Return a test that is true unless the sign-in attempt is one of `known` (None: unknown)."""
    return lambda: devices.known_here() not in known


def _unread(text: str) -> str:
    return hmac.new(
        str(current_app.secret_key).encode(), text.encode("utf-8", "replace"), hashlib.sha256
    ).hexdigest()[:32]


limiter = Limiter(_by_address, strategy="moving-window", headers_enabled=False)
SIGN_IN_BY_ADDRESS = "30 per minute"
SIGN_IN_BY_EMAIL = "10 per 5 minutes"
SIGN_IN_WHERE_KNOWN = "60 per minute"
"""Per address, for users known at it, so that others there cannot lock them out."""
TRY_UPSTREAM = "60 per minute"
WAY_BACK = "120 per minute"
AUTHORIZE = "60 per minute"
EXCHANGE = "120 per minute"
REGISTER = "120 per hour;30 per minute"
"""Per address, for new client registrations only. The limit suits companies with one address."""
LARGER_BODIES = {"openapi.preview": 6 * 1024 * 1024}
"""Maximum body size in bytes of endpoints that accept more than the default."""


def init_app(app: Flask, settings: Settings) -> None:
    """Configure the rate limits to use Redis if it is set, else the database."""
    url = database_counters.URL
    if settings.redis_url:
        # Imported here, so that processes without Redis start faster.
        from portal.web import redis_counters

        url = f"{redis_counters.SCHEME}:{settings.redis_url.get_secret_value()}"
    app.config["RATELIMIT_STORAGE_URI"] = url
    limiter.init_app(app)
    app.extensions["rate_limit_storage"] = limiter.storage if settings.redis_url else None


def seconds_to_wait() -> int:
    """Return the seconds until the exceeded limit allows another request."""
    broken = limiter.current_limit
    return max(1, math.ceil(broken.window.reset_time - time.time())) if broken else 60


def redis_is_there() -> bool | None:
    """Return whether Redis is available, or None if it is not configured."""
    shared: RedisCounters | None = current_app.extensions["rate_limit_storage"]
    return shared.check() if shared else None


_OF_STRANGERS = not_from(None)
_IN_THE_BROWSER = not_from(Known.DEVICE)
_AT_THE_ADDRESS = not_from(Known.ADDRESS)


def sign_in_limits(view: Any) -> Any:
    """Limit password sign-in attempts by address and by email.

    Users who signed in before in this browser or at this address have separate limits, so that
    attempts from elsewhere cannot lock them out. For others, the limits are the same whether or
    not the account exists.
    """
    for limit, key, exempt in (
        (SIGN_IN_BY_ADDRESS, _by_address, _OF_STRANGERS),
        (SIGN_IN_BY_EMAIL, by_email, _OF_STRANGERS),
        (SIGN_IN_BY_EMAIL, by_email_and_device, _IN_THE_BROWSER),
        (SIGN_IN_WHERE_KNOWN, _known_by_address, _AT_THE_ADDRESS),
        (SIGN_IN_BY_EMAIL, by_email_and_address, _AT_THE_ADDRESS),
    ):
        view = limiter.limit(limit, key_func=key, methods=["POST"], exempt_when=exempt)(view)
    return view


def _known_by_address() -> str:
    return f"known at {_by_address()}"
