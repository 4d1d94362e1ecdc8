"""Parsing of OpenAPI documents in JSON and YAML within limits."""

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


def parse_openapi(text: bytes) -> Document:
    """Return the OpenAPI document in UTF-8 JSON or YAML. Raises `DocumentError` with the line."""
    if len(text) > MAX_DOCUMENT_BYTES:
        raise DocumentError("The document is larger than 5 MB. Use a smaller document.")
    try:
        return read_document(_parsed(text))
    except UnicodeDecodeError:
        raise DocumentError("The document is not UTF-8 text.") from None
    except RecursionError:
        raise DocumentError(f"The document is nested deeper than {MAX_DEPTH} levels.") from None


def _parsed(text: bytes) -> Any:
    decoded = text.decode("utf-8-sig")
    if decoded.lstrip().startswith("{"):
        try:
            return read_json(text, MAX_NODES)
        except json.JSONDecodeError as error:
            raise DocumentError(
                f"The document is not valid JSON: error in line {error.lineno}."
            ) from None
        except TooManyValues:
            raise DocumentError(
                f"The document contains more than {MAX_NODES:,} values. Use a smaller document."
            ) from None
        except TooDeep:
            raise DocumentError(f"The document is nested deeper than {MAX_DEPTH} levels.") from None
        except ValueError:
            raise DocumentError("The document contains a number that is not valid JSON.") from None
    try:
        _check_yaml(decoded)
        return yaml_text.load(decoded)
    except yaml_text.TooManyDirectives:
        raise DocumentError(
            f"The document has more than {MAX_DIRECTIVES} YAML directives (%). Remove them."
        ) from None
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DocumentError(f"The document is not valid JSON or YAML: error{where}.") from None
    except (yaml.YAMLError, ValueError, TypeError):
        raise DocumentError("The document is not valid JSON or YAML.") from None


def _check_yaml(text: str) -> None:
    """Check YAML as events before it is built. Raises `DocumentError` for unsafe features.

    Aliases and merge keys multiply data, and tags create other types.
    """
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
                "The document uses the YAML merge key “<<”, which is not supported. Expand it."
            )
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag not in (
            None,
            "!",
        ):
            raise DocumentError("The document uses YAML tags, which are not supported.")
        if aliases > MAX_ALIASES:
            raise DocumentError(
                f"The document uses more than {MAX_ALIASES} YAML aliases. Expand them, or use JSON."
            )
        if depth > MAX_DEPTH:
            raise DocumentError(f"The document is nested deeper than {MAX_DEPTH} levels.")
        if nodes > MAX_NODES:
            raise DocumentError(
                f"The document contains more than {MAX_NODES:,} values. Use a smaller document."
            )
