"""Secrets at rest: AES-256-GCM under a ring of keys, each ciphertext bound to where it stands.

A ciphertext is `1 | length of key id | key id | nonce (12 bytes) | AES-GCM output`. The associated
data name the purpose, the owner, the server and its incarnation, the field and the destination
origin, so a value that was moved to another row, a server made anew under an old id, or another
host reads as absent (spec: 3-security, 7).
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
"""How far into a ciphertext the id of its key may reach."""


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
    """Seals and opens text; knows the keys, and nothing else does."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` by id, newest first: the first seals, all open."""
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._derive = _deriving(keys)
        self._newest = next(iter(self._ciphers))
        self._headers = tuple(bytes((_VERSION, len(key_id))) + key_id.encode() for key_id in keys)

    def seal(self, text: str, place: Place) -> bytes:
        """The ciphertext of `text` under the newest key, for `place` only."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._newest].encrypt(
            nonce, text.encode(), place.associated_data(self._newest)
        )
        return self.newest_header + nonce + sealed

    def keys_for(self, purpose: str) -> dict[str, bytes]:
        """A key of 32 bytes for each of the ring, newest first, for a `purpose` other than sealing
        (HKDF, RFC 5869): none of them tells anything of the ring or of those for another
        purpose."""
        return self._derive(purpose)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the keys in the ring, newest first."""
        return tuple(self._ciphers)

    @property
    def newest_header(self) -> bytes:
        """How every ciphertext under the newest key begins."""
        return self._headers[0]

    def knows_key_of(self, ciphertext: bytes) -> bool:
        """Whether the key that sealed `ciphertext` is in the ring; tells "set" from "lost" without
        opening anything."""
        return ciphertext.startswith(self._headers)

    def open(self, ciphertext: bytes | None, place: Place) -> str | None:
        """The text, or None with a warning where the key is gone, the bytes are broken or stand in
        another place."""
        if ciphertext is None:
            return None
        try:
            return self._opened(ciphertext, place)
        except (InvalidTag, ValueError, KeyError, IndexError):
            metrics.security("decrypt_failed")
            log.warning(
                "a stored secret cannot be read; it counts as not set (%s, server %s)",
                place.field,
                place.server_id,
            )
            return None

    def opens(self, ciphertext: bytes, place: Place) -> bool:
        """Whether `ciphertext` can be read; what it says stays in here."""
        return self.reseal(ciphertext, place) is not None

    def reseal(self, ciphertext: bytes, place: Place) -> bytes | None:
        """The same text under the newest key, or None where it cannot be read."""
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
    """A function of a purpose; the keys stay in it, so that no vault that is printed shows them."""

    def derive(purpose: str) -> dict[str, bytes]:
        return {
            key_id: HKDF(
                SHA256(), 32, salt=None, info=f"mcp-portal {purpose} {key_id}".encode()
            ).derive(key)
            for key_id, key in keys.items()
        }

    return derive


def key_id_of(ciphertext: bytes) -> str | None:
    """The id of the key that sealed `ciphertext`, told by its first `HEADER_BYTES`; None for other
    bytes."""
    length = ciphertext[1] if len(ciphertext) > 1 and ciphertext[0] == _VERSION else 0
    found = bytes(ciphertext[2 : 2 + length])
    return found.decode() if len(found) == length and _KEY_ID.fullmatch(found) else None
