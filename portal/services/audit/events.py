"""Writing audit events, in the same transaction as the change that they record.

Events name users only by id, because chained events cannot be edited and a user's name must be
removable; `trail.py` looks names up for display. Just before the commit, each event gets its
sequence number, the hash of the previous event, and its own hash, which `verification.py` verifies.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from portal.domain.principals import Principal
from portal.services.audit import hash_chain
from portal.store.models import AuditEvent, User, new_id, now
from portal.telemetry import metrics

_WAITING = "events that wait for their place in the chain"
_LONGEST = 2_000


class Outcome(StrEnum):
    """Whether the recorded action was done."""

    DONE = "done"
    REFUSED = "refused"


def record(
    session: Session,
    principal: Principal,
    action: str,
    kind: str,
    target_id: str | None,
    *,
    outcome: Outcome = Outcome.DONE,
    **details: object,
) -> None:
    """Add an event. `details` are fields, counts and `changes` (see `changed`), never a secret.

    If someone else issued the caller's key, the event names them as well as the key's owner.
    """
    if principal.key_issued_by is not None:
        details["key_issued_by"] = principal.key_issued_by
    if kind == "user":
        details.pop("name", None)
    row = AuditEvent(
        event_id=new_id(),
        at=now(),
        actor=(principal.user_id or principal.name)[:320],
        actor_id=principal.user_id,
        key_id=principal.key_id,
        address=principal.address,
        action=action,
        target_kind=kind,
        target_id=target_id,
        outcome=outcome.value,
        details=_without_people(session, _plain(details)),
    )
    session.add(row)
    session.info.setdefault(_WAITING, []).append(row)


def changed(before: object, after: object) -> dict[str, object]:
    """Return the differences between two states.

    A state is a view, a mapping, or None if the object does not exist. A plain field gives
    `{"before": …, "after": …}`; one whose value is a `chain.Hidden` gives the word `set`, `changed`
    or `cleared`. Empty values count as missing.
    """
    old = _facts(before)
    new = _facts(after)
    found: dict[str, object] = {}
    for name in dict.fromkeys((*old, *new)):
        was = old.get(name)
        is_now = new.get(name)
        if was == is_now or (_is_empty(was) and _is_empty(is_now)):
            continue
        if (before is None and is_now is False) or (after is None and was is False):
            continue  # a disabled option is not worth recording for a new or deleted object
        if isinstance(was, hash_chain.Hidden) or isinstance(is_now, hash_chain.Hidden):
            found[name] = _change_of(was is not None, is_now is not None)
        else:
            found[name] = {"before": _short(was), "after": _short(is_now)}
    return found


def _change_of(was_there: bool, is_there: bool) -> str:
    if not is_there:
        return "cleared"
    return "changed" if was_there else "set"


@event.listens_for(Session, "before_commit")
def _chain(session: Session) -> None:
    """Append a transaction's events to the chain last, so that the chain's lock is held briefly."""
    if session.in_nested_transaction():
        return
    rows: list[AuditEvent] = [row for row in session.info.pop(_WAITING, ()) if row in session]
    if rows:
        try:
            session.flush()
            hash_chain.append(session, rows)
        except SQLAlchemyError:
            metrics.security("audit_failed")  # and the recorded change is rolled back
            raise


def _facts(state: object) -> Mapping[str, object]:
    if state is None:
        return {}
    if isinstance(state, Mapping):
        return state
    return {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}  # type: ignore[arg-type]


def _is_empty(value: object) -> bool:
    if dataclasses.is_dataclass(value) and not isinstance(value, hash_chain.Hidden):
        return not any(getattr(value, f.name) for f in dataclasses.fields(value))
    return value is None or value == "" or value == () or value == [] or value == {}


def _short(value: object) -> Any:
    text = json.dumps(value, default=_of_view)
    if len(text) > _LONGEST:
        return f"{text[:_LONGEST]}… ({len(text):,} characters)"
    return json.loads(text)


def _plain(details: Mapping[str, object]) -> dict[str, Any]:
    """Return the details as the database returns them, so that their hash can be recomputed."""
    plain: dict[str, Any] = json.loads(json.dumps(details, default=_of_view))
    return plain


_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_NAMES_OF_PEOPLE = frozenset({"email", "user_email", "display_name"})


def _without_people(session: Session, details: dict[str, Any]) -> dict[str, Any]:
    """Replace users' emails with ids, and changed names with the fact that they changed."""
    found: dict[str, Any] = {}
    for name, value in details.items():
        if name not in _NAMES_OF_PEOPLE:
            found[name] = _without_people_in(session, value)
        elif isinstance(value, dict) and value.keys() == {"before", "after"}:
            found[name] = _change_of(bool(value["before"]), bool(value["after"]))
    return found


def _without_people_in(session: Session, value: Any) -> Any:
    if isinstance(value, dict):
        return _without_people(session, value)
    if isinstance(value, list):
        return [_without_people_in(session, part) for part in value]
    if isinstance(value, str) and _EMAIL.fullmatch(value):
        with session.no_autoflush:
            user_id = session.scalar(select(User.user_id).where(User.email == value.lower()))
        return user_id or "(an email)"
    return value


def _of_view(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: getattr(value, f.name)
            for f in dataclasses.fields(value)
            if not _is_empty(getattr(value, f.name))
        }
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value) if isinstance(value, frozenset | set) else str(value)
