"""Keyset pagination of lists by id. The last page costs as much as the first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Session

from portal.domain.errors import InvalidInput

T = TypeVar("T")
MOST = 200


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list; `next_cursor` is None on the last page."""

    items: tuple[T, ...]
    next_cursor: str | None


def paged(
    session: Session, query: Select[T], key: InstrumentedAttribute[Any], cursor: str, limit: int
) -> tuple[Sequence[T], str | None]:
    """Return up to `limit` rows (at most 200) after `cursor`, and the next cursor.

    The order is that of `key`.
    """
    limit = max(1, min(limit, MOST))
    if cursor:
        query = query.where(key > cursor)
    rows = session.scalars(query.order_by(key).limit(limit + 1)).all()
    page = rows[:limit]
    return page, str(getattr(page[-1], key.key)) if len(rows) > limit else None


def paged_by_time(
    session: Session,
    query: Select[T],
    at: ColumnElement[datetime],
    key: InstrumentedAttribute[Any],
    cursor: str,
    limit: int,
) -> tuple[Sequence[T], str | None]:
    """Page a list by time, earliest first, and then by `key`, in the way of `paged`.

    Raises `InvalidInput` for a cursor of another list.
    """
    limit = max(1, min(limit, MOST))
    if cursor:
        since, _, behind = cursor.partition("~")
        try:
            time = datetime.fromisoformat(since)
        except ValueError:
            raise InvalidInput(
                "This cursor belongs to another list. Start again without a cursor.", field="cursor"
            ) from None
        if time.tzinfo is None:
            raise InvalidInput(
                "This cursor belongs to another list. Start again without a cursor.", field="cursor"
            )
        query = query.where(or_(at > time, and_(at == time, key > behind)))
    rows = session.execute(
        query.add_columns(at.label("paged_at")).order_by(at, key).limit(limit + 1)
    ).all()
    page = rows[:limit]
    more = len(rows) > limit
    cursor = f"{page[-1].paged_at.isoformat()}~{getattr(page[-1][0], key.key)}" if more else ""
    return [row[0] for row in page], cursor or None
