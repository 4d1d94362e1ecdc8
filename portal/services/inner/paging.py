"""Keyset paging of lists by id: the same cost for the last page as for the first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

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
    """At most `limit` (up to 200) rows behind `cursor`, in the order of `key`, and the cursor of the next page."""
    limit = max(1, min(limit, MOST))
    if cursor:
        query = query.where(key > cursor)
    rows = session.scalars(query.order_by(key).limit(limit + 1)).all()
    page = rows[:limit]
    return page, str(getattr(page[-1], key.key)) if len(rows) > limit else None
