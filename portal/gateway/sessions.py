"""Session IDs: the upstream's ID, encrypted, so that any process can serve any request.

It also contains the client's name and version, which older clients send only once. A sealed ID is
only valid for the server, the URL and the holder it was created for. For all others, it is an
unknown ID.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portal.gateway.messages import Client
from portal.services.gateway.route import OpenRoute

_NONCE = 12
_UPSTREAM_ID = re.compile(r"[\x21-\x7e]{1,1024}\Z")
_LONGEST = 4096


@dataclass(frozen=True)
class Opened:
    """The contents of a session ID."""

    upstream_id: str
    client: Client | None = None


class Sessions:
    """Encrypts and decrypts session IDs."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Use `keys` by ID, newest first: the first one encrypts, all decrypt."""
        self._ciphers = {key_id.encode(): AESGCM(key) for key_id, key in keys.items()}
        self._newest = next(iter(self._ciphers))

    def seal(self, upstream_id: str, route: OpenRoute, client: Client | None = None) -> str | None:
        """Return the ID for the client, or None if `upstream_id` is not visible ASCII, as MCP
        requires."""
        if not _UPSTREAM_ID.match(upstream_id):
            return None
        nonce = os.urandom(_NONCE)
        cipher = self._ciphers[self._newest]
        contents = [upstream_id, client.name, client.version or ""] if client else [upstream_id]
        sealed = cipher.encrypt(nonce, "\n".join(contents).encode(), _bound_to(route))
        head = bytes([len(self._newest)]) + self._newest
        return base64.urlsafe_b64encode(head + nonce + sealed).decode().rstrip("=")

    def open(self, sealed_id: str, route: OpenRoute) -> Opened | None:
        """Return the contents, or None if this ID was not sealed for this route."""
        if len(sealed_id) > _LONGEST:
            return None
        try:
            raw = base64.urlsafe_b64decode(sealed_id.encode("ascii") + b"==")
            cipher = self._ciphers[raw[1 : 1 + raw[0]]]
            body = raw[1 + raw[0] :]
            contents = cipher.decrypt(body[:_NONCE], body[_NONCE:], _bound_to(route)).decode()
        except (UnicodeError, binascii.Error, IndexError, KeyError, ValueError, InvalidTag):
            return None
        upstream_id, *told = contents.split("\n")
        client = Client(told[0], told[1] or None) if told else None
        return Opened(upstream_id, client)


def _bound_to(route: OpenRoute) -> bytes:
    """Return the associated data: each part, preceded by its length."""
    url = route.target.url if route.target else ""
    parts = [part.encode() for part in (route.server_id, route.incarnation, route.holder, url)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
