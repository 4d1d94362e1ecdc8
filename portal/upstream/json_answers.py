"""Parsing of untrusted JSON from authorization servers, limited in depth and text."""

from typing import Any

from portal.upstream.json_text import read_json

MOST_TEXT = 16 * 1024
_DEEPEST = 16


def json_object(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `text`, or None if it is not valid.

    It must not be nested deeper than 16 levels. Strings must be valid Unicode without NUL, of at
    most 16 KiB.
    """
    try:
        answer = read_json(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and _is_plain(answer, _DEEPEST) else None


def _is_plain(value: object, depth: int) -> bool:
    if isinstance(value, str):
        return (
            len(value) <= MOST_TEXT
            and "\x00" not in value
            and not any("\ud800" <= c <= "\udfff" for c in value)
        )
    if isinstance(value, dict | list):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return depth > 0 and all(_is_plain(part, depth - 1) for part in parts)
    return True
