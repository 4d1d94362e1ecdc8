"""Forms out of tool schemas, by the numbers of the behaviours, and what the playground passes
on."""

from collections.abc import Callable
from typing import Any

import pytest

from portal.web.tool_forms import arguments, tool_fields
from tests.conftest import Client, Write
from tests.support.browsing import text_of
from tests.support.factories import make_server
from tests.support.html import filled, parse

SignedIn = Callable[[str], Client]
KINDS = {
    "type": "object",
    "required": ["text", "whole"],
    "properties": {
        "text": {"type": "string", "description": "Some words"},
        "whole": {"type": "integer"},
        "part": {"type": "number", "default": 1.5},
        "flag": {"type": "boolean"},
        "one_of": {"enum": ["a", "b"]},
        "list": {"type": "array", "default": [1]},
        "object": {"type": "object"},
        "maybe": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "perhaps": {"type": ["integer", "null"]},
    },
}


def sent(schema: dict[str, Any], **typed: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments made of what was typed, and the errors by field."""
    values, fields = arguments(
        tool_fields(schema, {f"argument-{name}": text for name, text in typed.items()})
    )
    return values, {field.name: field.error for field in fields if field.error}


def test_ui_64_widgets_follow_the_schema() -> None:
    kinds = {field.name: field.kind for field in tool_fields(KINDS)}
    assert kinds == {
        "text": "text",
        "whole": "integer",
        "part": "number",
        "flag": "boolean",
        "one_of": "choice",
        "list": "json",
        "object": "json",
        "maybe": "number",
        "perhaps": "integer",
    }
    defaults = {field.name: field.default for field in tool_fields(KINDS)}
    assert (defaults["part"], defaults["list"], defaults["text"]) == (1.5, "[1]", None)


def test_ui_64_what_was_typed_becomes_arguments_and_empty_optional_ones_are_left_out() -> None:
    typed = {
        "text": "x",
        "whole": "2.9",
        "part": "",
        "flag": "true",
        "one_of": "b",
        "list": "[2]",
        "object": '{"a": 1}',
    }
    assert sent(KINDS, **typed) == (
        {"text": "x", "whole": 2, "flag": True, "one_of": "b", "list": [2], "object": {"a": 1}},
        {},
    )


@pytest.mark.parametrize(
    ("field", "typed", "words"),
    [
        ("object", "[1]", "JSON object"),
        ("object", "{", "JSON object"),
        ("object", "null", "JSON object"),
        ("list", '{"a": 1}', "JSON list"),
        ("list", "[" * 9000, "JSON list"),
        ("whole", "two", "whole number"),
        ("part", "nan", "number"),
        ("flag", "maybe", "yes or no"),
        ("whole", "", "Enter whole"),
    ],
)
def test_ui_64_what_does_not_fit_is_refused(field: str, typed: str, words: str) -> None:
    values, errors = sent(KINDS, **{"text": "x", "whole": "1", field: typed})
    assert words in errors[field]
    assert field not in values


@pytest.mark.parametrize("by_reference", [False, True])
def test_ui_64_nested_params_are_unfolded_and_folded_again(by_reference: bool) -> None:
    inner = {
        "type": "object",
        "required": ["q"],
        "properties": {"q": {"type": "string"}, "n": {"type": "integer"}},
    }
    schema = {
        "properties": {"params": {"$ref": "#/$defs/Search"} if by_reference else inner},
        "required": ["params"],
        "$defs": {"Search": inner},
    }
    assert [(f.name, f.kind, f.required) for f in tool_fields(schema)] == [
        ("q", "text", True),
        ("n", "integer", False),
    ]
    assert sent(schema, q="x", n="") == ({"params": {"q": "x"}}, {})
    plain = {"properties": {"params": {"type": "object"}}}
    assert sent(plain, params='{"q": "x"}') == ({"params": {"q": "x"}}, {})


def test_ui_65_nullable_numbers_start_empty_and_are_left_out() -> None:
    fields = {field.name: field for field in tool_fields(KINDS)}
    for name in ("maybe", "perhaps"):
        assert (fields[name].default, fields[name].required) == (None, False)
    values, errors = sent(KINDS, text="x", whole="1", maybe="", perhaps="")
    assert not {"maybe", "perhaps"} & set(values)
    assert not errors


@pytest.fixture
def tracing(write: Write, echo_server: str) -> str:
    with write() as session:
        return make_server(
            session,
            "s",
            url=echo_server,
            allow_all_keys=True,
            extra_headers=["X-Trace", "Authorization"],
        )


def test_ui_64_65_the_form_on_the_page(signed_in: SignedIn, tracing: str) -> None:
    mel = signed_in("mel")
    page = parse(mel.get(f"/playground?server={tracing}&tool=whoami"))
    assert "This tool takes no arguments." in text_of(page.find(id="form"))
    form = parse(mel.get(f"/playground?server={tracing}&tool=search_notes")).find(id="form")
    assert (form.find(id="argument-limit")["value"], form.find(id="argument-query")["value"]) == (
        "5",
        "",
    )
    assert form.find("select", id="argument-tag").find("option", selected=True) is None


def test_the_playground_passes_on_what_is_typed_for_it(signed_in: SignedIn, tracing: str) -> None:
    """The names of such headers are for admin view (1-system.md, 5), so only there they can be
    filled in."""
    path = f"/playground?server={tracing}&tool=show_headers"
    ada = signed_in("ada")
    form = parse(ada.get(path)).find("form", action="/playground/call")
    assert [box["type"] for box in form.select("input[name^=header-]")] == ["password", "password"]
    typed = {
        "header-X-Trace": "t-1",
        "header-Authorization": "Bearer theirs",
        "header-X-Other": "stays",
    }
    shown = text_of(
        parse(ada.post("/playground/call", data=filled(form, **typed))).find(id="result")
    )
    assert '"x-trace": "t-1"' in shown
    assert '"authorization": "Bearer theirs"' in shown
    assert "stays" not in shown
    assert '"cookie"' not in shown
    page = parse(ada.post("/playground/call", data=filled(form, **{"header-X-Trace": "a\nb"})), 422)
    assert "line break" in page.find(attrs={"data-error-summary": True}).text
    assert not parse(signed_in("mel").get(path)).select("input[name^=header-]")
