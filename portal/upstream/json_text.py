"""Parsing of untrusted JSON in UTF-8, with a limit on the number of values.

10 MiB can contain five million values. Parsing them blocks all threads of the process, and
processing them takes many seconds. So values are counted before parsing.
"""

import json
import re
from typing import Any, NoReturn

MAX_VALUES = 200_000
_SLICE = 64 * 1024
# A string up to its closing quote (the group), the end of the line, or the end of the data.
_TEXT = re.compile(rb'"[^"\\\r\n]*(?:\\[^\r\n][^"\\\r\n]*)*("?)')


class TooManyValues(ValueError):
    """The JSON contains too many values."""


class TooDeep(ValueError):
    """The JSON is nested too deeply for the parser."""


class ValueCounter:
    """Counter of JSON values and lines, chunk by chunk and without parsing.

    Each value follows a comma or an opening bracket outside of a string. A string ends at the end
    of its line, since JSON strings have no line breaks. So a single quote in an event stream, such
    as in a comment, does not hide values.
    """

    def __init__(self) -> None:
        self.values = 0
        self.lines = 0
        self._begun = b""  # the beginning of a string that continues in the next chunk

    def feed(self, chunk: bytes) -> None:
        """Count the values and lines in the next `chunk`."""
        self.lines += chunk.count(b"\n") + chunk.count(b"\r") - chunk.count(b"\r\n")
        chunk = self._begun + chunk
        last_line = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        # In the last line, each string leaves two quotes, or one if it is still open.
        rest = _TEXT.sub(rb'"\1', chunk[last_line:])
        outside = _TEXT.sub(b"", chunk[:last_line]) + rest
        self.values += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        is_open = rest.count(b'"') % 2 == 1
        self._begun = b""
        if is_open:
            self._begun = b'"\\' if rest.endswith(b"\\") else b'"'


def check_value_count(text: bytes, most: int = MAX_VALUES) -> None:
    """Raise `TooManyValues` if the JSON in `text` contains more than `most` values."""
    if len(text) <= most:
        return
    counter = ValueCounter()
    for start in range(0, len(text), _SLICE):  # so that other threads can run
        counter.feed(text[start : start + _SLICE])
        if counter.values > most:
            raise TooManyValues(f"more than {most:,} values")


def read_json(text: bytes, most: int = MAX_VALUES) -> Any:
    """Return the value of UTF-8 JSON, with or without a byte order mark (RFC 8259, section 8.1).

    Raises `TooManyValues` above `most` values, `TooDeep` for too deep nesting, and `ValueError`
    (the base class of both) for invalid JSON, other encodings, NaN and extremely long numbers.
    """
    check_value_count(text, most)
    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise TooDeep("nested too deep") from None


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")
