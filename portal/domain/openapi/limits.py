"""Size limits for documents, and the error that parsing raises."""

import math
from typing import Any

MAX_DEPTH = 100
MAX_NODES = 400_000
MAX_OPERATIONS = 1_000
MAX_REFERENCES = 20_000
MAX_SCHEMA_NODES = 600
"""Limit for one tool's arguments. Parts beyond it accept any value."""
MAX_SCHEMA_DEPTH = 12
MAX_ALL_SCHEMA_NODES = 150_000
MAX_TEXT = 65_536
"""Maximum number of characters of a string."""


class DocumentError(Exception):
    """The document cannot be used. `message` is for people and has no content of the document."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def plain(value: Any) -> Any:
    """Return a copy of parsed JSON or YAML with string keys, JSON values and no shared parts.

    Raises `DocumentError` above 100 levels or 400,000 values, which a few nested YAML aliases can
    exceed.
    """
    return _Copy().of(value, 0)


class _Copy:
    def __init__(self) -> None:
        self._left = MAX_NODES

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise DocumentError(
                f"The document contains more than {MAX_NODES:,} values. Use a smaller document."
            )
        if depth > MAX_DEPTH:
            raise DocumentError(f"The document is nested deeper than {MAX_DEPTH} levels.")
        if isinstance(value, dict):
            return {_key(key): self.of(part, depth + 1) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(part, depth + 1) for part in value]
        return _scalar(value)


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return _sound(str(key))


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) < 2**63:
            return value
        return float(value) if abs(value) < 2**1023 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _sound(str(value))


def _sound(text: str) -> str:
    """Return a text that can be stored and sent: shortened, without NUL and lone surrogates."""
    return text[:MAX_TEXT].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
