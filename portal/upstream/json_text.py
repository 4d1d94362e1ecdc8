"""JSON as it comes from elsewhere: UTF-8, of so many values, which are counted before anything is
built of them.

Ten MiB can hold five million values. A parser makes them in one go, during which no other thread of
the process runs, and what is done with them afterwards takes many seconds more.
"""

import json
import re
from typing import Any, NoReturn

MAX_VALUES = 200_000
_SLICE = 64 * 1024
# A text up to its quote, the end of its line or the end of what there is; the group holds the
# quote.
_TEXT = re.compile(rb'"[^"\\\r\n]*(?:\\[^\r\n][^"\\\r\n]*)*("?)')


class TooManyValues(ValueError):
    """The JSON holds more values than the caller takes."""


class TooDeep(ValueError):
    """The JSON is nested deeper than the parser follows."""


class ValueCounter:
    """Counts the values of JSON, and the lines, chunk by chunk and without parsing it.

    Each value follows a comma or an opening bracket outside of a text. A text ends with its line at
    the latest, for JSON has no line break in one: so an odd quote in a stream of events, in a
    comment for example, hides nothing.
    """

    def __init__(self) -> None:
        self.values = 0
        self.lines = 0
        self._begun = b""  # how the text begins that the last chunk has left open

    def feed(self, chunk: bytes) -> None:
        """Count what the next `chunk` adds."""
        self.lines += chunk.count(b"\n") + chunk.count(b"\r") - chunk.count(b"\r\n")
        chunk = self._begun + chunk
        last_line = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        # In the last line each text leaves two quotes, and only one where it is still open.
        rest = _TEXT.sub(rb'"\1', chunk[last_line:])
        outside = _TEXT.sub(b"", chunk[:last_line]) + rest
        self.values += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        is_open = rest.count(b'"') % 2 == 1
        self._begun = (b'"\\' if rest.endswith(b"\\") else b'"') if is_open else b""


def check_values(text: bytes, most: int = MAX_VALUES) -> None:
    """Raise TooManyValues where the JSON in `text` holds more than `most` values."""
    if len(text) <= most:
        return
    counter = ValueCounter()
    for start in range(0, len(text), _SLICE):  # other threads run in between
        counter.feed(text[start : start + _SLICE])
        if counter.values > most:
            raise TooManyValues(f"more than {most:,} values")


def read_json(text: bytes, most: int = MAX_VALUES) -> Any:
    """The value that `text` holds: JSON in UTF-8, with or without a byte order mark (RFC 8259,
    8.1).

    Raises TooManyValues beyond `most` values, TooDeep where the nesting exhausts the parser, and
    ValueError (as both are) for what is no JSON or cannot be read: other character sets, NaN,
    numbers of thousands of digits.
    """
    check_values(text, most)
    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise TooDeep("nested too deep") from None


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and infinities are no JSON")
