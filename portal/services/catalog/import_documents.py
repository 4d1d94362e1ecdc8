"""Parsing documents to import: JSON, as lenient as editors are, or YAML.

Error messages never quote the text, because it probably contains secrets; they say where the fault
is.
"""

import json
import re
from bisect import bisect
from collections.abc import Iterator
from typing import Any

import yaml

from portal.domain.errors import InvalidInput, TooLarge
from portal.domain.importing import ImportDocument, read_import
from portal.upstream import yaml_text

MOST_BYTES = 256 * 1024
_DEEPEST = 32
_CONTAINERS = ("mcpServers", "servers", "mcp_servers")
# A string, a comment, or a trailing comma; files of VS Code and Cursor may contain the last two.
# Unclosed ones extend to the end of the text, so that they are scanned only once.
_COMMENT = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_LENIENT = re.compile(
    rf'"(?:[^"\\]|\\.?)*+(?:"|\Z)|{_COMMENT}|,(?=(?:\s|{_COMMENT})*+[}}\]])', re.S
)
_BLANK = re.compile(r"[^\n]")


def parse_document(text: str) -> ImportDocument:
    """Return the servers in `text`.

    Raises `TooLarge` over 256 KB, and `InvalidInput` naming line and column.
    """
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise TooLarge("The document is larger than 256 KB. Split it.", field="text")
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise InvalidInput(
            "The document is empty. Paste a document, or choose a file.", field="text"
        )
    if "\x00" in text:
        raise InvalidInput("The text contains a NUL character.", field="text")
    if text.lstrip()[:1] in ("{", "["):
        source = _LENIENT.sub(
            lambda match: match[0] if match[0][0] == '"' else _BLANK.sub(" ", match[0]), text
        )
        document = _json(source)
        lines = _json_lines(source)
    else:
        document, lines = _yaml(text)
    return read_import(document, lines)


def understand(document: object) -> ImportDocument:
    """Return the servers of a parsed document."""
    _check(document)
    return read_import(document, {})


def _check(document: object) -> None:
    """Refuse documents that are nested too deeply, and text that no database can store."""
    level = [document]
    for _ in range(_DEEPEST):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
        if any(isinstance(item, str) and not _is_storable(item) for item in level):
            raise InvalidInput("A text contains a NUL or an invalid character.", field="text")
    raise InvalidInput(f"The document is nested more than {_DEEPEST} levels deep.", field="text")


def _is_storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _json(source: str) -> object:
    try:
        document = json.loads(source, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _not_read("JSON", error.lineno, error.colno) from None
    except (RecursionError, ValueError):
        raise InvalidInput(
            "The document is nested too deeply, or contains a number that is too long.",
            field="text",
        ) from None
    _check(document)
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Parsers may disagree about which value counts (RFC 8259, 4).
        raise InvalidInput("An object in the document has a duplicate field.", field="text")
    return found


def _json_lines(source: str) -> dict[str, int]:
    """Return the line of each entry by its key or server name."""
    start = len(source) - len(source.lstrip())
    breaks = [match.start() for match in re.finditer("\n", source)]
    lines: dict[str, int] = {}
    for container in (start, *(at for key, _, at in _members(source, start) if key == "mcp")):
        for key, key_at, at in _members(source, container):
            if key in _CONTAINERS:
                for name, name_at, _ in _members(source, at):
                    lines.setdefault(name, bisect(breaks, name_at) + 1)
            else:
                lines.setdefault(key, bisect(breaks, key_at) + 1)
    return lines


def _members(source: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Yield the members of the JSON object at an offset: key, key offset and value offset."""
    decoder = json.JSONDecoder()
    if source[at : at + 1] != "{":
        return
    at = _skip(source, at + 1)
    while source[at : at + 1] == '"':
        key_at = at
        key, at = decoder.raw_decode(source, at)
        value_at = _skip(source, _skip(source, at) + 1)
        yield key, key_at, value_at
        _, at = decoder.raw_decode(source, value_at)
        at = _skip(source, at)
        at = _skip(source, at + 1) if source[at : at + 1] == "," else len(source)


def _skip(source: str, at: int) -> int:
    while source[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _yaml(text: str) -> tuple[object, dict[str, int]]:
    try:
        depth = 0
        for event in yaml_text.events(text):
            if isinstance(event, yaml.AliasEvent):
                # A few lines of aliases can expand to gigabytes.
                raise InvalidInput(
                    "YAML anchors and aliases are not supported. Write the values out.",
                    field="text",
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            if depth > _DEEPEST:
                raise InvalidInput(
                    f"The document is nested more than {_DEEPEST} levels deep.", field="text"
                )
        node = yaml.compose(text, Loader=yaml_text.Loader)
        document = yaml_text.load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _not_read(
            "YAML", mark.line + 1 if mark else 1, mark.column + 1 if mark else 1
        ) from None
    except yaml_text.TooManyDirectives:
        most = yaml_text.MAX_DIRECTIVES
        raise InvalidInput(
            f"The document has more than {most} YAML directives (%). Remove them.", field="text"
        ) from None
    except (yaml.YAMLError, ValueError, TypeError):
        raise InvalidInput("The document is not valid YAML.", field="text") from None
    _check(document)
    return document, dict(_yaml_lines(node))


def _yaml_lines(node: Any) -> Iterator[tuple[str, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.value in _CONTAINERS and isinstance(value, yaml.MappingNode):
            yield from ((str(name.value), name.start_mark.line + 1) for name, _ in value.value)
        else:
            yield str(key.value), key.start_mark.line + 1


def _not_read(what: str, line: int, column: int) -> InvalidInput:
    return InvalidInput(
        f"This is not valid {what}: syntax error at line {line}, column {column}.", field="text"
    )
