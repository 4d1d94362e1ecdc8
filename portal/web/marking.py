"""Marks for hidden characters in the text of pages.

Names chosen by users, servers and apps appear on nearly every page. A filter in each template could
be forgotten, so the finished page is scanned once: invisible characters are replaced by their name
(`[U+202E RIGHT-TO-LEFT OVERRIDE]`), letters of another script within a word are highlighted, and
right-to-left text is isolated so that it cannot reorder the text around it.

Values of form fields do not change: a note below the field names such characters.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from html import escape
from unicodedata import bidirectional

from portal.domain.suspicious_text import Mark, characters, is_suspect

# Printable ASCII and white space, which need no check.
_PLAIN = bytes([9, 10, 13, *range(32, 127)])
_ODD = re.compile(r"[^\t\n\r\x20-\x7e]")
_TAG = re.compile(
    r"<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9-]*)(?:[^\"'<>]|\"[^\"]*\"|'[^']*')*>|<!--.*?-->", re.S
)
_ATTRIBUTE = re.compile(
    r"(?P<before>\s(?P<name>[a-zA-Z:-]+)=)(?P<quote>[\"'])(?P<value>[^\"']*)(?P=quote)"
)
_SHOWN = frozenset(
    {
        "title",
        "aria-label",
        "aria-description",
        "alt",
        "placeholder",
        "label",
        "content",
        "summary",
        "data-label",
    }
)
_NO_MARKUP = frozenset({"title", "option"})
_VERBATIM = frozenset({"script", "style", "textarea"})
_UNSEEN_INPUTS = frozenset({"hidden", "checkbox", "radio", "submit", "image", "password"})
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_MOST_NAMED = 12


def mark_page(data: bytes) -> bytes:
    """Return the page with hidden characters marked, or the same object if there are none."""
    rest = set(data.translate(None, _PLAIN).decode("utf-8", "replace"))
    if not any(map(_matters, rest)):
        return data
    return "".join(_pieces(data.decode("utf-8", "replace"))).encode()


@lru_cache(maxsize=4096)
def _matters(letter: str) -> bool:
    return is_suspect(letter) or bidirectional(letter) in _RIGHT_TO_LEFT


def _pieces(page: str) -> Iterator[str]:
    at = 0
    inside = ""
    held: list[Mark] = []
    for tag in _TAG.finditer(page):
        name = (tag["name"] or "").lower()
        if inside in _VERBATIM and not (tag["end"] and name == inside):
            continue
        text = page[at : tag.start()]
        if inside == "textarea":
            held += characters(text)
        yield text if inside in _VERBATIM or not _ODD.search(text) else _text(text, inside)
        yield _tag(tag[0], name)
        at = tag.end()
        if tag["end"]:
            if inside == "textarea" and held:
                yield _note(held)
            held = []
            inside = "" if name == inside else inside
        elif name in _VERBATIM or name in _NO_MARKUP:
            inside = name
    rest = page[at:]
    yield _text(rest, inside) if _ODD.search(rest) else rest


def _text(text: str, inside: str) -> str:
    if inside in _NO_MARKUP:
        return _named_within(text)
    if any(bidirectional(letter) in _RIGHT_TO_LEFT for letter in text):
        places = [
            place for place, letter in enumerate(text) if bidirectional(letter) in _RIGHT_TO_LEFT
        ]
        first = places[0]
        last = places[-1] + 1
        return (
            f"{_marked(text[:first])}<bdi>{_marked(text[first:last])}</bdi>{_marked(text[last:])}"
        )
    return _marked(text)


def _marked(text: str) -> str:
    found = ""
    at = 0
    for mark in characters(text):
        piece = text[mark.start : mark.end]
        shown = f"<mark>{piece}</mark>" if mark.visible else ""
        found += (
            f'{text[at : mark.start]}{shown}<b class="finding" dir="ltr">[{escape(mark.label)}]</b>'
        )
        at = mark.end
    return found + text[at:]


def _named_within(text: str) -> str:
    """Return the text with hidden characters named, for places without markup."""
    found = ""
    at = 0
    for mark in characters(text):
        piece = text[mark.start : mark.end] if mark.visible else ""
        found += f"{text[at : mark.start]}{piece}[{escape(mark.label)}]"
        at = mark.end
    return found + text[at:]


def _tag(tag: str, name: str) -> str:
    if not _ODD.search(tag):
        return tag
    given = {found["name"].lower(): found["value"] for found in _ATTRIBUTE.finditer(tag)}
    shows = name == "input" and given.get("type", "text").lower() not in _UNSEEN_INPUTS
    held = characters(given.get("value", "")) if shows else ()
    named = _ATTRIBUTE.sub(lambda found: _attribute(found, name), tag)
    return named + (_note(held) if held else "")


def _attribute(found: re.Match[str], tag: str) -> str:
    name = found["name"].lower()
    if name not in _SHOWN or (name == "content" and tag != "meta"):
        return found[0]
    return f"{found['before']}{found['quote']}{_named_within(found['value'])}{found['quote']}"


def _note(marks: Iterable[Mark]) -> str:
    labels = list(dict.fromkeys(mark.label for mark in marks))
    more = f", and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else ""
    return (
        '<small class="finding" dir="ltr">Contains'
        f" {escape(', '.join(labels[:_MOST_NAMED]))}{more}</small>"
    )
