"""Parsing of untrusted YAML: safe types only, and events to check before building values.

A few lines of aliases can expand to gigabytes. The time of libyaml grows with the square of
directives and depth, and that of PyYAML with the square of parts in numbers such as 1:30:00.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import yaml

_C_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DIRECTIVES = 10
_MOST_DIGITS = 400
_DIRECTIVE = re.compile(r"^\ufeff?%", re.MULTILINE)
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class TooManyDirectives(yaml.YAMLError):
    """The text has too many lines that begin with `%`."""


class Loader(_C_LOADER):  # type: ignore[misc]
    """Loader of YAML's safe types, without dates and with the numbers of YAML 1.2."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _C_LOADER.yaml_implicit_resolvers.items()
}


def _number(loader: Any, node: Any) -> Any:
    """Return a number, or text for values like `12:30` (750 in YAML 1.1) and very long numbers."""
    text: str = node.value
    if ":" in text or len(text) > _MOST_DIGITS:
        return text
    kind = node.tag.rpartition(":")[2]
    return getattr(_C_LOADER, f"construct_yaml_{kind}")(loader, node)


for _tag in _NUMBERS:
    Loader.add_constructor(_tag, _number)


def events(text: str) -> Iterator[Any]:
    """Yield the YAML events of `text`. Raises `yaml.YAMLError`, such as `TooManyDirectives`."""
    if next(islice(_DIRECTIVE.finditer(text), MAX_DIRECTIVES, None), None):
        raise TooManyDirectives("too many directives")
    yield from yaml.parse(text, Loader=Loader)


def load(text: str) -> Any:
    """Return the value of `text`, whose events must be checked first.

    Raises `yaml.YAMLError`, `ValueError` and `TypeError`.
    """
    return yaml.load(text, Loader=Loader)  # noqa: S506 - a subclass of the safe loader
