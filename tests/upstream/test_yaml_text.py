"""YAML that is made to cost, and what only looks like YAML."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from portal.domain.errors import InvalidInput
from portal.domain.openapi.limits import DocumentError
from portal.services.catalog import import_documents
from portal.upstream import yaml_text
from portal.upstream.documents import parse_openapi
from portal.upstream.probing import is_openapi
from tests.support.upstream.raw import PROMPT

HEAD = "openapi: 3.1.0\ninfo: {title: x, version: '1'}\npaths: {}\n"
MANY = 300_000


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
        parse_openapi(text.encode())
    with pytest.raises(InvalidInput):
        import_documents.parse_document(text[:200_000])
    assert time.process_time() - began < PROMPT


@pytest.mark.parametrize("text", ['{"openapi": "3.1.0"}', HEAD])
def test_a_document_in_another_character_set_is_none(text: str) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        assert not is_openapi(text.encode(encoding))
        with pytest.raises(DocumentError):
            parse_openapi(text.encode(encoding))


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
        parse_openapi((_directives(11) + HEAD).encode())
    with pytest.raises(InvalidInput, match="more than 10 YAML directives"):
        import_documents.parse_document(_directives(11) + "mcp_servers: {}\n")
