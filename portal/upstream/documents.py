"""JSON and YAML as they come from elsewhere, read within limits."""

import json
from typing import Any

import yaml

from portal.domain.openapi.document import Document, read_document
from portal.domain.openapi.limits import MAX_DEPTH, MAX_NODES, DocumentError
from portal.upstream import yaml_text
from portal.upstream.json_text import TooDeep, TooManyValues, read_json
from portal.upstream.yaml_text import MAX_DIRECTIVES

MAX_DOCUMENT_BYTES = 5 * 1024 * 1024
MAX_ALIASES = 100


def parse_document(text: bytes) -> Document:
    """The OpenAPI document that JSON or YAML in UTF-8 holds. Raises DocumentError, which says where
    reading stopped."""
    if len(text) > MAX_DOCUMENT_BYTES:
        raise DocumentError("The document is larger than 5 MB. Use a smaller one.")
    try:
        return read_document(_parsed(text))
    except UnicodeDecodeError:
        raise DocumentError("The document is not text in UTF-8.") from None
    except RecursionError:
        raise DocumentError(f"The document is nested deeper than {MAX_DEPTH} levels.") from None


def _parsed(text: bytes) -> Any:
    decoded = text.decode("utf-8-sig")
    if decoded.lstrip().startswith("{"):
        try:
            return read_json(text, MAX_NODES)
        except json.JSONDecodeError as error:
            raise DocumentError(
                f"The document is not JSON: reading stopped at line {error.lineno}."
            ) from None
        except TooManyValues:
            raise DocumentError(
                f"The document holds more than {MAX_NODES:,} values. Use a smaller one."
            ) from None
        except TooDeep:
            raise DocumentError(f"The document is nested deeper than {MAX_DEPTH} levels.") from None
        except ValueError:
            raise DocumentError("The document holds a number that JSON does not have.") from None
    try:
        _check_yaml(decoded)
        return yaml_text.load(decoded)
    except yaml_text.TooManyDirectives:
        raise DocumentError(
            f"The document has more than {MAX_DIRECTIVES} YAML directives (%). Leave them out."
        ) from None
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DocumentError(
            f"The document is neither JSON nor YAML: reading stopped{where}."
        ) from None
    except (yaml.YAMLError, ValueError, TypeError):
        raise DocumentError("The document is neither JSON nor YAML.") from None


def _check_yaml(text: str) -> None:
    """Look at YAML as events before anything is built of it: aliases and merges multiply, tags make
    other types."""
    depth = nodes = aliases = 0
    for event in yaml_text.events(text):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            continue
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise DocumentError(
                "The document uses YAML’s merge key “<<”, which is not read. Write it out."
            )
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag not in (
            None,
            "!",
        ):
            raise DocumentError("The document uses YAML tags, which are not read.")
        if aliases > MAX_ALIASES:
            raise DocumentError(
                f"The document uses more than {MAX_ALIASES} YAML aliases. Write it out, or use"
                " JSON."
            )
        if depth > MAX_DEPTH:
            raise DocumentError(f"The document is nested deeper than {MAX_DEPTH} levels.")
        if nodes > MAX_NODES:
            raise DocumentError(
                f"The document holds more than {MAX_NODES:,} values. Use a smaller one."
            )
