"""HTTP requests from tool arguments (OpenAPI 3.1, Parameter Object: styles; RFC 3986)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from portal.domain.openapi.document import Operation, Parameter
from portal.domain.servers import origin_of

_SEPARATORS = {"spaceDelimited": " ", "pipeDelimited": "|"}


class ArgumentError(Exception):
    """The arguments are not valid. `message` is for the caller."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Request:
    """A request without authentication."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)


def build_request(operation: Operation, base: str, arguments: Mapping[str, Any]) -> Request:
    """Return the request that calls `operation` at `base`. Raises `ArgumentError`.

    An argument cannot change other parts of the request: a path argument is one segment other than
    `.` and `..`.
    """
    known = {parameter.argument for parameter in operation.parameters} | (
        {"body"} if operation.body else set()
    )
    if unknown := [name for name in arguments if name not in known]:
        raise ArgumentError(f"Unknown argument: {unknown[0][:64]}.")
    path = operation.path
    headers = {"Accept": "application/json, */*;q=0.5"}
    query: list[tuple[str, str]] = []
    cookies: list[str] = []
    for parameter in operation.parameters:
        value = arguments.get(parameter.argument)
        if value is None:
            if parameter.required:
                raise ArgumentError(f"The argument {parameter.argument} is required.")
        elif parameter.place == "path":
            path = path.replace("{" + parameter.name + "}", _segment(parameter, value))
        elif parameter.place == "query":
            query += _pairs(parameter, value)
        elif parameter.place == "header":
            headers[parameter.name] = _joined(parameter, value)
        else:
            cookies.append(
                f"{quote(parameter.name, safe='')}={quote(_joined(parameter, value), safe='')}"
            )
    if "{" in path or "}" in path:
        raise ArgumentError(
            "The path contains an undefined parameter, so this operation cannot be called."
        )
    if cookies:
        headers["Cookie"] = "; ".join(cookies)
    body = _body(operation, arguments)
    if body is not None:
        headers["Content-Type"] = operation.body
    return Request(operation.method, _url(base, path, query), headers, body)


def _url(base: str, path: str, query: list[tuple[str, str]]) -> str:
    start, _, base_query = base.partition("#")[0].partition("?")
    url = start.rstrip("/") + quote(path, safe="/%:@!$&'()*+,;=~-._")
    if any(segment in (".", "..") for segment in path.split("/")) or origin_of(url) != origin_of(
        base
    ):
        raise ArgumentError("The path is outside of the base URL.")
    parts = [part for part in (base_query, urlencode(query, quote_via=quote, safe="")) if part]
    return url + ("?" + "&".join(parts) if parts else "")


def _segment(parameter: Parameter, value: Any) -> str:
    text = _joined(parameter, value)
    if text in ("", ".", ".."):
        raise ArgumentError(f"The argument {parameter.argument} must not be empty, “.” or “..”.")
    encoded = quote(text, safe=",")
    return {"label": f".{encoded}", "matrix": f";{quote(parameter.name, safe='')}={encoded}"}.get(
        parameter.style, encoded
    )


def _pairs(parameter: Parameter, value: Any) -> Iterator[tuple[str, str]]:
    name = parameter.name
    if isinstance(value, dict) and parameter.style == "deepObject":
        yield from ((f"{name}[{key}]", _scalar(part)) for key, part in value.items())
    elif isinstance(value, dict) and parameter.explode:
        yield from ((str(key), _scalar(part)) for key, part in value.items())
    elif isinstance(value, list) and parameter.explode:
        yield from ((name, _scalar(part)) for part in value)
    else:
        yield name, _joined(parameter, value)


def _joined(parameter: Parameter, value: Any) -> str:
    if isinstance(value, list):
        return _SEPARATORS.get(parameter.style, ",").join(_scalar(part) for part in value)
    if isinstance(value, dict):
        pairs = ((str(key), _scalar(part)) for key, part in value.items())
        return ",".join(
            f"{key}={part}" if parameter.explode else f"{key},{part}" for key, part in pairs
        )
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        text = value
    elif value is None:
        text = ""
    else:
        text = _json(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentError("An argument contains an invalid character.") from None
    return text


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        raise ArgumentError("An argument is not valid JSON.") from None


def _body(operation: Operation, arguments: Mapping[str, Any]) -> bytes | None:
    if not operation.body or "body" not in arguments:
        if operation.body_required:
            raise ArgumentError("The argument body is required.")
        return None
    value = arguments["body"]
    if operation.body != "application/x-www-form-urlencoded":
        return _json(value).encode()
    if not isinstance(value, dict):
        raise ArgumentError("The argument body must be an object.")
    return urlencode(list(_form(value))).encode()


def _form(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, part in value.items():
        name = f"{prefix}[{key}]" if prefix else str(key)
        if isinstance(part, dict):
            yield from _form(part, name)
        else:
            items = part if isinstance(part, list) else [part]
            yield from ((name, _scalar(item)) for item in items if item is not None)
