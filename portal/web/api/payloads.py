"""Request input: JSON bodies of limited size, validated by shapes, and common query parameters.

Services check the meaning of input. Error messages never repeat the input.
"""

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, ConfigDict, ValidationError

from portal.domain.errors import InvalidInput, NotFound, UnsupportedMediaType

MOST_PER_PAGE = 200
_USUAL_PER_PAGE = 50
_DEEPEST = 64
_LARGEST_INTEGER = 2**63
_MOST_ERRORS = 20


class Payload(BaseModel):
    """The base class of request shapes: strict JSON types, unknown fields are ignored."""

    model_config = ConfigDict(
        strict=True, extra="ignore", hide_input_in_errors=True, regex_engine="rust-regex"
    )

    def sent(self) -> dict[str, Any]:
        """Return the sent fields, including explicit nulls."""
        return self.model_dump(exclude_unset=True)


T = TypeVar("T", bound=Payload)


def read(shape: type[T]) -> T:
    """Return the body as `shape`.

    Raises `UnsupportedMediaType` (415) and `InvalidInput` (422), which names all invalid fields.
    """
    data = _body()
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        raise _named(error) from None


def read_object() -> dict[str, Any]:
    """Return the body as a JSON object without a shape. Raises the same errors as `read`."""
    return _body()


def read_if(allowed: Callable[[], object], shape: type[T]) -> T:
    """Return the body after the check `allowed`.

    The order of errors is: forbidden (403), invalid body (422), not found (404).
    """
    missing: NotFound | None = None
    try:
        allowed()
    except NotFound as error:
        missing = error
    payload = read(shape)
    if missing is not None:
        raise missing
    return payload


def limit_of(*, usual: int | None = _USUAL_PER_PAGE, most: int = MOST_PER_PAGE) -> int | None:
    """Return `?limit=`, from 1 to `most` items. Raises `InvalidInput`."""
    text = request.args.get("limit")
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= most):
        raise InvalidInput(f"Must be a number from 1 to {most}.", field="limit")
    return int(text)


def cursor_of(parts: int) -> tuple[str, ...] | None:
    """Return the parts of `?cursor=`, or None. Raises `InvalidInput` for an invalid cursor."""
    text = request.args.get("cursor")
    if not text:
        return None
    try:
        found = json.loads(base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True))
        if not isinstance(found, list) or len(found) != parts:
            raise ValueError
        for part in found:
            _check_text(part)
    except (ValueError, binascii.Error, TypeError, AttributeError, RecursionError, InvalidInput):
        raise InvalidInput(
            "The cursor is not valid. Omit it to start over.", field="cursor"
        ) from None
    return tuple(found)


def list_place() -> dict[str, Any]:
    """Return `limit` and `cursor` of the query, as arguments for services."""
    cursor = cursor_of(1)
    return {"limit": limit_of(), "cursor": cursor[0] if cursor else ""}


def cursor_text(parts: tuple[str, ...]) -> str:
    """Return the opaque text of a cursor."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _body() -> dict[str, Any]:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Send JSON with Content-Type: application/json.")
    try:
        data = json.loads(
            request.get_data(cache=False).decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        raise InvalidInput("The body is not valid UTF-8 JSON.") from None
    if not isinstance(data, dict):
        raise InvalidInput("The body is not a JSON object.")
    _check(data)
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Parsers may disagree on the value of a repeated field (RFC 8259, section 4).
        raise InvalidInput("The body contains the same field twice.")
    return found


def _no_constant(_name: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _check(value: Any) -> None:
    """Raise `InvalidInput` for NUL, lone surrogates, too large numbers and too deep nesting."""
    level = [value]
    for _ in range(_DEEPEST):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                for key in item:
                    _check_text(key)
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
            else:
                _check_leaf(item)
        if not deeper:
            return
        level = deeper
    raise InvalidInput(f"The body is nested more than {_DEEPEST} levels deep.")


def _check_leaf(value: Any) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif (isinstance(value, float) and value in (float("inf"), float("-inf"))) or (
        isinstance(value, int) and not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER
    ):
        raise InvalidInput("A number is too large.")


def _check_text(value: str) -> None:
    if "\x00" in value:
        raise InvalidInput("A string contains a NUL character.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput("A string contains a lone surrogate.") from None


def _named(error: ValidationError) -> InvalidInput:
    """Return the errors by field. Paths contain only declared names, since other keys are input."""
    ours = _field_names()
    faults: dict[tuple[str, str], None] = {}
    for fault in error.errors(include_input=False, include_url=False, include_context=False):
        names: list[str] = []
        for part in fault["loc"]:
            if isinstance(part, str):
                if part not in ours:
                    break
                names.append(part)
        faults[(".".join(names), fault["msg"].removeprefix("Value error, "))] = None
    errors = list(faults)[:_MOST_ERRORS]
    field, message = errors[0]
    return InvalidInput(f"{field or 'The body'}: {message}.", field=field or None, errors=errors)


def _field_names() -> frozenset[str]:
    return frozenset(name for shape in _shapes(Payload) for name in shape.model_fields)


def _shapes(root: type[Payload]) -> list[type[Payload]]:
    return [shape for child in root.__subclasses__() for shape in (child, *_shapes(child))]
