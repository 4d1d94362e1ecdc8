"""Where users recently signed in with a password.

Attempts elsewhere cannot lock users out of these browsers and addresses.
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from portal.domain.addresses import neighborhood
from portal.store.models import KnownSignIn, User, now

DEVICE_LIFETIME = timedelta(days=180)
_LIFETIMES = {"device": DEVICE_LIFETIME, "address": timedelta(days=30)}
_MOST_OF_A_KIND = 20


class Known(StrEnum):
    """What identifies a user's earlier sign-in: their browser or their address."""

    DEVICE = "device"
    ADDRESS = "address"


def note_sign_in(session: Session, user_id: str, device: str, address: str | None) -> None:
    """Record that a user signed in with the browser secret `device` and from an address."""
    for kind, mark in _marks(device, address):
        session.merge(KnownSignIn(user_id=user_id, kind=kind.value, mark_hash=mark, seen_at=now()))
        session.flush()
        latest = (
            select(KnownSignIn.mark_hash)
            .where(KnownSignIn.user_id == user_id, KnownSignIn.kind == kind.value)
            .order_by(KnownSignIn.seen_at.desc())
            .limit(_MOST_OF_A_KIND)
        )
        session.execute(
            delete(KnownSignIn).where(
                KnownSignIn.user_id == user_id,
                KnownSignIn.kind == kind.value,
                KnownSignIn.mark_hash.not_in(latest),
            )
        )


def find_known(
    session: Session, emails: Sequence[str], device: str | None, address: str | None
) -> Known | None:
    """Return how a user with one of `emails` is known here, the browser first; None if unknown."""
    at = now()
    conditions = [
        (KnownSignIn.kind == kind.value)
        & (KnownSignIn.mark_hash == mark)
        & (KnownSignIn.seen_at > at - _LIFETIMES[kind.value])
        for kind, mark in _marks(device, address)
    ]
    if not conditions:
        return None
    kinds = session.scalars(
        select(KnownSignIn.kind)
        .join(User, User.user_id == KnownSignIn.user_id)
        .where(User.email.in_(emails), or_(*conditions))
    ).all()
    return next((kind for kind in Known if kind.value in kinds), None)


def forget_sign_ins(session: Session, user_id: str) -> None:
    """Forget all known sign-ins of a user, after a password change."""
    session.execute(delete(KnownSignIn).where(KnownSignIn.user_id == user_id))


def delete_unused_sign_ins(session: Session) -> None:
    """Delete sign-ins that were not used for too long."""
    for kind, lifetime in _LIFETIMES.items():
        session.execute(
            delete(KnownSignIn).where(
                KnownSignIn.kind == kind, KnownSignIn.seen_at <= now() - lifetime
            )
        )


def _marks(device: str | None, address: str | None) -> list[tuple[Known, str]]:
    """Return the hashes that identify the browser and the address, if present."""
    found = [(Known.DEVICE, _hash(f"device {device}"))] if device else []
    near = neighborhood(address)
    return found if near == "unknown" else [*found, (Known.ADDRESS, _hash(f"address {near}"))]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
