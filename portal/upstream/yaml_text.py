"""YAML as it comes from elsewhere: safe types, read as events first, and nothing that multiplies or
takes for ever.

A few lines of aliases stand for gigabytes; the time that libyaml takes grows with the square of the
directives and of the depth, and PyYAML's with the square of the parts of a number such as 1:30:00.
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
    """The text has more lines that begin with `%` than any document needs."""


class Loader(_C_LOADER):  # type: ignore[misc]
    """YAML's safe types without dates, which JSON does not have, and with numbers as YAML 1.2 has
    them."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _C_LOADER.yaml_implicit_resolvers.items()
}


def _number(loader: Any, node: Any) -> Any:
    """A number; `12:30`, which YAML 1.1 reads as 750, and what has hundreds of digits is the text
    that it is."""
    text: str = node.value
    if ":" in text or len(text) > _MOST_DIGITS:
        return text
    kind = node.tag.rpartition(":")[2]
    return getattr(_C_LOADER, f"construct_yaml_{kind}")(loader, node)


for _tag in _NUMBERS:
    Loader.add_constructor(_tag, _number)


def events(text: str) -> Iterator[Any]:
    """What libyaml finds in `text`, piece by piece. Raises yaml.YAMLError, TooManyDirectives among
    them."""
    if next(islice(_DIRECTIVE.finditer(text), MAX_DIRECTIVES, None), None):
        raise TooManyDirectives("too many directives")
    yield from yaml.parse(text, Loader=Loader)


def load(text: str) -> Any:
    """What `text` says, once its events were looked at. Raises yaml.YAMLError, ValueError and
    TypeError."""
    return yaml.load(text, Loader=Loader)  # noqa: S506 - a subclass of the safe loader
