"""The decorator that documents an API route; `openapi.py` builds the OpenAPI document from it.

An entry is one line under the route, `@documented(UserView, takes=UserBody, status=201)`. The rest
comes from the handler's name and docstring, the URL rule and the shapes.
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
    """An optional query parameter. `kind` is its type, a list if it may be repeated."""

    name: str
    about: str
    kind: Any = str


@dataclass(frozen=True)
class Entry:
    """The request and response types of a route; `gives` is None for a response without a body.

    `also` lists statuses that `openapi.py` does not derive from the rule, such as 304 or 409.
    """

    gives: Any
    takes: Any
    query: tuple[Query, ...]
    status: int
    also: tuple[int, ...]
    example: Mapping[str, Any] | None
    needs_body: bool


LIMIT = Query("limit", "Maximum number of items, 1 to 200.", Annotated[int, Field(ge=1, le=200)])
CURSOR = Query("cursor", "The `next_cursor` of the previous page. Omit it for the first page.")
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
    """Document a route. It stands under `@bp.get(...)`, with an `example` of the body, if any."""

    def attach(view: F) -> F:
        view.entry = Entry(gives, takes, query, status, also, example, needs_body)  # type: ignore[attr-defined]
        return view

    return attach


def shape(name: str, view: type, *, without: tuple[str, ...] = (), **more: Any) -> Any:
    """Return a response model of a frozen `view`, without some fields and with `more` by type."""
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
    """Return the model for a page of `kind` items; `next_cursor` is null on the last page."""
    fields: dict[str, Any] = {"items": (list_of(kind), ...), "next_cursor": (str | None, ...)}
    return create_model(f"{kind.__name__}List", __doc__="A page of a list.", **fields)


def list_of(kind: Any) -> Any:
    """Return a list type of a model from `shape`, which type checkers see as a variable."""
    return GenericAlias(list, (kind,))
