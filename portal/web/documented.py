"""What each route of the API says of itself, beside its handler; `openapi.py` makes the document
out of it.

An entry is one line under the route, `@documented(UserView, takes=UserBody, status=201)`: the
handler's name and docstring, the rule and the shapes say the rest.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import Field, create_model

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Query:
    """A parameter of the query string; none is required. `kind` is its type, a list where it may be
    repeated."""

    name: str
    about: str
    kind: Any = str


@dataclass(frozen=True)
class Entry:
    """What a route takes and gives: types that pydantic knows; `gives` is None for an answer
    without a body.

    `also` are statuses beside those that `openapi.py` derives from the rule: 304, 404 of what a
    body names, 409 ...
    """

    gives: Any
    takes: Any
    query: tuple[Query, ...]
    status: int
    also: tuple[int, ...]
    example: Mapping[str, Any] | None
    needs_body: bool


LIMIT = Query("limit", "How many at most, 1 to 200.", Annotated[int, Field(ge=1, le=200)])
CURSOR = Query("cursor", "Where the page before ended, as its answer said. Leave it out to begin.")
PAGED = (LIMIT, CURSOR)


def documented(
    gives: Any = None,
    *,
    takes: Any = None,
    query: tuple[Query, ...] = (),
    status: int = 200,
    also: tuple[int, ...] = (),
    example: Mapping[str, Any] | None = None,
    needs_body: bool = True,
) -> Callable[[F], F]:
    """The entry of a route, written directly under `@bp.get(...)`. What `takes` a body has an
    `example` of it."""

    def attach(view: F) -> F:
        view.entry = Entry(gives, takes, query, status, also, example, needs_body)  # type: ignore[attr-defined]
        return view

    return attach


def shape(name: str, view: type, *, without: tuple[str, ...] = (), **more: Any) -> Any:
    """The answer that a frozen `view` becomes: its fields but those left out, and more of them by
    type."""
    hints = get_type_hints(view, include_extras=True)
    kept = {
        found.name: hints[found.name]
        for found in dataclasses.fields(view)
        if found.name not in without
    }
    fields: dict[str, Any] = {field: (kind, ...) for field, kind in {**kept, **more}.items()}
    return create_model(name, __doc__=view.__doc__, **fields)


@cache
def listed(kind: Any) -> Any:
    """A page of a list of `kind`; `next_cursor` is null on the last one."""
    fields: dict[str, Any] = {"items": (list_of(kind), ...), "next_cursor": (str | None, ...)}
    return create_model(f"{kind.__name__}List", __doc__="A page of a list.", **fields)


def list_of(kind: Any) -> Any:
    """A list of what `shape` made, which to a type checker is a variable and no type."""
    return GenericAlias(list, (kind,))
