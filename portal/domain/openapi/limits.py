"""What of a document is read at all, and the one error that all reading raises."""

import math
from typing import Any

MAX_DEPTH = 100
MAX_NODES = 400_000
MAX_OPERATIONS = 1_000
MAX_REFERENCES = 20_000
MAX_SCHEMA_NODES = 600
"""Of one tool's arguments; what is nested beyond that accepts any value."""
MAX_SCHEMA_DEPTH = 12
MAX_ALL_SCHEMA_NODES = 150_000
MAX_TEXT = 65_536
"""Characters of a single text."""


class DocumentError(Exception):
    """The document cannot be used. `message` is for people; it holds nothing that the document
    says."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def plain(value: Any) -> Any:
    """A copy of parsed JSON or YAML with text keys and JSON's values only, each shared part written
    out.

    Raises DocumentError beyond 100 levels or 400,000 values, which a few YAML aliases that refer to
    one another reach.
    """
    return _Copy().of(value, 0)


class _Copy:
    def __init__(self) -> None:
        self._left = MAX_NODES

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise DocumentError(
                f"The document holds more than {MAX_NODES:,} values. Use a smaller one."
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
        return value if abs(value) < 2**63 else float(value) if abs(value) < 2**1023 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _sound(str(value))


def _sound(text: str) -> str:
    """The text as it may be stored and sent: cut, without NUL and half characters."""
    return text[:MAX_TEXT].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
