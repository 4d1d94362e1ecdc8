"""The portal's address as seen by the browser and by proxies."""

from urllib.parse import urlsplit

from flask import request

from portal.domain.public_address import Sighting
from portal.web.context import settings


def sighting() -> Sighting:
    """Return the addresses of the portal in the current request."""
    headers = request.headers
    told = next(
        (headers[name] for name in ("Origin", "HX-Current-URL", "Referer") if headers.get(name)), ""
    )
    return Sighting(
        origin=_origin(told),
        host=request.host,
        peer=request.remote_addr or "",
        forwarded_for=headers.get("X-Forwarded-For", ""),
        forwarded_host=headers.get("X-Forwarded-Host", "").partition(",")[0].strip(),
        forwarded_proto=headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower(),
        operator_proxies=tuple(settings().trusted_proxies),
    )


def _origin(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return (
        f"{parts.scheme}://{parts.netloc}"
        if parts.scheme in ("http", "https") and parts.netloc
        else ""
    )
