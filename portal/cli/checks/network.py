"""Network: Redis, the portal's public address, and proxies."""

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

from portal.cli.checks.database import compared
from portal.cli.checks.findings import Finding, Surroundings, bad, ok, warn
from portal.domain.errors import UpstreamFailure
from portal.domain.upstream import HealthReason, OutboundPolicy
from portal.services import instance_settings
from portal.upstream.fetching import fetch

SECONDS = 5
MOST_BYTES = 64 * 1024
_WITHOUT = "each process counts rate limits for itself"


def redis_answers(around: Surroundings) -> Iterator[Finding]:
    """Check that Redis responds, and that its clock matches."""
    url = around.settings.redis_url
    if url is None:
        yield ok("Redis", f"not set; {_WITHOUT}")
        return
    import redis  # imported here, because every command loads this module

    try:
        client = redis.Redis.from_url(
            url.get_secret_value(), socket_timeout=SECONDS, socket_connect_timeout=SECONDS
        )
        seconds, micros = client.time()
    except (redis.RedisError, ValueError, OSError) as error:
        cure = f"Check PORTAL_REDIS_URL, and that Redis is running; until then {_WITHOUT}"
        yield bad("Redis", f"does not respond ({type(error).__name__})", cure)
        return
    yield ok("Redis", "answers")
    yield from compared("clock", "Redis", abs(seconds + micros / 1e6 - around.clock().timestamp()))


def public_url(around: Surroundings) -> Iterator[Finding]:
    """Check that the public URL is https, and leads to this portal."""
    settings = around.settings
    local = urlsplit(settings.public_url).hostname in ("localhost", "127.0.0.1", "::1")
    if not settings.https and not local:
        report = warn if settings.embedded else bad
        cure = "Put a proxy with TLS in front of it, and use https:// in PORTAL_PUBLIC_URL"
        yield report(
            "public URL",
            f"{settings.public_url} is not https: passwords and keys are sent unencrypted",
            cure,
        )
    try:
        # The operator's own address may be private.
        status, body = fetch(
            OutboundPolicy(True),
            f"{settings.public_url}/healthz",
            timeout=SECONDS,
            max_bytes=MOST_BYTES,
            follow_redirects=False,
        )
    except UpstreamFailure as error:
        if error.reason in (HealthReason.NOT_MCP, HealthReason.HTTP_STATUS):
            cure = "Check PORTAL_PUBLIC_URL and the proxy's target"
            yield bad(
                "public URL",
                f"another server responds at {settings.public_url}: {error.message}",
                cure,
            )
            return
        cure = (
            "Start portal serve. If it is running, check PORTAL_PUBLIC_URL, its DNS name, its"
            " certificate and the proxy"
        )
        yield warn(
            "public URL",
            f"{settings.public_url} cannot be reached from this host ({error.reason})",
            cure,
        )
        return
    try:
        is_us = status == 200 and json.loads(body).get("status") == "ok"
    except (ValueError, AttributeError, RecursionError):
        is_us = False
    if is_us:
        yield ok("public URL", f"{settings.public_url} leads to a portal")
    else:
        cure = "Check PORTAL_PUBLIC_URL and the proxy's target"
        yield bad(
            "public URL", f"another server responds at {settings.public_url} ({status})", cure
        )


def proxies(around: Surroundings) -> Iterator[Finding]:
    """Check that the proxy for https is trusted to forward client addresses."""
    with around.database.session() as session:
        known = (
            around.settings.trusted_proxies
            or instance_settings.load_preferences(session).trusted_proxies
        )
    if around.settings.https and not known:
        cure = "Set PORTAL_TRUSTED_PROXIES to its addresses"
        yield warn(
            "proxies",
            "https needs a proxy, but none is trusted: all users appear to come from its address",
            cure,
        )
    else:
        yield ok("proxies", f"trusted: {', '.join(known) or 'none'}")
