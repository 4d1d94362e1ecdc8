"""The dormant state after a restore, when later revocations are unknown (`revocations.py`)."""

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
    "API keys are dormant: the portal was restored and does not know which keys were revoked"
    " since the backup. An Admin has to sign in and reactivate them."
)
PEOPLE_WAIT = (
    "The portal was restored and does not know which users were removed since the backup. Only"
    " Admins can sign in until an Admin reactivates it."
)


def read_dormancy(session: Session) -> Mapping[str, Any] | None:
    """Return since when and why the portal is dormant; None if it is not."""
    found: Mapping[str, Any] | None = session.scalar(STATE)
    return found


def make_dormant(session: Session, because: str) -> None:
    """Make all existing API keys dormant."""
    session.merge(Preference(name=_NAME, value={"since": now().isoformat(), "because": because}))


def end_dormancy(session: Session) -> None:
    """End dormancy."""
    row = session.get(Preference, _NAME)
    if row is not None:
        session.delete(row)


def check_key(state: Mapping[str, Any] | None, created_at: datetime) -> None:
    """Refuse a key created before dormancy began. Raises `Unauthenticated`."""
    if state is not None and created_at <= datetime.fromisoformat(state["since"]):
        raise Unauthenticated(KEYS_SLEEP)


def check_person(state: Mapping[str, Any] | None, *, may_wake: bool) -> None:
    """Refuse users who cannot end dormancy. Raises `Unauthenticated`."""
    if state is not None and not may_wake:
        raise Unauthenticated(PEOPLE_WAIT)
