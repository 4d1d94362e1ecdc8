"""JSON and YAML that are made to cost, and those that only look so."""

import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from portal.domain.errors import InvalidInput
from portal.domain.openapi.limits import DocumentError
from portal.services.catalog import import_documents
from portal.upstream import yaml_text
from portal.upstream.documents import parse_document
from portal.upstream.json_answers import json_object
from portal.upstream.json_text import TooDeep, TooManyValues, ValueCounter, check_values, read_json
from portal.upstream.probing import is_openapi
from tests.support.upstream.raw import PROMPT

HEAD = "openapi: 3.1.0\ninfo: {title: x, version: '1'}\npaths: {}\n"
MANY = 300_000


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
    check_values(text)
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


def _directives(number: int) -> str:
    return "".join(f"%TAG !a{n}! x\n" for n in range(number)) + "---\n"


# Made where they are read: they are long.
SLOW: dict[str, Callable[[], str]] = {
    "directives": lambda: _directives(MANY) + HEAD,
    "a number of a million parts": lambda: HEAD + "x: 1" + ":1" * 1_000_000,
    "a fraction of a million parts": lambda: HEAD + "x: 1" + ":1" * 1_000_000 + ".0",
    "a million digits": lambda: HEAD + "x: " + "9" * 1_000_000,
    "a million hexadecimal digits": lambda: HEAD + "x: 0x" + "f" * 1_000_000,
    "a million digits after the point": lambda: HEAD + "x: 1." + "9" * 1_000_000,
    "a million values": lambda: HEAD + "x: [" + "1," * 1_000_000 + "]",
    "a million keys": lambda: HEAD + "".join(f"k{n}: 1\n" for n in range(500_000)),
    "a million keys in JSON": lambda: (
        '{"openapi": "3.1.0", ' + ",".join(f'"k{n}": 1' for n in range(400_000)) + "}"
    ),
    "many documents": lambda: "---\n" * 100_000,
    "deep": lambda: HEAD + "x: " + "[" * 100_000,
    "deep in JSON": lambda: '{"openapi": ' * 100_000,
    "a million anchors": lambda: HEAD + "x: [" + "&a 1," * 300_000 + "]",
}


@pytest.mark.parametrize("name", SLOW)
def test_a_document_that_is_made_to_cost_is_read_or_refused_soon(name: str) -> None:
    text = SLOW[name]()
    began = time.process_time()
    is_openapi(text.encode())
    with suppress(DocumentError):
        parse_document(text.encode())
    with pytest.raises(InvalidInput):
        import_documents.parse_document(text[:200_000])
    assert time.process_time() - began < PROMPT


@pytest.mark.parametrize("text", ['{"openapi": "3.1.0"}', HEAD])
def test_a_document_in_another_character_set_is_none(text: str) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        assert not is_openapi(text.encode(encoding))
        with pytest.raises(DocumentError):
            parse_document(text.encode(encoding))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30", "12:30"),
        ("1:30:00.5", "1:30:00.5"),
        ("7", 7),
        ("-7", -7),
        ("0x1f", 31),
        ("1_000", 1000),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        (".inf", float("inf")),
        ("2026-01-02", "2026-01-02"),
        ("9" * 500, "9" * 500),
    ],
)
def test_numbers_are_numbers_and_times_are_texts(text: str, value: object) -> None:
    assert yaml_text.load(f"x: {text}") == {"x": value}


def test_a_few_directives_are_fine() -> None:
    assert is_openapi(("%YAML 1.1\n%TAG !a! x\n---\n" + HEAD).encode())
    with pytest.raises(DocumentError, match="more than 10 YAML directives"):
        parse_document((_directives(11) + HEAD).encode())
    with pytest.raises(InvalidInput, match="more than 10 YAML directives"):
        import_documents.parse_document(_directives(11) + "mcp_servers: {}\n")
