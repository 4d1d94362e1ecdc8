"""Rate limits of what can be abused by repeating it; shared by all processes where there is Redis."""

from flask import Flask, g, request
from flask_limiter import Limiter

from portal.settings import Settings


def _by_address() -> str:
    return g.get("address") or request.remote_addr or "unknown"


def by_email() -> str:
    """Tries at one account count together, wherever they come from."""
    return f"email:{request.form.get('email', '').strip().lower()[:320]}"


limiter = Limiter(_by_address, strategy="moving-window", swallow_errors=True)
SIGN_IN_BY_ADDRESS = "30 per minute"
SIGN_IN_BY_EMAIL = "10 per 5 minutes"
TRY_UPSTREAM = "60 per minute"
WAY_BACK = "120 per minute"
AUTHORIZE = "60 per minute"
EXCHANGE = "120 per minute"
REGISTER = "20 per hour"


def init_app(app: Flask, settings: Settings) -> None:
    """Count in Redis where it is set. When it goes away each process counts for itself (fails safe, not open)."""
    redis = settings.redis_url.get_secret_value() if settings.redis_url else None
    app.config.update(
        RATELIMIT_STORAGE_URI=redis or "memory://",
        RATELIMIT_IN_MEMORY_FALLBACK_ENABLED=bool(redis),
        RATELIMIT_HEADERS_ENABLED=False,
    )
    limiter.init_app(app)
