"""JSON read by place: where each member of an object stands in the text, so that what is not
changed keeps its bytes.

Numbers, escapes, the order of keys and keys that are there twice stay as they were sent; a decoder
and an encoder would lose them.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json.decoder import JSONDecoder
from typing import Any, NoReturn

_BLANK = re.compile(r"[ \t\n\r]*")


class NotJson(ValueError):
    """The text is no JSON."""


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and infinities are no JSON")


_scan = JSONDecoder(parse_constant=_refuse_constant).raw_decode


@dataclass(frozen=True)
class Span:
    """A value in the text, from `start` to `end`. `value` is what it means; an object or array that
    was looked into is an `Obj` or `Arr`."""

    start: int
    end: int
    value: Any


@dataclass(frozen=True)
class Obj:
    """An object: its members in the order in which they stand there."""

    members: tuple[tuple[str, Span], ...]

    def spans(self, key: str) -> Iterator[Span]:
        """The values under a key, usually one."""
        return (span for name, span in self.members if name == key)

    def get(self, key: str) -> Any:
        """The last value under a key, as parsers take it; None where there is none."""
        return next((span.value for name, span in reversed(self.members) if name == key), None)


@dataclass(frozen=True)
class Arr:
    """An array whose items were looked into."""

    items: tuple[Span, ...]


def read_text(body: bytes, path: tuple[str, ...] = ()) -> tuple[str, Span]:
    """The JSON in `body`, which is UTF-8, and what it is; objects are looked into along `path`, and
    the items of an array at its end.

    Raises `NotJson`.
    """
    try:
        text = body.decode("utf-8")
        span = _read(text, _skip(text, 0), path, looks_into=True)
    except (ValueError, StopIteration, RecursionError, IndexError):
        raise NotJson("not JSON") from None
    if _skip(text, span.end) != len(text):
        raise NotJson("something stands after the JSON")
    return text, span


def replaced(text: str, edits: Iterable[tuple[Span, str]]) -> str:
    """The text with other text in the place of some values, none of which lies in another."""
    pieces = []
    at = 0
    for span, instead in sorted(edits, key=lambda edit: edit[0].start):
        pieces += [text[at : span.start], instead]
        at = span.end
    return "".join([*pieces, text[at:]])


def quoted(value: object) -> str:
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False)


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _read(text: str, at: int, path: tuple[str, ...], *, looks_into: bool) -> Span:
    first = text[at]
    if looks_into and first == "{":
        return _read_object(text, at, path)
    if looks_into and first == "[" and not path:
        return _read_array(text, at)
    value, end = _scan(text, at)
    return Span(at, end, value)


def _read_object(text: str, start: int, path: tuple[str, ...]) -> Span:
    members = []
    at = _skip(text, start + 1)
    if text[at] == "}":
        return Span(start, at + 1, Obj(()))
    while True:
        if text[at] != '"':
            raise NotJson("a key is missing")
        key, at = _scan(text, at)
        at = _skip(text, at)
        if text[at] != ":":
            raise NotJson("a colon is missing")
        span = _read(
            text,
            _skip(text, at + 1),
            path[1:],
            looks_into=bool(path) and key == path[0],
        )
        members.append((key, span))
        at = _skip(text, span.end)
        if text[at] == "}":
            return Span(start, at + 1, Obj(tuple(members)))
        if text[at] != ",":
            raise NotJson("a comma is missing")
        at = _skip(text, at + 1)


def _read_array(text: str, start: int) -> Span:
    items = []
    at = _skip(text, start + 1)
    if text[at] == "]":
        return Span(start, at + 1, Arr(()))
    while True:
        span = (
            _read_object(text, at, ()) if text[at] == "{" else _read(text, at, (), looks_into=False)
        )
        items.append(span)
        at = _skip(text, span.end)
        if text[at] == "]":
            return Span(start, at + 1, Arr(tuple(items)))
        if text[at] != ",":
            raise NotJson("a comma is missing")
        at = _skip(text, at + 1)
