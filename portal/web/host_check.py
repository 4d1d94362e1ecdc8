"""What is asked of a request before anything else: its host, its encoding, and which address it
comes from."""

from collections.abc import Collection

from flask import request
from werkzeug.exceptions import BadRequest

from portal.domain import addresses
from portal.domain.errors import UnsupportedEncoding
from portal.services import instance_settings
from portal.store.database import Database

ANY_HOST_ENDPOINTS = {"healthz", "readyz", "metrics"}  # load balancers and scrapers ask by address


def refuse_encoded_body() -> None:
    """Refuse a compressed body: nothing here unpacks it, and it would be misread. Raises
    `UnsupportedEncoding`."""
    encodings = (
        word.strip().lower() for word in request.headers.get("Content-Encoding", "").split(",")
    )
    has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
    if has_body and any(word not in ("", "identity") for word in encodings):
        raise UnsupportedEncoding(
            "Compressed bodies are not read here. Send it without Content-Encoding."
        )


def check(public_url: str) -> None:
    """Refuse what is for another host than the public URL's, and addresses that no part of the
    portal could read."""
    if "\x00" in request.path or "%00" in request.query_string.decode("latin-1"):
        raise BadRequest("The address holds a NUL character.")
    if request.endpoint in ANY_HOST_ENDPOINTS or addresses.is_our_host(request.host, public_url):
        return
    raise BadRequest("The Host header names another host than PORTAL_PUBLIC_URL.")


def client_address(database: Database, trusted: Collection[str]) -> str | None:
    """The address that asks: the socket's, or the forwarded one where a trusted proxy says it."""
    forwarded = request.headers.get("X-Forwarded-For")
    if not forwarded:
        return request.remote_addr
    with database.session() as own:
        proxies = (*trusted, *instance_settings.load_preferences(own).trusted_proxies)
    return addresses.client_address(request.remote_addr, forwarded, proxies)
