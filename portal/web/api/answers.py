"""What goes out: views as JSON, and lists with the way to their next page."""

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
    """The fields of a frozen view, what it may offer (`actions`) excepted: that is for pages."""
    return {
        field.name: getattr(view, field.name)
        for field in dataclasses.fields(view)
        if field.name not in _NEVER and field.name not in without
    }


def answer(value: Any, status: int = 200) -> Response:
    """`value` as JSON; times as ISO 8601 with `Z`, sets sorted."""
    return Response(_dumped(value), status, mimetype="application/json")


def fresh(value: Any) -> Response:
    """`value` for caches that ask each time whether it still holds."""
    response = answer(value)
    response.headers["Cache-Control"] = "no-cache"
    return unless_held(response)


def unless_held(response: Response) -> Response:
    """`response` with a validator (RFC 9110, 8.8.3): who has it already is told so instead, with
    304.

    It is made of the body: grants, health, settings and one's own values all change that. It is
    weak, because what compresses the answer on its way changes the bytes and not what they say.
    """
    response.add_etag(weak=True)
    response.make_conditional(request)
    return response


def nothing(status: int) -> Response:
    """An answer without a body."""
    return Response(status=status)


def page_of(page: Page[Any], item: Callable[[Any], Any]) -> Response:
    """A page of a list as every `/v1` list but the servers' has it."""
    cursor = cursor_text((page.next_cursor,)) if page.next_cursor is not None else None
    return answer({"items": [item(view) for view in page.items], "next_cursor": cursor})


def next_link(cursor: tuple[str, ...]) -> str:
    """The `Link` header (RFC 8288) to the next page of this request's list."""
    arguments = [(k, v) for k, v in request.args.items(multi=True) if k != "cursor"]
    return (
        f'<{request.path}?{urlencode([*arguments, ("cursor", cursor_text(cursor))])}>; rel="next"'
    )


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z)
    except TypeError:
        # An upstream may send numbers beyond 64 bits and half characters, which orjson does not
        # write.
        return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
