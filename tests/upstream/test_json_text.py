"""JSON that is made to cost, and what only looks like JSON."""

import json
import random
import time
from typing import Any

import pytest

from portal.upstream.json_answers import json_object
from portal.upstream.json_text import (
    TooDeep,
    TooManyValues,
    ValueCounter,
    check_value_count,
    read_json,
)
from tests.support.upstream.raw import PROMPT


def _counted(text: bytes, sizes: list[int]) -> int:
    counter = ValueCounter()
    at = 0
    for size in sizes:
        counter.feed(text[at : at + size])
        at += size
    counter.feed(text[at:])
    return counter.values


def _size(value: Any) -> int:
    """How many commas and opening brackets JSON needs for a value."""
    if isinstance(value, dict | list):
        parts = list(value.values()) if isinstance(value, dict) else value
        return 1 + max(0, len(parts) - 1) + sum(_size(part) for part in parts)
    return 0


def _some(source: random.Random, depth: int = 4) -> Any:
    kind = source.randrange(5 if depth else 3)
    if kind < 2:
        return "".join(
            source.choice('a",[{}]:\\\n\r\t é\u2028') for _ in range(source.randrange(8))
        )
    if kind == 2:
        return source.choice([None, True, 1.5, -7])
    parts = [_some(source, depth - 1) for _ in range(source.randrange(5))]
    return parts if kind == 3 else {f'k",[{n}\\': part for n, part in enumerate(parts)}


def test_values_are_counted_as_they_are_however_the_text_is_cut() -> None:
    source = random.Random(9)
    for _ in range(300):
        value = _some(source)
        text = json.dumps(
            value, indent=source.choice([None, 1]), ensure_ascii=source.random() < 0.5
        ).encode()
        sizes = [source.randrange(4) for _ in range(len(text))]
        assert _counted(text, sizes) == _counted(text, []) == _size(value)


@pytest.mark.parametrize(
    "text",
    [b'"' * 500_000, b'"\\' * 1_000_000, b"\\" * 500_000, b'"\\"' * 200_000, b"\n" * 500_000],
    ids=["quotes", "a quote and a backslash", "backslashes", "quoted quotes", "lines"],
)
def test_counting_takes_no_longer_for_odd_texts(text: bytes) -> None:
    began = time.process_time()
    check_value_count(text)
    assert time.process_time() - began < PROMPT


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-16-le"),
        '{"a": 1}'.encode("utf-32"),
        '{"a": "ü"}'.encode("latin-1"),
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        pytest.param(b'{"a": ' + b"9" * 1_000_000 + b"}", id="a million digits"),
        b"",
        b"\xef\xbb\xbf",
        b'{"a": 1}}',
    ],
)
def test_what_is_no_json_in_utf_8_is_none(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_json(text)
    assert json_object(text) is None


def test_json_is_read_with_and_without_a_byte_order_mark() -> None:
    assert read_json(b'\xef\xbb\xbf{"a": 1}') == read_json(b'{"a": 1}') == {"a": 1}


def test_depth_and_number_are_told_apart() -> None:
    with pytest.raises(TooDeep):
        read_json(b"[" * 100_000)
    with pytest.raises(TooManyValues):
        read_json(b"[" + b"0," * 200_000 + b"0]")
    assert len(read_json(b"[" + b"0," * 199_998 + b"0]")) == 199_999
