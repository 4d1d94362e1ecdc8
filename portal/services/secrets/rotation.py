"""The keys of stored secrets: which are in use, and re-encrypting everything with the newest.

No secret is shown. Re-encryption runs in batches, one transaction each, while the portal serves
requests. It skips values under the newest key, so it can stop and restart at any time.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.runtime import runtime_of
from portal.services.secrets.inventory import CHAIN_KEYS, KINDS, Kind, Value
from portal.store.vault import key_id_of

_SAMPLE = 20
BROKEN = ""
"""The key id for bytes that contain none."""


@dataclass(frozen=True)
class KeyUse:
    """The number of values of each kind under a key; `key_id` is `BROKEN` for bytes without one."""

    key_id: str
    in_ring: bool
    is_newest: bool
    values: Mapping[str, int]

    @property
    def total(self) -> int:
        """The total number of values."""
        return sum(self.values.values())

    @property
    def stored(self) -> int:
        """The number of stored values, without the keys that verify the audit chain."""
        return self.total - self.values.get(CHAIN_KEYS, 0)


@dataclass(frozen=True)
class Position:
    """The position in a walk over all values: the kind, and the ids of its last row."""

    kind: int = 0
    after: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Unreadable:
    """A value that cannot be decrypted, the reason, and whether the ring has its key."""

    table: str
    ids: tuple[str, ...]
    field: str
    because: str
    key_in_ring: bool


@dataclass(frozen=True)
class Batch:
    """The result of one step.

    `resealed` counts values by their old key, `missed` those that changed meanwhile and were left
    alone. `position` is the start of the next step, None at the end.
    """

    position: Position | None
    resealed: Mapping[str, int] = field(default_factory=dict)
    missed: int = 0
    unreadable: tuple[Unreadable, ...] = ()


def ids(session: Session, principal: Principal) -> tuple[str, ...]:
    """Return the ids of the keys in the ring, newest first."""
    authz.require(principal, Action.VAULT_MANAGE)
    return runtime_of(session).vault.key_ids


def count_values(session: Session, principal: Principal) -> list[KeyUse]:
    """Count the values of each key: the ring's keys, newest first, then other keys in use."""
    authz.require(principal, Action.VAULT_MANAGE)
    ring = runtime_of(session).vault.key_ids
    found: dict[str, Counter[str]] = {key_id: Counter() for key_id in ring}
    for kind in KINDS:
        for header in kind.headers(session):
            found.setdefault(key_id_of(header) or BROKEN, Counter())[kind.name] += 1
    return [
        KeyUse(key_id, key_id in ring, key_id == ring[0], values)
        for key_id, values in found.items()
    ]


def opens_something(session: Session, principal: Principal) -> bool:
    """Return whether the ring decrypts any value of its keys, from a sample of each kind."""
    authz.require(principal, Action.VAULT_MANAGE)
    vault = runtime_of(session).vault
    for kind in (kind for kind in KINDS if kind.name != CHAIN_KEYS):
        known = (value for value in kind.walk(session) if vault.knows_key_of(value.ciphertext))
        for value, _ in zip(known, range(_SAMPLE), strict=False):
            if vault.opens(value.ciphertext, value.place):
                return True
    return False


def reseal_some(session: Session, principal: Principal, position: Position) -> Batch:
    """Re-encrypt the next batch with the newest key. Commit after each, to release its rows."""
    authz.require(principal, Action.VAULT_MANAGE)
    kind = KINDS[position.kind]
    vault = runtime_of(session).vault
    header = vault.newest_header
    found = kind.batch(session, position.after, kind.is_under_another(header), locked=True)
    resealed: Counter[str] = Counter()
    unreadable = []
    missed = 0
    for value in found:
        if value.ciphertext.startswith(header):
            continue
        ciphertext = vault.reseal(value.ciphertext, value.place)
        if ciphertext is None:
            unreadable.append(_unreadable(session, kind, value))
        elif kind.replace(session, value, ciphertext):
            resealed[key_id_of(value.ciphertext) or BROKEN] += 1
        else:
            missed += 1
    return Batch(_next(position, found), resealed, missed, tuple(unreadable))


def check_some(session: Session, principal: Principal, position: Position) -> Batch:
    """Decrypt the next batch under any key, and report values that fail. Writes nothing."""
    authz.require(principal, Action.VAULT_MANAGE)
    kind = KINDS[position.kind]
    vault = runtime_of(session).vault
    found = kind.batch(session, position.after)
    broken = [value for value in found if not vault.opens(value.ciphertext, value.place)]
    return Batch(
        _next(position, found),
        unreadable=tuple(_unreadable(session, kind, value) for value in broken),
    )


def record_rotation(session: Session, principal: Principal, action: str, **counts: Any) -> None:
    """Record the start or end of a rotation in the audit log."""
    authz.require(principal, Action.VAULT_MANAGE)
    audit.record(session, principal, action, "keys", runtime_of(session).vault.key_ids[0], **counts)


def _next(position: Position, found: list[Value]) -> Position | None:
    if found:
        return Position(position.kind, found[-1].ids)
    return Position(position.kind + 1) if position.kind + 1 < len(KINDS) else None


def _unreadable(session: Session, kind: Kind, value: Value) -> Unreadable:
    key_id = key_id_of(value.ciphertext)
    in_ring = runtime_of(session).vault.knows_key_of(value.ciphertext)
    if key_id is None:
        because = "the data is corrupt"
    elif in_ring:
        because = (
            f"it cannot be decrypted with {key_id}: another key has this id, or the value was"
            " moved from another row or host"
        )
    else:
        because = f"the key {key_id} is not in the ring"
    ids = tuple(f"{part[:8]}…" if kind.hides_ids else str(part) for part in value.ids)
    return Unreadable(kind.model.__tablename__, ids, kind.field, because, in_ring)
