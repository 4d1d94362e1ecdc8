"""The OpenAPI document as data for the API documentation pages."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SCHEMAS = "#/components/schemas/"
_KEY = "Authorization: Bearer $PORTAL_KEY"
_LIMITS = {
    "maxLength": "at most {} characters",
    "maxItems": "at most {} entries",
    "maxProperties": "at most {} entries",
    "minimum": "from {}",
    "maximum": "to {}",
}


@dataclass(frozen=True)
class Row:
    """A field or parameter, with its type in words and the shape it refers to, if any."""

    name: str
    kind: str
    shape: str = ""
    required: bool = False
    about: str = ""


@dataclass(frozen=True)
class Shape:
    """A component with its fields, or its type if it has none. `sent` is true for requests."""

    name: str
    about: str
    rows: tuple[Row, ...]
    kind: str
    sent: bool

    @property
    def explains(self) -> bool:
        """Return whether any of its fields has a description."""
        return any(row.about for row in self.rows)


@dataclass(frozen=True)
class Answer:
    """A response of an operation. The `detail.error` of an error is one of `words`."""

    status: str
    about: str
    body: Row | None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one path. `open` means no credentials are needed; `example` is a JSON body."""

    operation_id: str
    tag: str
    method: str
    path: str
    summary: str
    description: str
    open: bool
    parameters: tuple[tuple[str, Row], ...]
    body: Row | None
    example: str
    answers: tuple[Answer, ...]
    errors: tuple[Answer, ...]
    shapes: tuple[Shape, ...]
    curl: str

    def matches(self, text: str) -> bool:
        """Return whether its list entry contains every word of `text`."""
        whole = (
            f"{self.method} {self.path} {self.summary} {self.operation_id} {self.tag}".casefold()
        )
        return all(word in whole for word in text.casefold().split())


def read_operations(document: Mapping[str, Any]) -> dict[str, Operation]:
    """Return the operations of a document by ID, in the order of its tags."""
    found = [
        _operation(document, path, method, entry)
        for path, methods in document["paths"].items()
        for method, entry in methods.items()
    ]
    order = [tag["name"] for tag in document["tags"]]
    return {
        operation.operation_id: operation
        for operation in sorted(found, key=lambda each: order.index(each.tag))
    }


def _operation(
    document: Mapping[str, Any], path: str, method: str, entry: Mapping[str, Any]
) -> Operation:
    content = entry.get("requestBody", {}).get("content", {}).get("application/json")
    required = entry.get("requestBody", {}).get("required", False)
    body = _row("body", content["schema"], required=required) if content else None
    example = json.dumps(content["example"], indent=2, ensure_ascii=False) if content else ""
    answers = tuple(_answer(document, status, said) for status, said in entry["responses"].items())
    parameters = tuple(
        (
            said["in"],
            _row(
                said["name"],
                said["schema"],
                required=said.get("required", False),
                about=said["description"],
            ),
        )
        for said in entry.get("parameters", ())
    )
    sent = {
        shape.name: shape
        for shape in _shapes(document, [*(row for _, row in parameters), body], sent=True)
    }
    shapes = {
        shape.name: shape for shape in _shapes(document, [answers[0].body], sent=False)
    } | sent
    return Operation(
        operation_id=entry["operationId"],
        tag=entry["tags"][0],
        method=method.upper(),
        path=path,
        summary=_plain(entry["summary"]),
        description=_plain(entry.get("description", "")),
        open=not entry["security"],
        parameters=parameters,
        body=body,
        example=example,
        answers=tuple(answer for answer in answers if not answer.words),
        errors=tuple(answer for answer in answers if answer.words),
        shapes=(*sent.values(), *(shape for shape in shapes.values() if not shape.sent)),
        curl=_curl(document["servers"][0]["url"], method.upper(), path, entry, example),
    )


def _answer(document: Mapping[str, Any], status: str, said: Mapping[str, Any]) -> Answer:
    reference = said.get("$ref")
    if reference:
        said = document["components"]["responses"][reference.rpartition("/")[2]]
        detail = said["content"]["application/json"]["schema"]["allOf"][1]["properties"]["detail"]
        return Answer(
            status,
            said["description"].partition(":")[0],
            None,
            tuple(detail["properties"]["error"]["enum"]),
        )
    content = said.get("content", {}).get("application/json")
    return Answer(
        status, said["description"], _row("answer", content["schema"]) if content else None
    )


def _shapes(
    document: Mapping[str, Any], firsts: Sequence[Row | None], *, sent: bool
) -> Iterator[Shape]:
    """Yield the shapes that parameters and bodies refer to, directly or indirectly."""
    schemas = document["components"]["schemas"]
    waiting = [row.shape for row in firsts if row and row.shape]
    seen = set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        required = schemas[name].get("required", ())
        rows = tuple(
            _row(field, schema, required=field in required, about=schema.get("description", ""))
            for field, schema in schemas[name].get("properties", {}).items()
        )
        waiting.extend(row.shape for row in rows if row.shape)
        yield Shape(
            name, _plain(schemas[name].get("description", "")), rows, _kind(schemas[name]), sent
        )


def _row(name: str, schema: Mapping[str, Any], *, required: bool = False, about: str = "") -> Row:
    found = re.search(rf"{_SCHEMAS}(\w+)", json.dumps(schema))
    return Row(name, _kind(schema), found[1] if found else "", required, _plain(about))


def _plain(text: str) -> str:
    """Return text without backticks and line breaks."""
    return " ".join(text.replace("`", "").split())


def _kind(schema: Mapping[str, Any]) -> str:
    """Describe a schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_SCHEMAS)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"]))
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(str(each) or "(empty)" for each in schema["enum"])
    kind = str(schema.get("type", "any JSON value"))
    if kind == "array":
        kind = f"list of {_kind(schema.get('items', {}))}"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        kind = f"object of {_kind(schema['additionalProperties'])}"
    elif schema.get("format") == "date-time":
        kind = "time (ISO 8601)"
    limits = [said.format(schema[name]) for name, said in _LIMITS.items() if name in schema]
    return f"{kind} ({', '.join(limits)})" if limits else kind


def _curl(base: str, method: str, path: str, entry: Mapping[str, Any], example: str) -> str:
    for each in entry.get("parameters", ()):
        path = path.replace(f"{{{each['name']}}}", each.get("example", each["name"].upper()))
    start = "curl" if method == "GET" else f"curl -X {method}"
    lines = [f"{start} {shlex.quote(base + path)}"]
    if entry["security"]:
        lines.append(f'  -H "{_KEY}"')
    if example:
        lines += [
            "  -H 'Content-Type: application/json'",
            f"  -d {shlex.quote(json.dumps(json.loads(example)))}",
        ]
    return " \\\n".join(lines)
