"""`${NAME}` in headers, and which of a server's variables a person still has to fill in."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


class Scope(StrEnum):
    """Whose value a variable has."""

    GLOBAL = "global"
    USER = "user"


@dataclass(frozen=True)
class Variable:
    """A declared variable. `has_value` tells whether a global one has a value that is not empty."""

    name: str
    scope: Scope
    description: str | None = None
    has_value: bool = False


def references(text: str) -> tuple[str, ...]:
    """The names that `text` refers to, each once, in order. `${1abc}` and `${a-b}` are literal
    text."""
    return tuple(dict.fromkeys(_REFERENCE.findall(text)))


def required_variables(
    variables: Iterable[Variable], referenced: Collection[str]
) -> tuple[Variable, ...]:
    """Those a person must supply: per-user, referred to by a header, and not covered by a non-empty
    global value."""
    variables = tuple(variables)
    covered = {v.name for v in variables if v.scope is Scope.GLOBAL and v.has_value}
    required = {
        v.name: v
        for v in variables
        if v.scope is Scope.USER and v.name in referenced and v.name not in covered
    }
    return tuple(required.values())


def missing_variables(required: Iterable[Variable], stored: Collection[str]) -> tuple[str, ...]:
    """The names among `required` for which nothing is stored."""
    return tuple(v.name for v in required if v.name not in stored)


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """`text` with every known `${NAME}` replaced, once: what is put in is not scanned again."""
    return _REFERENCE.sub(lambda match: values.get(match[1], match[0]), text)
