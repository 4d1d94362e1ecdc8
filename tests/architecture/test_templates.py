"""Templates keep to the rules: no inline code, no component, endpoint or layout that is not
there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from jinja2 import TemplateNotFound, nodes

from portal.app import create_app
from tests.conftest import make_settings

ROOT = Path(__file__).resolve().parents[2] / "templates"
NAMES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.html"))
PAGES = [name for name in NAMES if not name.startswith(("components/", "layouts/"))]
# One concept a file: past this, look twice.
MOST_LINES = 400
MOST_COLUMNS = 100
# What a strict content security policy refuses, and what would need an exemption from it.
INLINE = {
    "a script": re.compile(r"<script(?![^>]*\bsrc=)", re.I),
    "a style sheet": re.compile(r"<style\b", re.I),
    "a style attribute": re.compile(r"<[^>]*\sstyle\s*=", re.I),
    "an event handler": re.compile(r"<[^>]*\son[a-z]+\s*=", re.I),
    "a javascript: address": re.compile(r"javascript:", re.I),
    "code that htmx would evaluate": re.compile(
        r"\bhx-(?:on|vars)\b|hx-vals\s*=\s*[\"']js:|hx-trigger\s*=\s*[^>]*\[", re.I
    ),
}
COMMENT = re.compile(r"\{#.*?#\}", re.S)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The application, whose database nobody asks."""
    app = create_app(
        make_settings(f"sqlite:///{tmp_path_factory.mktemp('templates') / 'portal.db'}")
    )
    yield app
    app.extensions["database"].engine.dispose()


def source(name: str) -> str:
    return (ROOT / name).read_text()


def parsed(app: Flask, name: str) -> nodes.Template:
    return app.jinja_env.parse(source(name), name)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_parses_and_has_at_most_400_lines(app: Flask, name: str) -> None:
    app.jinja_env.get_template(name)
    assert len(source(name).splitlines()) <= MOST_LINES


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_a_template_is_longer_than_100_columns(name: str) -> None:
    assert [line for line in source(name).splitlines() if len(line) > MOST_COLUMNS] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_template_holds_no_inline_code(name: str) -> None:
    text = COMMENT.sub("", source(name))
    assert [what for what, pattern in INLINE.items() if pattern.search(text)] == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_marked_safe_and_escaping_stays_on(app: Flask, name: str) -> None:
    tree = parsed(app, name)
    assert [f.lineno for f in tree.find_all(nodes.Filter) if f.name in ("safe", "tojson")] == []
    assert "autoescape" not in source(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_component_that_is_called_exists(app: Flask, name: str) -> None:
    used = {
        found for macro in parsed(app, name).find_all(nodes.Getattr) if (found := _component(macro))
    }
    ui = app.jinja_env.globals["ui"]
    missing = [f"ui.{room}.{macro}" for room, macro in used if not _has(ui, room, macro)]
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_every_endpoint_that_is_linked_exists(app: Flask, name: str) -> None:
    wrong = []
    for call in parsed(app, name).find_all(nodes.Call):
        if not (isinstance(call.node, nodes.Name) and call.node.name == "url_for"):
            continue
        for endpoint in _constants(call.args[0]):
            if endpoint not in app.view_functions:
                wrong.append(endpoint)
    assert wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_extends_a_layout_and_has_a_title(app: Flask, name: str) -> None:
    tree = parsed(app, name)
    extended = [layout for e in tree.find_all(nodes.Extends) for layout in _layouts(e.template)]
    if not extended:
        # A piece that is never a page: it is one block, which is all that is rendered of it.
        assert [type(node) for node in tree.body if not _is_blank(node)] == [nodes.Block]
        return
    assert all(layout in NAMES and layout.startswith("layouts/") for layout in extended)
    assert "title" in {block.name for block in tree.find_all(nodes.Block)}


@pytest.mark.parametrize("name", NAMES)
def test_what_changes_something_is_a_post_with_a_token(name: str) -> None:
    for form in re.findall(r"<form\b.*?</form>", source(name), re.S | re.I):
        if re.search(r"method\s*=\s*[\"']post", form, re.I):
            assert "ui.forms.csrf()" in form
        assert not re.search(r"hx-(put|patch|delete)\s*=", form)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_that_opens_a_new_tab_gives_nothing_away(name: str) -> None:
    for link in re.findall(r"<a\b[^>]*target=\"_blank\"[^>]*>", source(name)):
        assert "noopener" in link


def _component(found: nodes.Getattr) -> tuple[str, str] | None:
    """The room and name of `ui.room.name`; None for any other attribute."""
    inner = found.node
    if (
        isinstance(inner, nodes.Getattr)
        and isinstance(inner.node, nodes.Name)
        and inner.node.name == "ui"
    ):
        return inner.attr, found.attr
    return None


def _constants(node: nodes.Node) -> list[str]:
    if isinstance(node, nodes.Const):
        return [node.value]
    return [
        c.value for c in node.find_all(nodes.Const) if isinstance(c.value, str) and "." in c.value
    ]


def _layouts(node: nodes.Node) -> list[str]:
    """The template that is extended, or those that an expression chooses from."""
    found = [node] if isinstance(node, nodes.Const) else list(node.find_all(nodes.Const))
    return [c.value for c in found if isinstance(c.value, str) and c.value.endswith(".html")]


def _is_blank(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Output) and all(
        isinstance(part, nodes.TemplateData) and not part.data.strip() for part in node.nodes
    )


def _has(ui: object, room: str, macro: str) -> bool:
    try:
        return callable(getattr(getattr(ui, room), macro, None))
    except TemplateNotFound:
        return False
