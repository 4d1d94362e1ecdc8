"""Keyset paging of lists by id: the same cost for the last page as for the first."""

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
    """One page of a list; `next_cursor` is None on the last."""

    items: tuple[T, ...]
    next_cursor: str | None


def paged(
    session: Session, query: Select[T], key: InstrumentedAttribute[Any], cursor: str, limit: int
) -> tuple[Sequence[T], str | None]:
    """At most `limit` (up to 200) rows behind `cursor`, in the order of `key`, and the cursor of
    the next page."""
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
    """As `paged`, in the order of a time, the earliest first, and then of `key`. Raises
    `InvalidInput` for a cursor of another list."""
    limit = max(1, min(limit, MOST))
    if cursor:
        since, _, behind = cursor.partition("~")
        try:
            time = datetime.fromisoformat(since)
        except ValueError:
            raise InvalidInput(
                "This cursor is not one of this list. Begin without one.", field="cursor"
            ) from None
        if time.tzinfo is None:
            raise InvalidInput(
                "This cursor is not one of this list. Begin without one.", field="cursor"
            )
        query = query.where(or_(at > time, and_(at == time, key > behind)))
    rows = session.execute(
        query.add_columns(at.label("paged_at")).order_by(at, key).limit(limit + 1)
    ).all()
    page = rows[:limit]
    more = len(rows) > limit
    cursor = f"{page[-1].paged_at.isoformat()}~{getattr(page[-1][0], key.key)}" if more else ""
    return [row[0] for row in page], cursor or None
