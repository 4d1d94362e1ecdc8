"""JSON responses of views and of paginated lists."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import orjson
from flask import Response, request

from portal.services.paging import Page
from portal.web.api.payloads import cursor_text

_NEVER = ("actions",)


def to_json(view: Any, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields of a frozen view, without `actions`, which are for pages only."""
    return {
        field.name: getattr(view, field.name)
        for field in dataclasses.fields(view)
        if field.name not in _NEVER and field.name not in without
    }


def answer(value: Any, status: int = 200) -> Response:
    """Return `value` as JSON, with times in ISO 8601 (`Z`) and sets sorted."""
    return Response(_dumped(value), status, mimetype="application/json")


def fresh(value: Any) -> Response:
    """Return `value` with an ETag, for caches that must revalidate."""
    response = answer(value)
    response.headers["Cache-Control"] = "no-cache"
    return unless_held(response)


def unless_held(response: Response) -> Response:
    """Add an ETag to a response, or return 304 if it matches (RFC 9110, section 8.8.3).

    It is computed from the body, which depends on grants, health, settings and the user's values.
    It is weak, because a proxy that compresses the response changes the bytes but not the meaning.
    """
    response.add_etag(weak=True)
    response.make_conditional(request)
    return response


def nothing(status: int) -> Response:
    """Return a response without a body."""
    return Response(status=status)


def page_of(page: Page[Any], item: Callable[[Any], Any]) -> Response:
    """Return a page of a list in the format of all `/v1` lists except servers."""
    cursor = cursor_text((page.next_cursor,)) if page.next_cursor is not None else None
    return answer({"items": [item(view) for view in page.items], "next_cursor": cursor})


def next_link(cursor: tuple[str, ...]) -> str:
    """Return the `Link` header (RFC 8288) to the next page of this list."""
    arguments = [(k, v) for k, v in request.args.items(multi=True) if k != "cursor"]
    return (
        f'<{request.path}?{urlencode([*arguments, ("cursor", cursor_text(cursor))])}>; rel="next"'
    )


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z)
    except TypeError:
        # An upstream may send numbers beyond 64 bits and lone surrogates, which orjson rejects.
        return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
