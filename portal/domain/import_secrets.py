"""Secrets and placeholders in imported documents.

Only headers can refer to variables. In other fields, a secret is stored encrypted as it is, and a
placeholder is an error.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from portal.domain.import_fields import text_of
from portal.domain.servers import ServerFields
from portal.domain.variables import references


class Share(StrEnum):
    """How a secret found in a header is stored."""

    GLOBAL = "global"  # a variable with this value for everyone
    USER = "user"  # a variable that each user sets; the imported value is discarded
    # no variable: a bearer token is the server's credential, another secret the header's value
    KEEP = "keep"


@dataclass(frozen=True)
class Secret:
    """A secret in a document. Only secrets in headers can become a `variable`; others have none."""

    place: str
    name: str
    variable: str = ""
    prefix: str = ""
    value: str = field(default="", repr=False)


class Unusable(Exception):
    """An entry cannot be imported. The message does not repeat its content."""


# `${input:id}` is VS Code's, `${env:NAME}` its and Cursor's, `${NAME:-default}` Claude's,
# os.environ/NAME LiteLLM's.
_PLACEHOLDER = re.compile(
    r"\$\{(?:(?P<kind>input|env):)?(?P<id>[\w.-]{1,128})(?::-(?P<default>[^}]*))?\}", re.ASCII
)
_ENVIRON = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_SCHEME = re.compile(r"(?P<prefix>(?:bearer|basic|token|apikey|api-key) )(?P<value>\S+)", re.I)
_SECRET_NAME = re.compile(
    r"auth|token|key|secret|passw|cookie|session|credential|signature|pat$", re.I
)
_SECRET_VALUE = re.compile(
    r"\b(sk|pk|rk|ghp|gho|ghu|ghs|github_pat|glpat|xox[abprs]|pat|ntn|lin_api|eyJ|AKIA|AIza)[_.A-Za-z0-9-]{8,}"
)
_LONG_WORD = re.compile(r"[A-Za-z0-9_~+=-]{24,}", re.ASCII)


def looks_secret(name: str, value: str) -> bool:
    """Return whether a value is probably a secret, judging by its name or format."""
    if not value:
        return False
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value)) or any(
        any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
        for word in _LONG_WORD.findall(value)
    )


def is_placeholder(value: str) -> bool:
    """Return whether a value consists only of a placeholder."""
    return bool(_PLACEHOLDER.fullmatch(value) or _ENVIRON.fullmatch(value))


def holds_only_references(value: str) -> bool:
    """Return whether a header's value has only `${NAME}` references and a scheme."""
    return bool(references(value)) and not re.search(
        r"\w",
        re.sub(
            r"^(?:bearer|basic|token|apikey|api-key) ", "", _PLACEHOLDER.sub("", value), flags=re.I
        ),
    )


def add_headers(
    fields: ServerFields, headers: Mapping[str, str], inputs: Mapping[str, str]
) -> None:
    """Add headers to a definition, with a variable for each placeholder.

    `inputs` are the descriptions of VS Code's inputs by ID.
    """
    variables = list(fields.get("env_vars") or ())
    declared = {variable["name"] for variable in variables}
    written: dict[str, str] = {}

    def declare(name: str, note: str, default: str | None = None) -> str:
        if name not in declared:
            declared.add(name)
            scope = Share.USER if default is None else Share.GLOBAL
            variables.append(
                {"name": name, "scope": scope.value, "value": default, "description": note or None}
            )
        return f"${{{name}}}"

    def variable_for(match: re.Match[str]) -> str:
        note = inputs.get(match["id"], "") if match["kind"] == "input" else ""
        return declare(variable_name(match["id"]), note, match["default"])

    for header, value in headers.items():
        if value == "":  # a name without a value, as in the portal's own export
            value = declare(variable_name(header), f"For the header {header}")
        value = _ENVIRON.sub(lambda match: declare(match[1], ""), value)
        written[header] = _PLACEHOLDER.sub(variable_for, value)
    fields["static_headers"] = {**(fields.get("static_headers") or {}), **written}
    if variables:
        fields["env_vars"] = variables


def add_input_header(fields: ServerFields, header: Mapping[str, Any]) -> None:
    """Add a header of a `server.json`, which may describe its value instead of containing it."""
    name = text_of(header, "name")
    value = header.get("value") or header.get("default")
    found = header.get("variables")
    notes = {
        variable_name(str(key)): str(part.get("description") or "")
        for key, part in (found.items() if isinstance(found, Mapping) else ())
        if isinstance(part, Mapping)
    }
    if value is None:
        if not header.get("isRequired") and not header.get("isSecret"):
            return
        value = f"${{{variable_name(name)}}}"
        notes = {variable_name(name): str(header.get("description") or "")}
    text = re.sub(
        r"(?<!\$)\{([\w.-]{1,128})\}", lambda match: f"${{{variable_name(match[1])}}}", str(value)
    )
    add_headers(fields, {name: text}, {})
    for variable in fields.get("env_vars") or ():
        if notes.get(variable["name"]):
            variable["description"] = notes[variable["name"]][:1_000]


def variable_name(text: str) -> str:
    """Return a valid variable name for a text: `X-Api-Key` becomes X_API_KEY."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text, flags=re.ASCII).upper()[:100]
    return f"V_{name}" if not name or name[0].isdigit() else name


def refuse_placeholders(fields: ServerFields) -> None:
    """Raise `Unusable` for placeholders outside headers, which would be sent literally."""
    elsewhere = [
        fields.get("url") or "",
        *(fields.get("args") or ()),
        *(fields.get("env") or {}).values(),
    ]
    elsewhere += [str(value) for value in (fields.get("credentials") or {}).values()]
    if any(_PLACEHOLDER.search(text) or _ENVIRON.search(text) for text in elsewhere):
        raise Unusable(
            "The URL, command, environment or credentials contain a placeholder. Only headers can"
            " use variables. Replace the placeholder by its value, or add this server manually."
        )


def find_secrets(name: str, fields: ServerFields) -> Iterator[Secret]:
    """Yield the secrets in a definition; those in headers have the name of a possible variable."""
    taken = {variable["name"] for variable in fields.get("env_vars") or ()}
    for header, value in (fields.get("static_headers") or {}).items():
        if not references(value) and looks_secret(header, value):
            scheme = _SCHEME.fullmatch(value)
            prefix, secret = (scheme["prefix"], scheme["value"]) if scheme else ("", value)
            wanted = f"{name}_token" if header.lower() == "authorization" else header
            variable = _unused(variable_name(wanted), taken)
            yield Secret("header", header, variable, prefix, secret)
    if looks_secret("", fields.get("url") or "") or _has_secret_query(fields.get("url") or ""):
        yield Secret("address", "")
    for entry, value in (fields.get("env") or {}).items():
        if looks_secret(entry, value):
            yield Secret("environment", entry)
    if any(looks_secret("", part) for part in fields.get("args") or ()):
        yield Secret("arguments", "")
    if fields.get("credentials"):
        yield Secret("credentials", "")


def _has_secret_query(url: str) -> bool:
    return any(
        _SECRET_NAME.search(part.partition("=")[0])
        for part in url.partition("?")[2].split("&")
        if part
    )


def _unused(wanted: str, taken: set[str]) -> str:
    names: Iterable[str] = (wanted, *(f"{wanted}_{number}" for number in range(2, 1_000)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name
