"""`${NAME}` references in headers, and the variables that a user must set."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


class Scope(StrEnum):
    """The scope of a variable's value."""

    GLOBAL = "global"
    USER = "user"


@dataclass(frozen=True)
class Variable:
    """A declared variable. `has_value` is true if a global one has a non-empty value."""

    name: str
    scope: Scope
    description: str | None = None
    has_value: bool = False


def references(text: str) -> tuple[str, ...]:
    """Return the distinct names in `text` in order. `${1abc}` and `${a-b}` are literal text."""
    return tuple(dict.fromkeys(_REFERENCE.findall(text)))


def required_variables(
    variables: Iterable[Variable], referenced: Collection[str]
) -> tuple[Variable, ...]:
    """Return the variables that a user must set.

    These are per-user, used in a header, and have no non-empty global value.
    """
    variables = tuple(variables)
    covered = {v.name for v in variables if v.scope is Scope.GLOBAL and v.has_value}
    required = {
        v.name: v
        for v in variables
        if v.scope is Scope.USER and v.name in referenced and v.name not in covered
    }
    return tuple(required.values())


def missing_variables(required: Iterable[Variable], stored: Collection[str]) -> tuple[str, ...]:
    """Return the names in `required` without a stored value."""
    return tuple(v.name for v in required if v.name not in stored)


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """Return `text` with known `${NAME}` references replaced, without recursion."""
    return _REFERENCE.sub(lambda match: values.get(match[1], match[0]), text)
