"""The looker finds a marker however it is written: a guard that sees nothing would be green as
well."""

import base64
import html
import json
from urllib.parse import quote

import pytest

from tests.support.security.marks import NEVER, Marks

WRITINGS = {
    "as it is": lambda text: text,
    "in HTML": lambda text: html.escape(f'<a href="{text}">'),
    "in a URL": lambda text: quote(f"http://h/{text}?a=b&c=d", safe=""),
    "in JSON": lambda text: json.dumps({"a": [f"Bearer {text}"]}),
    "in base64": lambda text: base64.b64encode(text.encode()).decode(),
    "in base64 behind one letter": lambda text: base64.b64encode(f"u:{text}"[1:].encode()).decode(),
    "in base64 behind two letters": lambda text: base64.b64encode(f"u:{text}".encode()).decode(),
    "in base64 for URLs": lambda text: base64.urlsafe_b64encode(
        f"user:{text}:more".encode()
    ).decode(),
    "in hex": lambda text: f"user:{text}".encode().hex(),
    "backwards": lambda text: text[::-1],
}


@pytest.mark.parametrize("writing", WRITINGS.values(), ids=WRITINGS.keys())
def test_a_marker_is_found(writing: object) -> None:
    assert callable(writing)
    for _ in range(20):
        marks = Marks()
        text = marks.new(NEVER, "a secret")
        marks.new(NEVER, "another secret")
        marks.look(f"before {writing(text)} after".encode(), "here")
        assert marks.report() == ["a secret in here"]


def test_a_secret_made_elsewhere_is_found_too() -> None:
    marks = Marks()
    marks.known("sk-made-elsewhere", NEVER, "a key")
    marks.look(b"key=sk-made-elsewhere", "here")
    assert marks.report() == ["a key in here"]


def test_what_is_allowed_is_no_leak() -> None:
    marks = Marks()
    text = marks.new(NEVER, "a secret")
    marks.look(text.encode(), "here", allowed=[text])
    assert marks.report() == []
