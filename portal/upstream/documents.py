"""JSON and YAML as they come from elsewhere, read within limits (spec/security.md, 2.10)."""

import json
from typing import Any, NoReturn

import yaml

from portal.domain.openapi.document import Document, read_document
from portal.domain.openapi.limits import MAX_DEPTH, MAX_NODES, DocumentError

MAX_DOCUMENT_BYTES = 5 * 1024 * 1024
MAX_ALIASES = 100
_C_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_C_LOADER):  # type: ignore[misc]
    """YAML's safe types without dates, which JSON does not have."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _C_LOADER.yaml_implicit_resolvers.items()
}


def parse_document(text: bytes) -> Document:
    """The OpenAPI document that JSON or YAML in UTF-8 holds. Raises DocumentError, which says where reading stopped."""
    if len(text) > MAX_DOCUMENT_BYTES:
        raise DocumentError("The document is larger than 5 MB. Use a smaller one.")
    try:
        return read_document(_parsed(text.decode("utf-8-sig")))
    except UnicodeDecodeError:
        raise DocumentError("The document is not text in UTF-8.") from None
    except RecursionError:
        raise DocumentError(f"The document is nested deeper than {MAX_DEPTH} levels.") from None


def _parsed(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise DocumentError(f"The document is not JSON: reading stopped at line {error.lineno}.") from None
        except ValueError:
            raise DocumentError("The document holds a number that JSON does not have.") from None
    try:
        _check_yaml(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DocumentError(f"The document is neither JSON nor YAML: reading stopped{where}.") from None
    except (yaml.YAMLError, ValueError, TypeError):
        raise DocumentError("The document is neither JSON nor YAML.") from None


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError


def _check_yaml(text: str) -> None:
    """Look at YAML as events before anything is built of it: aliases and merges multiply, tags make other types."""
    depth = nodes = aliases = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            continue
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise DocumentError("The document uses YAML’s merge key “<<”, which is not read. Write it out.")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag not in (None, "!"):
            raise DocumentError("The document uses YAML tags, which are not read.")
        if aliases > MAX_ALIASES:
            raise DocumentError(f"The document uses more than {MAX_ALIASES} YAML aliases. Write it out, or use JSON.")
        if depth > MAX_DEPTH:
            raise DocumentError(f"The document is nested deeper than {MAX_DEPTH} levels.")
        if nodes > MAX_NODES:
            raise DocumentError(f"The document holds more than {MAX_NODES:,} values. Use a smaller one.")
