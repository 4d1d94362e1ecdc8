"""OpenAPI documents as tools: names, arguments, references, limits; nothing but DocumentError comes
out (R-SPEC)."""

import contextlib
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.domain.openapi.document import Document, absolute_server, read_document
from portal.domain.openapi.limits import MAX_OPERATIONS, DocumentError
from portal.domain.openapi.requests import ArgumentError, build_request
from portal.domain.servers import AuthType, OAuthGrantType, origin_of
from tests.support.described import document

BASE = "https://api.example.com/v1"


def of_paths(paths: Any, **more: Any) -> Document:
    return read_document({"openapi": "3.0.3", "info": {}, "paths": paths, **more})


def of_operation(operation: Any, path: str = "/a", **more: Any) -> Document:
    return of_paths({path: {"get": operation}}, **more)


def test_names_are_cleaned_unique_and_short() -> None:
    names = ["list pets", "list/pets", "x" * 100, "x" * 80, "ünïcode", "", None, 7]
    found = of_paths(
        {f"/p{n}": {"get": {"operationId": name}} for n, name in enumerate(names)}
    ).tools
    assert [tool.name for tool in found] == [
        "list_pets",
        "list_pets_2",
        "x" * 64,
        "x" * 62 + "_2",
        "n_code",
        "get_p5",
        "get_p6",
        "get_p7",
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.name) for tool in found)


def test_parameters_of_one_name_are_told_apart() -> None:
    names = [("id", "path"), ("id", "query"), ("body", "query")]
    parameters = [
        {"name": name, "in": place, "schema": {"type": "string"}} for name, place in names
    ]
    found = of_operation({"parameters": parameters}, "/a/{id}").operations[0]
    assert set(found.tool.input_schema["properties"]) == {"id", "id_query", "body_query"}
    request = build_request(found, BASE, {"id": "x", "id_query": "y", "body_query": "z"})
    assert request.url == f"{BASE}/a/x?id=y&body=z"


@pytest.mark.parametrize(
    ("style", "explode", "value", "query"),
    [
        (None, None, ["a", "b"], "p=a&p=b"),
        ("form", False, ["a", "b"], "p=a%2Cb"),
        ("pipeDelimited", False, ["a", "b"], "p=a%7Cb"),
        ("deepObject", True, {"a": 1, "b": True}, "p%5Ba%5D=1&p%5Bb%5D=true"),
        (None, None, {"a": "x y"}, "a=x%20y"),
        (None, None, "a&b=c#d", "p=a%26b%3Dc%23d"),
    ],
)
def test_query_arguments_by_their_style(style: Any, explode: Any, value: Any, query: str) -> None:
    how = {key: part for key, part in (("style", style), ("explode", explode)) if part is not None}
    found = of_operation(
        {"parameters": [{"name": "p", "in": "query", "schema": {}, **how}]}
    ).operations[0]
    assert build_request(found, BASE, {"p": value}).url == f"{BASE}/a?{query}"


def test_forms_are_written_as_forms() -> None:
    content = {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}
    found = of_operation({"requestBody": {"content": content}}).operations[0]
    request = build_request(found, BASE, {"body": {"a": {"b": [1, 2]}, "c": "x y", "d": None}})
    assert request.body == b"a%5Bb%5D=1&a%5Bb%5D=2&c=x+y"


def test_operations_with_other_bodies_are_counted_and_left_out() -> None:
    body = {"required": True, "content": {"multipart/form-data": {}}}
    found = of_paths({"/a": {"post": {"requestBody": body}, "get": {}}})
    assert ([tool.name for tool in found.tools], found.left_out) == (["get_a"], 1)


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_a_path_argument_stays_one_segment_of_its_origin(text: str) -> None:
    found = read_document(document()).operation("getPet")
    assert found
    try:
        request = build_request(found, BASE, {"id": text})
    except ArgumentError:
        assert text in ("", ".", "..") or any("\ud800" <= letter <= "\udfff" for letter in text)
        return
    assert origin_of(request.url) == "https://api.example.com"
    assert request.url.startswith(f"{BASE}/pets/")
    assert not set(request.url.removeprefix(f"{BASE}/pets/")) & set("/?#\\")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ([], "no field “openapi”"),
        ({}, "no field “openapi”"),
        ({"swagger": "2.0"}, "Swagger 2 document. Convert it"),
        ({"openapi": "4.0.0"}, "Only OpenAPI 3.0 and 3.1"),
        ({"openapi": "3.1.0", "paths": {}}, "no operation"),
        (
            document(paths={"/a": {"get": {"parameters": [{"$ref": "other.yaml#/x"}]}}}),
            "refers to another document",
        ),
        (
            document(paths={"/a": {"get": {"parameters": [{"$ref": "https://e.example/x"}]}}}),
            "to another document",
        ),
        (
            document(paths={"/a": {"get": {"parameters": [{"$ref": "#/nowhere"}]}}}),
            "reference without a target",
        ),
        (document(paths={"/a": {"$ref": "#/paths/~1a"}}), "circular references"),
        (
            document(paths={f"/{n}": {"get": {}} for n in range(MAX_OPERATIONS + 1)}),
            "more than 1,000 operations",
        ),
    ],
)
def test_what_cannot_be_used_is_told(broken: Any, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_document(broken)
    assert words in caught.value.message


def test_bombs_go_off_in_a_small_room() -> None:
    deep: Any = {}
    for _ in range(500):
        deep = {"x": deep}
    laughs: Any = ["ha"] * 10
    for _ in range(30):
        laughs = [laughs] * 10
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    for bomb in (deep, laughs, cyclic, [0] * 500_000):
        began = time.thread_time()
        with pytest.raises(DocumentError):
            read_document(document(bomb=bomb))
        assert time.thread_time() - began < 3


def test_references_that_multiply_stay_small() -> None:
    """Each schema holds the next ten times: 10^20 parts when written out."""
    schemas = {
        f"s{n}": {
            "properties": {f"p{m}": {"$ref": f"#/components/schemas/s{n + 1}"} for m in range(10)}
        }
        for n in range(20)
    }
    schemas["s20"] = {"type": "string", "default": "x" * 60_000, "enum": ["y" * 60_000]}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/s0"}}}}
    began = time.thread_time()
    found = of_paths(
        {f"/{n}": {"post": {"requestBody": body}} for n in range(200)},
        components={"schemas": schemas},
    )
    assert len(json.dumps(found.tools[0].wire)) < 100_000
    assert sum(len(json.dumps(tool.wire)) for tool in found.tools) < 8_000_000
    assert time.thread_time() - began < 3


def test_a_schema_that_holds_itself_ends() -> None:
    found = read_document(document()).operation("addPet")
    assert found
    assert found.tool.input_schema["properties"]["body"]["properties"]["parent"] == {
        "description": "Recursive: same schema as above."
    }


def test_what_openapi_3_0_says_otherwise_becomes_json_schema() -> None:
    schema = {
        "type": "integer",
        "nullable": True,
        "minimum": 1,
        "exclusiveMinimum": True,
        "example": 5,
        "x-y": 1,
    }
    found = of_operation({"parameters": [{"name": "n", "in": "query", "schema": schema}]}).tools[0]
    assert found.input_schema["properties"]["n"] == {"type": ["integer", "null"], "minimum": 1}


@pytest.mark.parametrize(
    ("schemes", "expected"),
    [
        ({}, (AuthType.NONE, "")),
        ({"a": {"type": "http", "scheme": "Bearer"}}, (AuthType.BEARER_TOKEN, "")),
        ({"a": {"type": "http", "scheme": "basic"}}, (AuthType.BASIC, "")),
        ({"a": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}, (AuthType.API_KEY, "")),
        ({"a": {"type": "apiKey", "in": "header", "name": "X-Shop"}}, (AuthType.NONE, "X-Shop")),
        ({"a": {"type": "apiKey", "in": "header", "name": "Host"}}, (AuthType.NONE, "")),
        ({"a": {"type": "apiKey", "in": "query", "name": "key"}}, (AuthType.NONE, "")),
        ({"a": {"$ref": "#/x"}}, (AuthType.BASIC, "")),
        ({"a": 1, "b": {"type": "http", "scheme": 7}}, (AuthType.NONE, "")),
    ],
)
def test_the_sign_in_is_a_suggestion(schemes: Any, expected: Any) -> None:
    found = read_document(
        document(
            components={"securitySchemes": schemes},
            x={"type": "http", "scheme": "basic"},
            paths={"/a": {"get": {}}},
        )
    ).sign_in
    assert (found.auth_type, found.header) == expected


def test_oauth_details_are_read_and_only_real_addresses() -> None:
    flow = {
        "authorizationUrl": "https://a.example/auth",
        "tokenUrl": "javascript:x",
        "scopes": {"read": "", "write": ""},
    }
    schemes = {
        "b": {"type": "http", "scheme": "basic"},
        "o": {"type": "oauth2", "flows": {"authorizationCode": flow}},
    }
    found = read_document(
        document(components={"securitySchemes": schemes}, paths={"/a": {"get": {}}})
    ).sign_in
    assert (found.auth_type, found.flow) == (AuthType.OAUTH2, OAuthGrantType.AUTHORIZATION_CODE)
    assert (found.authorization_url, found.token_url, found.scopes) == (
        "https://a.example/auth",
        "",
        ("read", "write"),
    )


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("", "https://h.example/"),
        ("/api", "https://h.example/api"),
        ("https://other.example/x", "https://other.example/x"),
        ("ftp://h.example/", None),
        ("https://user:pw@h.example/", None),
        ("http://[", None),
        ("javascript:alert(1)", None),
    ],
)
def test_servers_are_resolved_against_the_document(server: str, expected: str | None) -> None:
    assert absolute_server(server, "https://h.example/docs/openapi.json") == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=15,
)
WORDS = st.sampled_from(
    "$ref schema parameters name in get post requestBody content application/json type properties"
    " items enum servers url variables required explode style operationId summary allOf"
    " securitySchemes flows scopes nullable".split()
)
VALUES = st.sampled_from(
    [
        "#/paths",
        "#/components/x",
        "#",
        "#/paths/~1a",
        "path",
        "query",
        "object",
        "{a}",
        True,
        0,
        [],
        {},
        "oauth2",
        "http",
    ]
)
SHAPED = st.recursive(
    VALUES | JSON,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)


@given(SHAPED, SHAPED, SHAPED, SHAPED)
@settings(max_examples=150)
def test_no_document_breaks_the_reader(
    item: Any, operation: Any, components: Any, servers: Any
) -> None:
    paths = {"/a/{a}": {"get": operation, "post": operation, "parameters": item}, "/b": item}
    try:
        found = read_document(
            {
                "openapi": "3.1.0",
                "info": item,
                "paths": paths,
                "components": components,
                "servers": servers,
            }
        )
    except DocumentError:
        return
    for one in found.operations:
        json.dumps(one.tool.wire, allow_nan=False)
        with contextlib.suppress(ArgumentError):
            build_request(one, BASE, {parameter.argument: "x" for parameter in one.parameters})


@given(JSON)
@settings(max_examples=200)
def test_no_value_breaks_the_reader(value: Any) -> None:
    with pytest.raises(DocumentError):
        read_document(value)
