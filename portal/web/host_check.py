"""The first checks of a request: host, encoding and client address."""

from collections.abc import Collection

from flask import request
from werkzeug.exceptions import BadRequest

from portal.domain import addresses
from portal.domain.errors import UnsupportedEncoding
from portal.services import instance_settings
from portal.store.database import Database

ANY_HOST_ENDPOINTS = {
    "healthz",
    "readyz",
    "metrics",
}  # load balancers and scrapers connect by IP address


def refuse_encoded_body() -> None:
    """Raise `UnsupportedEncoding` for a compressed body."""
    encodings = (
        word.strip().lower() for word in request.headers.get("Content-Encoding", "").split(",")
    )
    has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
    if has_body and any(word not in ("", "identity") for word in encodings):
        raise UnsupportedEncoding(
            "Compressed request bodies are not supported. Send the body without Content-Encoding."
        )


def check(public_url: str) -> None:
    """Raise `BadRequest` if the host is not the public URL's or the URL has a NUL character."""
    if "\x00" in request.path or "%00" in request.query_string.decode("latin-1"):
        raise BadRequest("The URL contains a NUL character.")
    if request.endpoint in ANY_HOST_ENDPOINTS or addresses.is_our_host(request.host, public_url):
        return
    raise BadRequest("The Host header does not match PORTAL_PUBLIC_URL.")


def client_address(database: Database, trusted: Collection[str]) -> str | None:
    """Return the client address: the socket's, or the one forwarded by a trusted proxy."""
    forwarded = request.headers.get("X-Forwarded-For")
    if not forwarded:
        return request.remote_addr
    with database.session() as own:
        proxies = (*trusted, *instance_settings.load_preferences(own).trusted_proxies)
    return addresses.client_address(request.remote_addr, forwarded, proxies)
