"""Forms built from a tool's JSON Schema, and tool arguments built from their input."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

_KINDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}
_NAMES = {"integer": "a whole number", "number": "a number", "boolean": "yes or no", "json": "JSON"}
_SHAPES = {"object": (dict, "a JSON object"), "array": (list, "a JSON list")}


@dataclass(frozen=True)
class ToolField:
    """A form field for one argument."""

    name: str
    label: str
    kind: str
    required: bool
    description: str
    default: Any = None
    choices: tuple[tuple[str, str], ...] = ()
    value: str | None = None
    error: str | None = None
    shape: str = ""
    within: str = ""
    """The enclosing argument, if the tool takes all of its arguments in a single object."""


def tool_fields(
    schema: Mapping[str, Any], typed: Mapping[str, str] | None = None
) -> list[ToolField]:
    """Return the form fields for the input schema of a tool, with the previous input."""
    inner, within = _unwrapped(schema)
    required = inner.get("required") or ()
    return [
        replace(_field(str(name), _resolved(part, schema), name in required, typed), within=within)
        for name, part in _properties(inner).items()
    ]


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _unwrapped(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return the schema of the only argument `params` and its name, or the schema itself."""
    if list(_properties(schema)) == ["params"]:
        inner = _without_null(_resolved(_properties(schema)["params"], schema))
        if _properties(inner):
            return inner, "params"
    return schema, ""


def _resolved(part: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `part` with its `$ref` to the schema's `$defs` resolved once, to avoid cycles."""
    if not isinstance(part, dict):
        return {}
    name = str(part.get("$ref", "")).removeprefix("#/$defs/")
    definitions = schema.get("$defs")
    found = definitions.get(name) if name and isinstance(definitions, dict) else None
    return {**found, **part} if isinstance(found, dict) else part


def arguments(fields: list[ToolField]) -> tuple[dict[str, Any], list[ToolField]]:
    """Return the input as arguments without empty optional ones, and the fields with errors."""
    values: dict[str, Any] = {}
    checked = []
    for field in fields:
        text = (field.value or "").strip()
        error = None
        if not text:
            error = f"Enter {field.label}." if field.required and field.shape != "string" else None
            if field.required and not error:
                values[field.name] = ""
        else:
            try:
                values[field.name] = _parsed(field, field.value or "")
            except (ValueError, KeyError, RecursionError):
                _, wanted = _SHAPES.get(field.shape, (dict, _NAMES.get(field.kind)))
                error = f"{field.label} must be {wanted or 'a valid value'}."
        checked.append(replace(field, error=error))
    within = fields[0].within if fields else ""
    return {within: values} if within else values, checked


def _field(
    name: str, schema: dict[str, Any], required: bool, typed: Mapping[str, str] | None
) -> ToolField:
    inner = _without_null(schema)
    shape = inner.get("type") if isinstance(inner.get("type"), str) else ""
    options = inner.get("enum") if isinstance(inner.get("enum"), list) else None
    default = schema.get("default")
    kind = _KINDS.get(str(shape), "json")
    if kind == "json" and default is not None:
        default = json.dumps(default)
    return ToolField(
        name=name,
        label=name,
        kind="choice" if options else kind,
        required=required and default is None,
        description=str(schema.get("description") or inner.get("description") or ""),
        default=default,
        choices=tuple(
            (json.dumps(o) if not isinstance(o, str) else o, str(o)) for o in options or ()
        ),
        value=typed.get(f"argument-{name}") if typed is not None else None,
        shape=str(shape),
    )


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema X of `anyOf: [X, null]` or `type: [X, "null"]`."""
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        if isinstance(options, list):
            real = [o for o in options if isinstance(o, dict) and o.get("type") != "null"]
            if len(real) == 1:
                return real[0]
    kinds = schema.get("type")
    if isinstance(kinds, list):
        real_kinds = [k for k in kinds if k != "null"]
        return {**schema, "type": real_kinds[0]} if len(real_kinds) == 1 else schema
    return schema


def _parsed(field: ToolField, text: str) -> Any:
    if field.kind == "text":
        return text
    if field.kind == "choice":
        return text if field.shape in ("string", "") else json.loads(text)
    if field.kind == "boolean":
        return {"true": True, "false": False}[text.strip().lower()]
    if field.kind in ("integer", "number"):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError
        return int(number) if field.kind == "integer" else number
    parsed = json.loads(text)
    if field.shape in _SHAPES and not isinstance(parsed, _SHAPES[field.shape][0]):
        raise ValueError
    return parsed
