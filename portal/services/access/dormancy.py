"""Whether everything is dormant: after a restore of which nobody knows what was revoked since
(`revocations.py`)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.errors import Unauthenticated
from portal.store.models import Preference, now

_NAME = "dormant"
STATE = select(Preference.value).where(Preference.name == _NAME)
KEYS_SLEEP = (
    "API keys are dormant: the portal was restored and does not know which were revoked since. "
    "An Admin has to sign in and wake them."
)
PEOPLE_WAIT = (
    "The portal was restored and does not know who was removed since. Until an Admin has signed in"
    " and woken it, only Admins can sign in."
)


def state_of(session: Session) -> Mapping[str, Any] | None:
    """Since when and why; None where nothing is dormant."""
    found: Mapping[str, Any] | None = session.scalar(STATE)
    return found


def begin(session: Session, because: str) -> None:
    """Make all keys that there are dormant."""
    session.merge(Preference(name=_NAME, value={"since": now().isoformat(), "because": because}))


def end(session: Session) -> None:
    """Wake them."""
    row = session.get(Preference, _NAME)
    if row is not None:
        session.delete(row)


def check_key(state: Mapping[str, Any] | None, created_at: datetime) -> None:
    """Refuse a key that was made before dormancy began. Raises `Unauthenticated`."""
    if state is not None and created_at <= datetime.fromisoformat(state["since"]):
        raise Unauthenticated(KEYS_SLEEP)


def check_person(state: Mapping[str, Any] | None, *, may_wake: bool) -> None:
    """Refuse everybody who could not wake the portal. Raises `Unauthenticated`."""
    if state is not None and not may_wake:
        raise Unauthenticated(PEOPLE_WAIT)
