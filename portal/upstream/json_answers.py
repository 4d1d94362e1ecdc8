"""JSON of authorization servers, read with suspicion: an object, not deep, of text that can be
stored."""

from typing import Any

from portal.upstream.json_text import read_json

MOST_TEXT = 16 * 1024
_DEEPEST = 16


def json_object(text: bytes) -> dict[str, Any] | None:
    """The JSON object in `text`; None where it is none, nests deeper than 16, or holds text that is
    no Unicode, has NUL characters, or is longer than 16 KiB."""
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
