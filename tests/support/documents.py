"""Holds what the API answers, in every test that asks it, to the OpenAPI document."""

import re
from typing import Any, ClassVar

import jsonschema_rs
from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from portal.web import openapi

_BODIES = ("Body", "Change")


def strict(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its answers closed: a field that it does not name is a fault."""
    parts = document["components"]
    schemas = {
        name: schema if name.endswith(_BODIES) else _closed(schema)
        for name, schema in parts["schemas"].items()
    }
    return {**document, "components": {**parts, "schemas": schemas}}


def _closed(value: Any) -> Any:
    if isinstance(value, list):
        return [_closed(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _closed(item) for key, item in value.items()}
    if (
        found.get("type") == "object"
        and "properties" in found
        and "additionalProperties" not in found
    ):
        found["additionalProperties"] = False
    return found


def path_of(rule: str) -> str:
    """A rule of the application as the document writes it."""
    return re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule)


def check(app: Flask, response: TestResponse) -> None:
    """Raise `AssertionError` where the document does not say this status or this body of this
    route."""
    request = response.request
    if not request.path.startswith(("/v1/", "/v0.1/")):
        return
    adapter = app.url_map.bind("127.0.0.1")
    try:
        rule, _ = adapter.match(request.path, request.method, return_rule=True)
    except HTTPException:
        return  # no route of ours
    if request.method not in openapi.METHODS or not openapi.is_ours(app, rule):
        return
    document = _Strict.of(app)
    operation = document.whole["paths"][path_of(rule.rule)][request.method.lower()]
    said = operation["responses"].get(str(response.status_code))
    assert said is not None, (
        f"{request.method} {rule.rule} answered {response.status_code}: name it in also=(...)"
    )
    reference = said.get("$ref")
    if reference:
        said = document.whole["components"]["responses"][reference.rpartition("/")[2]]
    schema = said.get("content", {}).get("application/json", {}).get("schema")
    if schema is None:
        assert response.data == b"", (
            f"{request.method} {rule.rule} has a body, and its entry names no answer"
        )
    else:
        document.validator(schema).validate(response.get_json())


class _Strict:
    """The strict document of all applications with the same routes, and what validates by its
    schemas."""

    _known: ClassVar[dict[frozenset[Any], "_Strict"]] = {}

    def __init__(self, app: Flask) -> None:
        self.whole = strict(openapi.document(app))
        self._validators: dict[int, Any] = {}

    @classmethod
    def of(cls, app: Flask) -> "_Strict":
        """Make it for the first of these applications: that takes longer than most tests."""
        found: _Strict | None = app.extensions.get("strict_openapi")
        if found is None:
            views = app.view_functions
            routes = frozenset(
                (method, rule.rule, views[rule.endpoint])
                for method, rule, _ in openapi.operations(app)
            )
            if routes not in cls._known:
                cls._known[routes] = cls(app)
            found = app.extensions["strict_openapi"] = cls._known[routes]
        return found

    def validator(self, schema: dict[str, Any]) -> Any:
        """What validates by a schema of this document."""
        if id(schema) not in self._validators:
            whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
            self._validators[id(schema)] = jsonschema_rs.validator_for(
                {**whole, "components": self.whole["components"]}
            )
        return self._validators[id(schema)]
