"""Secrets at rest: AES-256-GCM under a ring of keys, each ciphertext bound to where it stands.

A ciphertext is `1 | length of key id | key id | nonce (12 bytes) | AES-GCM output`. The associated data name the
purpose, the owner, the server and its incarnation, the field and the destination origin, so a value that was moved to
another row, a server made anew under an old id, or another host reads as absent (spec: 3-security, 7).
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portal.telemetry import metrics

log = logging.getLogger("portal.vault")
_VERSION = 1
_NONCE_BYTES = 12


@dataclass(frozen=True)
class Place:
    """Where a secret stands; a ciphertext opens nowhere else."""

    purpose: str
    server_id: str
    incarnation: str
    field: str
    owner: str = ""
    destination: str = ""

    def associated_data(self, key_id: str) -> bytes:
        """The parts, each with its length in front, so that no two places give the same bytes."""
        parts = (key_id, self.purpose, self.owner, self.server_id, self.incarnation, self.field, self.destination)
        return b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts))


class Vault:
    """Seals and opens text; knows the keys, and nothing else does."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` by id, newest first: the first seals, all open."""
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._newest = next(iter(self._ciphers))

    def seal(self, text: str, place: Place) -> bytes:
        """The ciphertext of `text` under the newest key, for `place` only."""
        nonce, key_id = os.urandom(_NONCE_BYTES), self._newest.encode()
        sealed = self._ciphers[self._newest].encrypt(nonce, text.encode(), place.associated_data(self._newest))
        return bytes((_VERSION, len(key_id))) + key_id + nonce + sealed

    def knows_key_of(self, ciphertext: bytes) -> bool:
        """Whether the key that sealed `ciphertext` is in the ring; tells "set" from "lost" without opening anything."""
        length = ciphertext[1] if len(ciphertext) > 1 else 0
        return bytes(ciphertext[2 : 2 + length]).decode("ascii", "replace") in self._ciphers

    def open(self, ciphertext: bytes | None, place: Place) -> str | None:
        """The text, or None with a warning where the key is gone, the bytes are broken or stand in another place."""
        if ciphertext is None:
            return None
        try:
            if ciphertext[0] != _VERSION:
                raise ValueError("unknown version")
            key_id = ciphertext[2 : 2 + ciphertext[1]].decode()
            body = ciphertext[2 + ciphertext[1] :]
            data = place.associated_data(key_id)
            return self._ciphers[key_id].decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], data).decode()
        except (InvalidTag, ValueError, KeyError, IndexError):
            metrics.security("decrypt_failed")
            log.warning(
                "a stored secret cannot be read; it counts as not set (%s, server %s)", place.field, place.server_id
            )
            return None
