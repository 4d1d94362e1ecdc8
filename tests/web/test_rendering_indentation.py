"""Pages are sent without the indentation of templates, and read the same."""

import re
from itertools import groupby

import pytest
from jinja2 import Environment

from portal.web.rendering import Unindented
from tests.support.peers import ROOT

NAMES = sorted(
    str(path.relative_to(ROOT / "templates")) for path in ROOT.glob("templates/**/*.html")
)


def pieces(environment: Environment, source: str) -> list[str]:
    """Return the text between tags as a browser shows it: one space for any white space."""
    tokens = [
        (kind == "data", value)
        for _, kind, value in environment.lexer.tokeniter(source, None)
        if kind == "data" or kind.endswith("_begin")
    ]
    runs = groupby(tokens, key=lambda token: token[0])
    return [re.sub(r"\s+", " ", "".join(v for _, v in run)) for is_data, run in runs if is_data]


@pytest.mark.parametrize("name", NAMES)
def test_no_space_between_words_is_lost(name: str) -> None:
    environment = Environment(trim_blocks=True, lstrip_blocks=True, autoescape=True)
    source = (ROOT / "templates" / name).read_text("utf-8")
    sent = Unindented(environment).preprocess(source, name)
    assert pieces(environment, sent) == pieces(environment, source)
    assert not re.search(r"^[ \t]{2}", sent, re.MULTILINE)
