"""`${NAME}` in headers, and which values a person still has to supply."""

import pytest

from portal.domain.variables import (
    Scope,
    Variable,
    interpolate,
    missing_variables,
    references,
    required_variables,
)


def user(name: str) -> Variable:
    return Variable(name, Scope.USER)


def shared(name: str, *, has_value: bool = True) -> Variable:
    return Variable(name, Scope.GLOBAL, has_value=has_value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Bearer ${TOKEN}", ("TOKEN",)),
        ("${A}${B}${A}", ("A", "B")),
        ("${1abc} ${a-b} ${} ${ A} $A ${ü}", ()),
        ("${_x9}", ("_x9",)),
        ("$${A}", ("A",)),
        ("${A", ()),
    ],
)
def test_env_09_only_identifiers_are_references_and_each_counts_once(
    text: str, names: tuple[str, ...]
) -> None:
    assert references(text) == names


def test_a_user_variable_that_a_header_refers_to_is_required() -> None:
    assert required_variables([user("A"), user("B")], {"A"}) == (user("A"),)


def test_a_global_value_covers_a_user_variable_of_the_same_name_unless_it_is_empty() -> None:
    assert required_variables([shared("A"), user("A")], {"A"}) == ()
    assert required_variables([shared("A", has_value=False), user("A")], {"A"}) == (user("A"),)


def test_a_global_variable_is_never_asked_of_a_person() -> None:
    assert required_variables([shared("A", has_value=False)], {"A"}) == ()


def test_a_name_that_is_declared_twice_is_asked_for_once() -> None:
    assert [v.name for v in required_variables([user("A"), user("A")], {"A"})] == ["A"]


def test_missing_are_the_required_ones_that_are_not_stored() -> None:
    assert missing_variables([user("A"), user("B")], {"B"}) == ("A",)


def test_what_is_put_in_is_not_scanned_again() -> None:
    assert interpolate("${A}-${B}-${C}", {"A": "${B}", "B": "b"}) == "${B}-b-${C}"
    assert interpolate("${A}", {"A": "\\1 \\g<0>"}) == "\\1 \\g<0>"
