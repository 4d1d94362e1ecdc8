"""Resolution of local `$ref` (RFC 6901 pointers), and schemas with resolved references."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from portal.domain.openapi.limits import (
    MAX_ALL_SCHEMA_NODES,
    MAX_REFERENCES,
    MAX_SCHEMA_DEPTH,
    MAX_SCHEMA_NODES,
    DocumentError,
)

_CHAIN = 20
_LONGEST_NAME = 200
_LONGEST_TEXT = 1_000
_MOST_ITEMS = 300
# The keywords that a caller needs. Examples, XML and vendor extensions would only cost tokens.
_KEPT = frozenset(
    "type format title description default enum const minimum maximum exclusiveMinimum"
    " exclusiveMaximum multipleOf minLength maxLength pattern minItems maxItems uniqueItems"
    " minProperties maxProperties required readOnly writeOnly deprecated".split()
)
_MAPS = ("properties", "patternProperties")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_PARTS = ("items", "additionalProperties", "not", "propertyNames", "contains")


class Resolver:
    """Resolve up to 20,000 local references. Raises `DocumentError` for other references."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._followed = 0
        self._schema_nodes = MAX_ALL_SCHEMA_NODES

    def object(self, value: Any) -> dict[str, Any]:
        """Return `value` with its `$ref` resolved, or an empty dict if it is not an object."""
        for _ in range(_CHAIN):
            if not isinstance(value, dict):
                return {}
            pointer = value.get("$ref")
            if not isinstance(pointer, str):
                return value
            value = self._at(pointer)
        raise DocumentError("The document contains circular references.")

    def schema(self, value: Any) -> dict[str, Any]:
        """Return a JSON Schema without references.

        Recursive and too deeply nested parts accept any value.
        """
        budget = min(MAX_SCHEMA_NODES, self._schema_nodes)
        writer = _SchemaWriter(self, budget)
        written = writer.of(value, 0, ())
        self._schema_nodes -= budget - max(0, writer.left)
        return written

    def follow(self, pointer: str) -> Any:
        """Return the target of a reference, which may itself be a reference."""
        return self._at(pointer)

    def _at(self, pointer: str) -> Any:
        self._followed += 1
        if self._followed > MAX_REFERENCES:
            raise DocumentError(f"The document contains more than {MAX_REFERENCES:,} references.")
        if not pointer.startswith("#"):
            raise DocumentError(
                "The document refers to another document, which is not supported. Use a document"
                " without external references."
            )
        found: Any = self._document
        for part in pointer[1:].split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif (
                isinstance(found, list)
                and name.isascii()
                and name.isdigit()
                and int(name[:9]) < len(found)
            ):
                found = found[int(name[:9])]
            else:
                raise DocumentError("The document contains a reference without a target.")
        return found


class _SchemaWriter:
    def __init__(self, resolver: Resolver, budget: int) -> None:
        self._resolver = resolver
        self.left = budget

    def of(self, value: Any, depth: int, above: tuple[str, ...]) -> dict[str, Any]:
        self.left -= 1
        if not isinstance(value, dict) or self.left < 0 or depth > MAX_SCHEMA_DEPTH:
            return {}
        pointer = value.get("$ref")
        if isinstance(pointer, str):
            if pointer in above or len(above) > _CHAIN:
                return {"description": "Recursive: same schema as above."}
            target = self._resolver.follow(pointer)
            beside = (
                {"description": value["description"]}
                if isinstance(value.get("description"), str)
                else {}
            )
            return {**self.of(target, depth, (*above, pointer)), **beside}
        return self._written(value, depth, above)

    def _written(self, value: dict[str, Any], depth: int, above: tuple[str, ...]) -> dict[str, Any]:
        written = {
            name: part for name, part in value.items() if name in _KEPT and self._fits(name, part)
        }
        for name in _MAPS:
            if isinstance(value.get(name), dict):
                written[name] = {
                    key: self.of(part, depth + 1, above)
                    for key, part in self._affordable(value[name])
                }
        for name in _LISTS:
            if isinstance(value.get(name), list):
                written[name] = [
                    self.of(part, depth + 1, above) for part in value[name][: max(0, self.left)]
                ]
        for name in _PARTS:
            if isinstance(value.get(name), bool):
                written[name] = value[name]
            elif isinstance(value.get(name), dict):
                written[name] = self.of(value[name], depth + 1, above)
        # OpenAPI 3.0 has `nullable` instead of the type "null".
        if value.get("nullable") is True and isinstance(written.get("type"), str):
            written["type"] = [written["type"], "null"]
        if "required" in written and isinstance(written.get("properties"), dict):
            written["required"] = [
                name for name in written["required"] if name in written["properties"]
            ]
        return written

    def _affordable(self, parts: dict[str, Any]) -> list[tuple[str, Any]]:
        return [(name, part) for name, part in parts.items() if len(name) <= _LONGEST_NAME][
            : max(0, self.left)
        ]

    def _fits(self, name: str, part: Any) -> bool:
        """Return whether a keyword's value has the right type and is small.

        References may repeat it many times.
        """
        if name in ("title", "description", "format", "pattern"):
            return isinstance(part, str) and len(part) <= _LONGEST_TEXT
        if name in ("required", "enum", "type") and isinstance(part, list):
            self.left -= len(part) // 4
            of_kind = name == "enum" or all(isinstance(item, str) for item in part)
            return len(part) <= _MOST_ITEMS and of_kind and all(_small(item) for item in part)
        if name in ("required", "enum"):
            return False
        # These are booleans in OpenAPI 3.0 and numbers in JSON Schema.
        if name in ("exclusiveMinimum", "exclusiveMaximum"):
            return not isinstance(part, bool) and _small(part)
        return _small(part)


def _small(value: Any) -> bool:
    return not isinstance(value, dict | list) and (
        not isinstance(value, str) or len(value) <= _LONGEST_NAME
    )
