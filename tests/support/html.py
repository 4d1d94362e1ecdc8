"""Reading pages in tests: parse, and check what every page must hold."""

import re
from typing import Any

from bs4 import BeautifulSoup
from bs4.element import NavigableString, Tag
from werkzeug.test import TestResponse

# What static/portal.css hides where it is empty: `:empty` does not match white space.
_BLANK = re.compile(
    r"<(td|\w+ (?=[^<>]*(class=\"(rows|lift)\"|id=\"(test-result|probe-result|result|revealed)\")))"
    r"[^<>]*>\s+</"
)
_SPACES = re.compile(r"[ \t\r\n\f]+")
_AS_IT_IS = {"pre", "textarea"}
_TRIMMED = set(
    "a button caption dd div dt fieldset form h1 h2 h3 label legend li main option p section select"
    " summary td th ul".split()
)


def parse(answer: TestResponse, status: int = 200) -> BeautifulSoup:
    """The page, after looking at what holds for all pages: title and heading, labels, ids, forms,
    no secret."""
    text = answer.get_data(as_text=True)
    assert answer.status_code == status, (answer.status_code, text[:600])
    page = shown(text)
    assert "SECRET" not in text, "a secret is in the page"
    assert not _BLANK.search(text), "white space alone: the style sheet does not take it for empty"
    if page.html:
        assert page.title, "every page has a title"
        assert page.title.text.strip()
        assert len(page.find_all("h1")) == 1, [h.text for h in page.find_all("h1")]
    tags = page.find_all()
    ids = [tag["id"] for tag in tags if tag.has_attr("id")]
    assert len(ids) == len(set(ids)), sorted(i for i in ids if ids.count(i) > 1)
    for form in page.find_all("form"):
        if "post" in str(form.get("method")).lower():
            assert form.find("input", attrs={"name": "csrf_token"}), (
                f"{form.get('action')} has no CSRF token"
            )
    assert not [tag for tag in tags if tag.has_attr("style")], "no inline style"
    assert not [tag for tag in page.find_all("script") if not tag.get("src")], "no inline script"
    return page


def shown(text: str) -> BeautifulSoup:
    """The page with its white space as a browser shows it: one space for many, none at the edges
    of what stands in a line or box of its own."""
    page = BeautifulSoup(text, "html.parser")
    _show(page)
    return page


def _show(part: Tag) -> None:
    # Down from the page, once: to look for each piece, and from there up to what it stands in,
    # takes longer than the answer took the portal.
    for piece in list(part.contents):
        if isinstance(piece, Tag):
            if piece.name not in _AS_IT_IS:
                _show(piece)
        elif type(piece) is NavigableString:
            words = _SPACES.sub(" ", piece)
            if part.name in _TRIMMED:
                words = words if piece.previous_sibling else words.lstrip(" ")
                words = words if piece.next_sibling else words.rstrip(" ")
            if not words:
                piece.extract()
            elif words != piece:
                piece.replace_with(words)


def filled(form: Any, **changes: Any) -> dict[str, Any]:
    """What a browser would send of a form, with changes; None leaves a field out."""
    data: dict[str, Any] = {}
    for field in form.find_all(["input", "textarea", "select"]):
        name = field.get("name")
        if not name or (
            field.get("type") in ("checkbox", "radio") and not field.has_attr("checked")
        ):
            continue
        if field.find_parent("template"):
            continue
        if field.name == "select":
            chosen = field.find("option", selected=True) or field.find("option")
            data[name] = [chosen.get("value", "") if chosen else ""]
        else:
            value = (
                field.text.removeprefix("\n")
                if field.name == "textarea"
                else field.get("value", "")
            )
            data.setdefault(name, []).append(value)
    data.update(changes)
    return {name: value for name, value in data.items() if value is not None}
