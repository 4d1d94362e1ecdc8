"""What comes in: JSON of the right kind and size, read into shapes; and the few things a query
string may say.

The rules of meaning are the services'. What is refused here never gets that far, and nothing of it
is echoed.
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
    """The root of all shapes: JSON types as they are (no `"1"` for 1), unknown fields ignored."""

    model_config = ConfigDict(
        strict=True, extra="ignore", hide_input_in_errors=True, regex_engine="rust-regex"
    )

    def sent(self) -> dict[str, Any]:
        """The fields that the body names, explicit nulls among them."""
        return self.model_dump(exclude_unset=True)


T = TypeVar("T", bound=Payload)


def read(shape: type[T]) -> T:
    """The body as `shape`. Raises `UnsupportedMediaType` (415) and `InvalidInput` (422) naming
    every field at fault."""
    data = _body()
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        raise _named(error) from None


def read_object() -> dict[str, Any]:
    """The body as the JSON object that it is, for documents of other programs' making. Raises as
    `read` does."""
    return _body()


def read_if(allowed: Callable[[], object], shape: type[T]) -> T:
    """The body, once `allowed` let the caller pass: a refusal (403) comes before a malformed body
    (422), and that before a thing that does not exist (404)."""
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
    """`?limit=`, 1 to `most` (200). Raises `InvalidInput`."""
    text = request.args.get("limit")
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= most):
        raise InvalidInput(f"A limit is a number from 1 to {most}.", field="limit")
    return int(text)


def cursor_of(parts: int) -> tuple[str, ...] | None:
    """`?cursor=`: where the page before ended. Raises `InvalidInput` for one that is not ours."""
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
            "This cursor is not one of ours. Begin without one.", field="cursor"
        ) from None
    return tuple(found)


def list_place() -> dict[str, Any]:
    """`limit` and `cursor` of a list, as the services take them."""
    cursor = cursor_of(1)
    return {"limit": limit_of(), "cursor": cursor[0] if cursor else ""}


def cursor_text(parts: tuple[str, ...]) -> str:
    """The opaque form of a place in a list."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _body() -> dict[str, Any]:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Send JSON, with Content-Type: application/json.")
    try:
        data = json.loads(
            request.get_data(cache=False).decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        raise InvalidInput("The body is not JSON in UTF-8.") from None
    if not isinstance(data, dict):
        raise InvalidInput("The body is not a JSON object.")
    _check(data)
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Two readers of such a body may each believe another value (RFC 8259, 4).
        raise InvalidInput("The body names a field twice.")
    return found


def _no_constant(_name: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _check(value: Any) -> None:
    """Refuse what a later reader could choke on: NUL, half characters, endless numbers, too deep a
    nest."""
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
        raise InvalidInput("A text holds a NUL character.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput("A text holds half of a character (a lone surrogate).") from None


def _named(error: ValidationError) -> InvalidInput:
    """The faults by field. Keys of free mappings are input, so a path ends where our own names
    end."""
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
