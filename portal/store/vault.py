"""Secrets at rest: AES-256-GCM under a ring of keys, each ciphertext bound to its place.

A ciphertext is `1 | length of key id | key id | nonce (12 bytes) | AES-GCM output`. The associated
data contain the purpose, the owner, the server and its incarnation, the field and the destination
origin. A value moved to another row, to a server recreated under an old id, or to another host
therefore reads as absent.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from portal.telemetry import metrics

log = logging.getLogger("portal.vault")
_VERSION = 1
_NONCE_BYTES = 12
_KEY_ID = re.compile(rb"[A-Za-z0-9_-]{1,32}")
HEADER_BYTES = 2 + 32
"""The maximum length of the header of a ciphertext, which contains the id of its key."""


@dataclass(frozen=True)
class Place:
    """The place of a secret; a ciphertext can be decrypted only for its place."""

    purpose: str
    server_id: str
    incarnation: str
    field: str
    owner: str = ""
    destination: str = ""

    def associated_data(self, key_id: str) -> bytes:
        """Return the parts, each with its length in front, so that all places differ."""
        parts = (
            key_id,
            self.purpose,
            self.owner,
            self.server_id,
            self.incarnation,
            self.field,
            self.destination,
        )
        return b"".join(
            [len(raw).to_bytes(4, "big") + raw for raw in [part.encode() for part in parts]]
        )


class Vault:
    """Seals and opens text; the only holder of the keys."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take `keys` by id, newest first: the first seals, all open."""
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._derive = _deriving(keys)
        self._newest = next(iter(self._ciphers))
        self._headers = tuple(bytes((_VERSION, len(key_id))) + key_id.encode() for key_id in keys)

    def seal(self, text: str, place: Place) -> bytes:
        """Return the ciphertext of `text` under the newest key, for `place` only."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._newest].encrypt(
            nonce, text.encode(), place.associated_data(self._newest)
        )
        return self.newest_header + nonce + sealed

    def keys_for(self, purpose: str) -> dict[str, bytes]:
        """Derive a key of 32 bytes from each key of the ring, newest first, for another `purpose`.

        Uses HKDF (RFC 5869): a derived key reveals nothing about the ring or other purposes.
        """
        return self._derive(purpose)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the keys in the ring, newest first."""
        return tuple(self._ciphers)

    @property
    def newest_header(self) -> bytes:
        """The header of every ciphertext under the newest key."""
        return self._headers[0]

    def knows_key_of(self, ciphertext: bytes) -> bool:
        """Return whether the ring has the key of `ciphertext`, without decrypting it."""
        return ciphertext.startswith(self._headers)

    def open(self, ciphertext: bytes | None, place: Place) -> str | None:
        """Return the text; None, with a warning, if it cannot be decrypted for `place`."""
        if ciphertext is None:
            return None
        try:
            return self._opened(ciphertext, place)
        except (InvalidTag, ValueError, KeyError, IndexError):
            metrics.security("decrypt_failed")
            log.warning(
                "a stored secret cannot be decrypted and counts as not set (%s, server %s)",
                place.field,
                place.server_id,
            )
            return None

    def opens(self, ciphertext: bytes, place: Place) -> bool:
        """Return whether `ciphertext` can be decrypted, without returning the text."""
        return self.reseal(ciphertext, place) is not None

    def reseal(self, ciphertext: bytes, place: Place) -> bytes | None:
        """Return the text re-encrypted with the newest key; None if it cannot be decrypted."""
        try:
            return self.seal(self._opened(ciphertext, place), place)
        except (InvalidTag, ValueError, KeyError, IndexError):
            return None

    def _opened(self, ciphertext: bytes, place: Place) -> str:
        if ciphertext[0] != _VERSION:
            raise ValueError("unknown version")
        key_id = ciphertext[2 : 2 + ciphertext[1]].decode()
        body = ciphertext[2 + ciphertext[1] :]
        data = place.associated_data(key_id)
        return (
            self._ciphers[key_id].decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], data).decode()
        )


def _deriving(keys: Mapping[str, bytes]) -> Callable[[str], dict[str, bytes]]:
    """Return a function of a purpose that keeps the keys private, so that no `repr` shows them."""

    def derive(purpose: str) -> dict[str, bytes]:
        return {
            key_id: HKDF(
                SHA256(), 32, salt=None, info=f"mcp-portal {purpose} {key_id}".encode()
            ).derive(key)
            for key_id, key in keys.items()
        }

    return derive


def key_id_of(ciphertext: bytes) -> str | None:
    """Return the id of the key of `ciphertext`, from its first `HEADER_BYTES`; None if invalid."""
    length = ciphertext[1] if len(ciphertext) > 1 and ciphertext[0] == _VERSION else 0
    found = bytes(ciphertext[2 : 2 + length])
    return found.decode() if len(found) == length and _KEY_ID.fullmatch(found) else None
