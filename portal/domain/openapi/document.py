"""Parsing of OpenAPI documents into operations (OpenAPI 3.0.4 and 3.1.1)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from portal.domain.openapi.limits import MAX_OPERATIONS, DocumentError, plain
from portal.domain.openapi.references import Resolver
from portal.domain.openapi.signin import SignIn, sign_in_of
from portal.domain.servers import origin_of
from portal.domain.upstream import ToolDefinition

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
MAX_TOOL_NAME = 64
_MAX_DESCRIPTION = 2_000
_PLACES = frozenset({"path", "query", "header", "cookie"})
# OpenAPI ignores the first three as parameters. The others belong to the HTTP message.
_NOT_PARAMETERS = frozenset(
    {"accept", "content-type", "authorization", "cookie", "host", "content-length"}
)
_VARIABLE = re.compile(r"\{([^{}]{1,200})\}")
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Parameter:
    """A parameter: the tool's argument, the original name, and how it is sent."""

    argument: str
    name: str
    place: str
    required: bool
    style: str
    explode: bool


@dataclass(frozen=True)
class Operation:
    """An operation as a tool. `server` is its base URL, which may be relative or empty."""

    tool: ToolDefinition
    method: str
    path: str
    server: str
    parameters: tuple[Parameter, ...]
    body: str = ""
    """Media type of the request body (the argument `body`), or "" without a body."""
    body_required: bool = False
    summary: str = ""

    @property
    def name(self) -> str:
        return self.tool.name

    @property
    def arguments(self) -> int:
        """Return the number of arguments of the tool."""
        return len(self.parameters) + bool(self.body)


@dataclass(frozen=True)
class Document:
    """A parsed document. `left_out` is the number of operations with unsupported body types."""

    title: str
    version: str
    description: str
    server: str
    operations: tuple[Operation, ...]
    left_out: int = 0
    sign_in: SignIn = field(default_factory=SignIn)

    @property
    def tools(self) -> tuple[ToolDefinition, ...]:
        return tuple(operation.tool for operation in self.operations)

    def operation(self, name: str) -> Operation | None:
        """Return the operation of a tool, or None."""
        return next((operation for operation in self.operations if operation.name == name), None)


def read_document(parsed: Any) -> Document:
    """Return the document of parsed JSON or YAML. Raises only `DocumentError`, for any input."""
    document = plain(parsed)
    if not isinstance(document, dict):
        raise DocumentError("This is not an OpenAPI document: it has no field “openapi”.")
    _check_version(document)
    resolver = Resolver(document)
    info = resolver.object(document.get("info"))
    server = _server(document)
    found = []
    left_out = 0
    names = set[str]()
    for path, method, shared, operation in _operations(document, resolver):
        own = _server(operation) or _server(shared) or server
        made = _Reader(resolver, path, method, shared, operation).read(own, names)
        found += [made] if made else []
        left_out += made is None
    if not found:
        raise DocumentError("The document contains no operation that can be called.")
    return Document(
        title=_text(info.get("title"), 200),
        version=_text(_word(info.get("version")), 60),
        description=_text(info.get("description"), 1_000),
        server=server,
        operations=tuple(found),
        left_out=left_out,
        sign_in=sign_in_of(document, resolver),
    )


def absolute_server(server: str, document_url: str) -> str | None:
    """Return the base URL, resolved against the document's URL, or None if it is not http(s)."""
    try:
        url = urljoin(document_url, server or "/")
    except ValueError:
        return None
    plain_url = (
        url.startswith(("http://", "https://")) and "@" not in url.split("/")[2] and "\\" not in url
    )
    return url if plain_url and origin_of(url) else None


def _check_version(document: Mapping[str, Any]) -> None:
    if "swagger" in document:
        raise DocumentError(
            "This is a Swagger 2 document. Convert it to OpenAPI 3 (for example with"
            " swagger2openapi) and use that."
        )
    version = document.get("openapi")
    if version is None:
        raise DocumentError("This is not an OpenAPI document: it has no field “openapi”.")
    if not str(version).startswith(("3.0", "3.1")):
        raise DocumentError(
            "Only OpenAPI 3.0 and 3.1 are supported. Use a document in one of these versions."
        )


def _operations(
    document: Mapping[str, Any], resolver: Resolver
) -> Iterator[tuple[str, str, Any, dict[str, Any]]]:
    count = 0
    for path, item in resolver.object(document.get("paths")).items():
        shared = resolver.object(item)
        if not path.startswith("/"):
            continue
        for method in METHODS:
            if isinstance(shared.get(method), dict):
                count += 1
                if count > MAX_OPERATIONS:
                    raise DocumentError(
                        f"The document contains more than {MAX_OPERATIONS:,} operations. Use a"
                        " document with only the operations you need."
                    )
                yield path, method, shared, shared[method]


def _server(part: Mapping[str, Any]) -> str:
    """Return the first server's URL with default values for its variables."""
    servers = part.get("servers")
    first = (
        servers[0] if isinstance(servers, list) and servers and isinstance(servers[0], dict) else {}
    )
    variables = first.get("variables")
    known = variables if isinstance(variables, dict) else {}

    def default(match: re.Match[str]) -> str:
        variable = known.get(match[1])
        return str(variable.get("default", "")) if isinstance(variable, dict) else match[0]

    url = first.get("url")
    return _VARIABLE.sub(default, url)[:2_048].strip() if isinstance(url, str) else ""


class _Reader:
    """Reader of one operation."""

    def __init__(
        self,
        resolver: Resolver,
        path: str,
        method: str,
        shared: Mapping[str, Any],
        operation: Mapping[str, Any],
    ) -> None:
        self._resolver = resolver
        self._path = path
        self._method = method
        self._shared = shared
        self._operation = operation
        self._properties: dict[str, Any] = {}
        self._required: list[str] = []

    def read(self, server: str, taken: set[str]) -> Operation | None:
        parameters = tuple(self._parameters())
        media_type, body_required = self._body()
        if media_type is None:
            return None
        name = _unique(
            _tool_name(self._operation.get("operationId"), self._method, self._path), taken
        )
        summary = _text(self._operation.get("summary"), 300)
        wire = {
            "name": name,
            "description": self._description(summary),
            "inputSchema": {
                "type": "object",
                "properties": self._properties,
                "required": self._required,
            },
            "annotations": {
                "readOnlyHint": self._method in ("get", "head", "options", "trace"),
                "destructiveHint": self._method == "delete",
            },
        }
        return Operation(
            ToolDefinition(wire),
            self._method.upper(),
            self._path,
            server,
            parameters,
            media_type,
            body_required,
            summary,
        )

    def _description(self, summary: str) -> str:
        longer = _text(self._operation.get("description"), _MAX_DESCRIPTION)
        if summary and longer and summary != longer:
            return f"{summary}\n\n{longer}"
        return summary or longer or f"{self._method.upper()} {self._path}"

    def _parameters(self) -> Iterator[Parameter]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for source in (self._shared.get("parameters"), self._operation.get("parameters")):
            for entry in source if isinstance(source, list) else ():
                one = self._resolver.object(entry)
                name = one.get("name")
                place = one.get("in")
                if isinstance(name, str) and name and place in _PLACES:
                    found[(name, str(place))] = one
        for (name, place), one in found.items():
            if place == "header" and name.lower() in _NOT_PARAMETERS:
                continue
            argument = (
                name if name not in self._properties and name != "body" else f"{name}_{place}"
            )
            required = place == "path" or one.get("required") is True
            self._add(argument, self._parameter_schema(one), required)
            style = one.get("style") or ("form" if place in ("query", "cookie") else "simple")
            explode = one.get("explode")
            explodes = explode if isinstance(explode, bool) else style == "form"
            yield Parameter(argument, name, place, required, str(style), explodes)

    def _parameter_schema(self, one: Mapping[str, Any]) -> dict[str, Any]:
        schema = one.get("schema")
        if schema is None:
            content = self._resolver.object(one.get("content"))
            schema = self._resolver.object(next(iter(content.values()), None)).get("schema")
        written = self._resolver.schema(schema)
        described = _text(one.get("description"), _MAX_DESCRIPTION)
        return {**written, "description": described} if described else written

    def _body(self) -> tuple[str | None, bool]:
        """Return the media type of the body and whether it is required.

        The media type is "" without a body, and None if it is not supported.
        """
        body = self._resolver.object(self._operation.get("requestBody"))
        content = self._resolver.object(body.get("content"))
        if not content:
            return "", False
        types = {media_type.split(";")[0].strip().lower(): media_type for media_type in content}
        chosen = next((t for t in types if t == "application/json" or t.endswith("+json")), None)
        if chosen is None and "*/*" in types:
            chosen = "application/json"
        elif chosen is None and _FORM in types:
            chosen = _FORM
        required = body.get("required") is True
        if chosen is None:
            return ("", False) if not required else (None, False)
        entry = self._resolver.object(content.get(types.get(chosen, "*/*")))
        schema = self._resolver.schema(entry.get("schema"))
        described = _text(body.get("description"), _MAX_DESCRIPTION)
        self._add("body", {"description": described, **schema} if described else schema, required)
        return chosen, required

    def _add(self, argument: str, schema: dict[str, Any], required: bool) -> None:
        self._properties[argument] = schema
        if required:
            self._required.append(argument)


def _tool_name(operation_id: Any, method: str, path: str) -> str:
    given = operation_id if isinstance(operation_id, str) else ""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", given[:1_000]).strip("_")
    name = name or f"{method}_{re.sub(r'[^A-Za-z0-9]+', '_', path[:1_000]).strip('_')}".strip("_")
    return name[:MAX_TOOL_NAME]


def _unique(name: str, taken: set[str]) -> str:
    unique = name
    number = 1
    while unique in taken:
        number += 1
        unique = f"{name[: MAX_TOOL_NAME - 1 - len(str(number))]}_{number}"
    taken.add(unique)
    return unique


def _word(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value  # YAML reads 1.0 as a number


def _text(value: Any, most: int) -> str:
    return value.strip()[:most] if isinstance(value, str) else ""
