"""The OpenAPI document: it says what is there, all of it and nothing else, and the portal keeps to
it."""

import ast
import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from pydantic import TypeAdapter
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from portal.domain import errors
from portal.web import openapi
from portal.web.errors import status_of
from tests.support.documents import path_of, strict
from tests.support.factories import NOBODY_LISTENS
from tests.support.security.callers import World

PORTAL = Path(openapi.__file__).parents[1]
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
PARTS = 3
URLS = (
    "url",
    "spec_path",
    "authorization_url",
    "token_url",
    "registration_url",
    "token_exchange_endpoint",
)
_ENTRY = """{method} {rule} is not in the OpenAPI document.
Write under @bp.{verb}(...) of {view} in {module}:
    @documented(<what it answers>, takes=<its body>, query=(Query(...),), status=200,
                also=(404, ...), example={{...}})
with only what is not the default; portal/web/documented.py tells more."""


# These speak OAuth, by the documents of RFC 8414 and with the errors of RFC 6749.
OAUTH = {f"/v1/mcp/server/oauth/<server_id>/{what}" for what in ("authorize", "token", "register")}
OAUTH |= {"/v1/mcp/oauth/authorize", "/v1/mcp/oauth/token"}


# Words of RFC 6749 and 7591, and of the sign-in pages: no route of the document says them.
ELSEWHERE = {
    "declined",
    "incomplete",
    "sign_in_expired",
    "deactivated",
    "not_admitted",
    "not_linked",
    "token_validation_failed",
    "odd_email",
    "other_person",
    "invalid_client_metadata",
    "invalid_grant",
    "invalid_redirect_uri",
    "invalid_scope",
    "invalid_target",
    "unsupported_grant_type",
}


def test_every_route_of_the_api_has_an_entry(app: Flask) -> None:
    for method, rule, entry in openapi.operations(app):
        view = app.view_functions[rule.endpoint]
        told = _ENTRY.format(
            method=method,
            rule=rule.rule,
            verb=method.lower(),
            view=view.__name__,
            module=view.__module__,
        )
        assert entry is not None, told


def test_the_document_has_the_routes_of_the_api_and_no_other(app: Flask) -> None:
    document = openapi.document(app)
    said = {(method.upper(), path) for path, found in document["paths"].items() for method in found}
    there = {
        (method, path_of(rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(("/v1/", "/v0.1/")) and rule.rule not in OAUTH
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert said == there


def test_the_document_is_served_to_everybody_and_only_once(client: Any) -> None:
    answer = client(None).get("/v1/openapi.json")
    assert (answer.status_code, answer.json["openapi"]) == (200, "3.1.0")
    again = client(None).get("/v1/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_every_schema_is_json_schema_and_every_reference_leads_somewhere(app: Flask) -> None:
    document = openapi.document(app)
    for name, schema in document["components"]["schemas"].items():
        assert re.fullmatch(r"[A-Za-z]+", name), f"two shapes are called alike: {name}"
        jsonschema_rs.meta.validate(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        )
    for reference in _references(document):
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    used = {reference.rpartition("/")[2] for reference in _references(document)}
    assert set(document["components"]["schemas"]) <= used, "a component that nobody uses"


def test_every_operation_has_a_name_of_its_own_a_summary_and_examples_that_hold(app: Flask) -> None:
    names = set()
    for method, rule, entry in openapi.operations(app):
        assert entry is not None
        found = openapi.document(app)["paths"][path_of(rule.rule)][method.lower()]
        assert re.fullmatch(r"[a-z_]+_[a-z_]+", found["operationId"])
        assert found["operationId"] not in names
        names.add(found["operationId"])
        assert found["summary"]
        assert found["tags"]
        if entry.takes is not None:
            assert entry.example, f"{method} {rule.rule} takes a body: give an example of it"
            TypeAdapter(entry.takes).validate_python(entry.example)


def test_a_handler_reads_the_body_that_the_document_names(app: Flask) -> None:
    for method, rule, entry in openapi.operations(app):
        view = inspect.unwrap(app.view_functions[rule.endpoint])
        read = list(_shapes_read(view))
        named = getattr(entry.takes, "__name__", "dict") if entry and entry.takes else None
        assert read == ([named] if named else []), (
            f"{method} {rule.rule}: @documented(takes=...) is another than read"
        )


def test_a_handler_looks_at_the_query_that_the_document_names(app: Flask) -> None:
    for method, rule, entry in openapi.operations(app):
        assert entry is not None
        source = inspect.getsource(inspect.unwrap(app.view_functions[rule.endpoint]))
        looked = set(re.findall(r'request\.args\.get(?:list)?\("(\w+)"', source))
        looked |= {"limit"} if "limit_of(" in source else set()
        looked |= {"cursor"} if "cursor_of(" in source else set()
        looked |= {"limit", "cursor"} if "list_place(" in source else set()
        assert looked <= {query.name for query in entry.query}, (
            f"{method} {rule.rule}: name these as Query(...)"
        )


def test_the_words_of_errors_are_those_that_the_code_says() -> None:
    said: dict[int, set[str]] = {401: {"sign_in_needed"}}
    for kind in _kinds(errors.PortalError):
        said.setdefault(status_of(kind.__new__(kind)), set()).add(kind.code)
    for path in PORTAL.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and hasattr(errors, call.func.id)
            ):
                words = [word.value for word in call.keywords if word.arg == "code"]
                kind = getattr(errors, call.func.id)
                said.setdefault(status_of(kind.__new__(kind)), set()).update(
                    word.value
                    for word in words
                    if isinstance(word, ast.Constant) and isinstance(word.value, str)
                )
    for status, words in said.items():
        missing = words - ELSEWHERE - set(openapi.WORDS[status])
        assert not missing, f"write into WORDS of portal/web/openapi.py: {status} {missing}"


class Examples:
    """What schemathesis makes of each operation of the document. It is made once for both
    databases: that takes as long as sending it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        schema = schemathesis.openapi.from_dict(deepcopy(strict(document)))  # it writes into it
        self._operations = [found.ok() for found in schema.get_all_operations()]
        self._made: dict[tuple[str, GenerationMode, bool], list[Any]] = {}

    def part(self, number: int) -> list[Any]:
        """The operations of one test."""
        return self._operations[number::PARTS]

    def of(self, operation: Any, mode: GenerationMode, there: dict[str, str]) -> list[Any]:
        """Right or wrong input for an operation, about things that are there if any are named."""
        key = (operation.label, mode, bool(there))
        if key not in self._made:
            named = {"path_parameters": there} if there else {}
            self._made[key] = _drawn(operation.as_strategy(mode, **named))
        for case in self._made[key]:
            if there and case.path_parameters != there:
                case.path_parameters = dict(there)
        return self._made[key]


@pytest.fixture(scope="module")
def examples() -> list[Examples]:
    """The examples of this module, once a test has made them."""
    return []


@pytest.mark.parametrize("part", range(PARTS))
def test_the_portal_keeps_to_the_document(
    world: World, part: int, examples: list[Examples]
) -> None:
    """What schemathesis makes of the document is never answered with a 5xx, nor with what the
    document does not say.

    Every operation is tried with right and wrong input, about things that are there and about some
    that are not, as nobody, as a Member and as an Admin.
    """
    document = openapi.document(world.app)
    if not examples:
        examples.append(Examples(document))
    made = examples[0]
    assert made.document == document, "the document is the same on every database"
    faults: dict[str, str] = {}
    for operation in made.part(part):
        there = {name: world.ids[name] for name in re.findall(r"\{(\w+)\}", operation.path)}
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            for ids in ({}, there) if there else ({},):
                try:
                    for case in made.of(operation, mode, ids):
                        _send(world, case)
                except Exception as fault:  # noqa: BLE001 - all are collected, to be read at once
                    faults[f"{operation.label} {mode.value}"] = str(fault)[:3_000]
        world.put_back()
    assert not faults, "\n\n".join(f"{label}: {fault}" for label, fault in faults.items())


def _drawn(cases: Any) -> list[Any]:
    drawn: list[Any] = []

    @given(case=cases)
    @settings(
        max_examples=4,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def draw(case: Any) -> None:
        drawn.append(case)

    with suppress(Unsatisfiable):  # there is no wrong input where there is no input
        draw()
    return drawn


def _send(world: World, case: Any) -> None:
    if isinstance(case.body, dict):
        for field in set(URLS) & set(case.body):
            if isinstance(case.body[field], str) and case.body[field]:
                case.body[field] = NOBODY_LISTENS  # nothing of this reaches another machine
    for name in ("nobody", "k-member", "k-admin"):
        answer = case.call(headers=world.callers[name].headers, app=world.app)
        assert answer.status_code not in (
            500,
            503,
        ), case.as_curl_command()  # 502 and 504 are an upstream's
        case.validate_response(answer, checks=CHECKS)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _kinds(root: type[errors.PortalError]) -> Iterator[type[errors.PortalError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _kinds(kind)


def _shapes_read(view: Any) -> Iterator[str]:
    for call in ast.walk(ast.parse(inspect.getsource(view))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            if call.func.id in ("read", "read_if"):
                shape = call.args[-1]
                assert isinstance(shape, ast.Name)
                yield shape.id
            elif call.func.id == "read_object":
                yield "dict"
