"""Rate-limit counters in the database: one statement per attempt, in its own short transaction."""

import hashlib
import time
from typing import Any

from sqlalchemy import ColumnElement, Double, case, cast, delete, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from portal.store.models import RateCount


def count_try(session: Session, key: str, limit: int, seconds: int, amount: int = 1) -> bool:
    """Count `amount` more attempts for `key`, unless that exceeds `limit` per `seconds`.

    Returns whether they are within the limit; refused attempts are not counted. Uses a sliding
    window: attempts of the previous window count in proportion to its part within the last
    `seconds`, so that the limit cannot be doubled around the end of a window.
    """
    if amount > limit:
        return False
    at = _now(session)
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(RateCount).values(
        key_hash=_hash(key), started_at=at, hits=amount, hits_before=0, expires_at=at + 2 * seconds
    )
    age = at - RateCount.started_at
    is_over = age >= seconds
    is_long_over = age >= 2 * seconds
    hits = case((is_over, 0), else_=RateCount.hits)
    before: ColumnElement[int] = case(
        (is_long_over, 0), (is_over, RateCount.hits), else_=RateCount.hits_before
    )
    started = case(
        (is_long_over, at), (is_over, RateCount.started_at + seconds), else_=RateCount.started_at
    )
    still = before * (1.0 - (at - started) / seconds)
    done = session.execute(
        statement.on_conflict_do_update(
            index_elements=[RateCount.key_hash],
            set_={
                "started_at": started,
                "hits": hits + amount,
                "hits_before": before,
                "expires_at": started + 2 * seconds,
            },
            where=hits + still + amount < limit + 1,
        ).returning(RateCount.key_hash)
    )
    return done.scalar() is not None


def tries_of(session: Session, key: str, limit: int, seconds: int) -> tuple[float, int]:
    """Return when the attempts for `key` began to count (Unix time), and their number.

    If the limit is reached, the next attempt is allowed `seconds` after that time.
    """
    at = _now(session)
    row = session.execute(
        select(RateCount.started_at, RateCount.hits, RateCount.hits_before, cast(at, Double)).where(
            RateCount.key_hash == _hash(key)
        )
    ).one_or_none()
    if row is None:
        return time.time(), 0
    started, hits, before, clock = row
    now = float(clock)
    if now - started >= seconds:
        over_by = now - started - seconds
        started, hits, before = (started + seconds, 0, hits) if over_by < seconds else (now, 0, 0)
    counted = hits + int(before * (1.0 - (now - started) / seconds))
    # Attempts of the previous window expire one by one. If the current window is full, its first
    # attempt expires after its end.
    part = 1.0 - (limit - hits) / before if before and hits < limit else 1.0
    free_at = started + seconds * part
    return max(free_at, now) - seconds, min(limit, counted)


def sweep_counts(session: Session) -> None:
    """Delete expired counts."""
    session.execute(delete(RateCount).where(RateCount.expires_at <= _now(session)))


def forget_counts(session: Session) -> None:
    """Delete all counts."""
    session.execute(delete(RateCount))


def _now(session: Session) -> Any:
    """Return the database's clock, which all processes share; SQLite uses this host's."""
    if session.get_bind().dialect.name == "postgresql":
        return func.extract("epoch", func.now()).cast(Double)
    return literal(time.time(), Double)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
