"""Rate limits of what can be abused by repeating it; shared by all processes where there is Redis."""

import hashlib
import hmac
import math
import time

from flask import Flask, current_app, g, request
from flask_limiter import Limiter

from portal.domain.addresses import neighborhood
from portal.settings import Settings
from portal.web.shared_counts import SCHEME, SharedCounts


def _by_address() -> str:
    return neighborhood(g.get("address") or request.remote_addr)


def by_email() -> str:
    """Tries at one account count together, wherever they come from; Redis learns no address of anybody."""
    email = request.form.get("email", "").strip().lower()[:320]
    return hmac.new(str(current_app.secret_key).encode(), f"email:{email}".encode(), hashlib.sha256).hexdigest()[:32]


limiter = Limiter(_by_address, strategy="moving-window", headers_enabled=False)
SIGN_IN_BY_ADDRESS = "30 per minute"
SIGN_IN_BY_EMAIL = "10 per 5 minutes"
TRY_UPSTREAM = "60 per minute"
WAY_BACK = "120 per minute"
AUTHORIZE = "60 per minute"
EXCHANGE = "120 per minute"
REGISTER = "20 per hour"
LARGER_BODIES = {"openapi.preview": 6 * 1024 * 1024}
"""Bytes that these endpoints take, where others take what the application says: a file of up to 5 MB and a form."""


def init_app(app: Flask, settings: Settings) -> None:
    """Count in Redis where it is set, else in this process."""
    redis = f"{SCHEME}:{settings.redis_url.get_secret_value()}" if settings.redis_url else None
    app.config["RATELIMIT_STORAGE_URI"] = redis or "memory://"
    limiter.init_app(app)
    app.extensions["shared_counts"] = limiter.storage if isinstance(limiter.storage, SharedCounts) else None


def seconds_to_wait() -> int:
    """After how many seconds the limit that this request broke takes another try."""
    broken = limiter.current_limit
    return max(1, math.ceil(broken.window.reset_time - time.time())) if broken else 60


def redis_is_there() -> bool | None:
    """Whether the counts are shared; None where no Redis is set."""
    shared = current_app.extensions["shared_counts"]
    return shared.check() if shared else None
