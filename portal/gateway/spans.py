"""JSON with positions: unchanged parts of the text keep their bytes when others are replaced.

Numbers, escapes, the order of keys and repeated keys stay as they were sent. Decoding and encoding
would lose them.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json.decoder import JSONDecoder
from typing import Any, NoReturn

_BLANK = re.compile(r"[ \t\n\r]*")


class NotJson(ValueError):
    """The text is not JSON."""


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


_scan = JSONDecoder(parse_constant=_refuse_constant).raw_decode


@dataclass(frozen=True)
class Span:
    """A value in the text, from `start` to `end`. `value` is an `Obj` or `Arr` if it was parsed
    with positions, else the decoded value."""

    start: int
    end: int
    value: Any


@dataclass(frozen=True)
class Obj:
    """An object, with its members in the order of the text."""

    members: tuple[tuple[str, Span], ...]

    def spans(self, key: str) -> Iterator[Span]:
        """Return the values of a key, usually one."""
        return (span for name, span in self.members if name == key)

    def get(self, key: str) -> Any:
        """Return the last value of a key, as JSON parsers do, or None."""
        return next((span.value for name, span in reversed(self.members) if name == key), None)


@dataclass(frozen=True)
class Arr:
    """An array whose items were parsed with positions."""

    items: tuple[Span, ...]


def read_text(body: bytes, path: tuple[str, ...] = ()) -> tuple[str, Span]:
    """Return the text of a UTF-8 `body` and its JSON value.

    Objects along `path` and the items of an array at its end are parsed with positions. Raises
    `NotJson`.
    """
    try:
        text = body.decode("utf-8")
        span = _read(text, _skip(text, 0), path, looks_into=True)
    except (ValueError, StopIteration, RecursionError, IndexError):
        raise NotJson("not JSON") from None
    if _skip(text, span.end) != len(text):
        raise NotJson("text after the JSON")
    return text, span


def replaced(text: str, edits: Iterable[tuple[Span, str]]) -> str:
    """Return the text with some values replaced; the values must not overlap."""
    pieces = []
    at = 0
    for span, instead in sorted(edits, key=lambda edit: edit[0].start):
        pieces += [text[at : span.start], instead]
        at = span.end
    return "".join([*pieces, text[at:]])


def quoted(value: object) -> str:
    """Return a value as JSON."""
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
