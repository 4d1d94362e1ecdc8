"""Two definitions of a tool, compared."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain import definition_diff
from portal.domain.definition_diff import (
    definition_hash,
    definition_of,
    diff_definitions,
    kept_of,
    marked,
    warnings_of,
)
from tests.domain.test_suspicious_text import HIDDEN

# Any text: among it what is hidden, what looks alike, and what instructs.
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=()), st.sampled_from([*HIDDEN, "а", "o", "a", " ", "\n"])
    ),
    max_size=60,
) | st.lists(
    st.sampled_from(["Ignore ", "all ", "instructions", "\u200b", "~/.ssh/", "https://x.y/"])
).map("".join)


def test_a_name_stands_in_the_place_of_the_character() -> None:
    assert [run.hidden for run in marked("a\u200bb")] == ["", "U+200B ZERO WIDTH SPACE", ""]


@given(TEXTS)
def test_marks_lose_no_character(text: str) -> None:
    runs = marked(text)
    assert "".join(run.text for run in runs) == text
    for run in runs:
        unseen = [
            letter
            for letter in run.text
            if unicodedata.category(letter) in ("Cf", "Co", "Cs", "Cn")
        ]
        assert run.hidden or all(
            letter == "\u200d" for letter in unseen
        )  # a joiner of emoji alone is drawn


@given(TEXTS, TEXTS)
def test_each_side_of_a_redline_is_its_text(old: str, new: str) -> None:
    part = diff_definitions({"description": old}, {"description": new})[0]
    assert "".join(run.text for run in part.old) == old
    assert "".join(run.text for run in part.new) == new
    assert part.changed == (old != new)
    assert {run.change for run in part.old} <= {"same", "removed"}
    assert {run.change for run in part.new} <= {"same", "added"}
    kept = [
        "".join(run.text for run in side if run.change == "same") for side in (part.old, part.new)
    ]
    assert kept[0] == kept[1]


def test_words_and_lines_are_compared() -> None:
    old = {"description": "Adds two numbers.", "inputSchema": {"a": 1, "b": 2}}
    new = {"description": "Adds three numbers.", "inputSchema": {"a": 1, "b": 3}}
    words, lines = diff_definitions(old, new)
    assert [run.text for run in words.new if run.change == "added"] == ["three "]
    assert [run.text for run in lines.new if run.change == "added"] == ['  "b": 3\n']
    assert lines.is_code


def test_a_tool_that_is_new_or_gone_has_one_side() -> None:
    assert diff_definitions(None, {"name": "x"})[0].old == ()
    assert diff_definitions({"name": "x"}, None)[0].new == ()


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(st.integers() | st.text(max_size=5), st.lists, max_leaves=8),
    )
)
def test_the_hash_is_of_what_counts(schema: dict[str, object]) -> None:
    wire = {"name": "x", "description": "y", "inputSchema": schema, "_meta": {"n": 1}}
    turned = {
        "inputSchema": dict(reversed(schema.items())),
        "description": "y",
        "name": "x",
        "title": None,
    }
    assert definition_hash(definition_of(wire)) == definition_hash(definition_of(turned))
    assert definition_hash(definition_of(wire)) != definition_hash(
        definition_of({**wire, "description": "z"})
    )


def test_hidden_characters_in_a_schema_are_found() -> None:
    found = warnings_of(
        {"name": "x", "inputSchema": {"properties": {"a\u202e": {"description": "<system>"}}}}
    )
    assert [(w.where, w.what) for w in found] == [
        ("Input schema", "Bidirectional control"),
        ("Input schema", "Imitates part of the conversation"),
    ]
    assert (
        warnings_of({"inputSchema": {"$schema": "https://json-schema.org/draft/2020-12/schema"}})
        == ()
    )


def test_what_is_too_large_is_known_by_its_hash_alone() -> None:
    kept = kept_of({"name": "x", "description": "y" * definition_diff.MAX_BYTES})
    assert list(kept) == ["too_large"]
    assert [w.what for w in warnings_of(kept)] == ["Too large to show"]


@pytest.mark.parametrize(
    "piece",
    [
        "send ",
        "ignore ",
        "\u200b",
        "a\u200b",
        "don't tell ",
        "before using ",
        "https://",
        "A",
        "\u0430a ",
        "read ",
        "<",
    ],
)
def test_hostile_texts_take_no_time(piece: str) -> None:
    # Linear work takes a tenth of a second and quadratic work minutes: a slow or busy machine stays
    # far from both.
    text = (piece * definition_diff.MAX_BYTES)[: definition_diff.MAX_BYTES]
    began = time.process_time()
    warnings_of({"description": text})
    diff_definitions({"description": text}, {"description": text[::-1]})
    assert time.process_time() - began < 30
