"""Secrets and placeholders in what other programs wrote about MCP servers.

Only headers can refer to variables: elsewhere a secret is stored sealed where it stands, and a
placeholder is refused.
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
    """What becomes of a secret that was found in a header."""

    GLOBAL = "global"  # a variable with this value for everyone
    USER = "user"  # a variable that each person sets; the value that was found is forgotten
    # it stays where it is: a bearer token as the server's credential, else as the header's value
    KEEP = "keep"


@dataclass(frozen=True)
class Secret:
    """A secret in a document. Only one in a header can become a `variable`; the name is blank for
    the others."""

    place: str
    name: str
    variable: str = ""
    prefix: str = ""
    value: str = field(default="", repr=False)


class Unusable(Exception):
    """An entry that cannot be taken, in words for people that hold nothing of it."""


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
    """Whether a value is likely a secret, by its name or its look."""
    if not value:
        return False
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value)) or any(
        any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
        for word in _LONG_WORD.findall(value)
    )


def is_placeholder(value: str) -> bool:
    """Whether a value is nothing but a reference to what the reader of the file has to know."""
    return bool(_PLACEHOLDER.fullmatch(value) or _ENVIRON.fullmatch(value))


def holds_only_references(value: str) -> bool:
    """Whether a header's value says nothing of its own beside `${NAME}`s and the word of a
    scheme."""
    return bool(references(value)) and not re.search(
        r"\w",
        re.sub(
            r"^(?:bearer|basic|token|apikey|api-key) ", "", _PLACEHOLDER.sub("", value), flags=re.I
        ),
    )


def add_headers(
    fields: ServerFields, headers: Mapping[str, str], inputs: Mapping[str, str]
) -> None:
    """Put headers into a definition; each placeholder in them becomes a variable. `inputs` describe
    VS Code's."""
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
        if value == "":  # a name without a value, as our own export has it
            value = declare(variable_name(header), f"For the header {header}")
        value = _ENVIRON.sub(lambda match: declare(match[1], ""), value)
        written[header] = _PLACEHOLDER.sub(variable_for, value)
    fields["static_headers"] = {**(fields.get("static_headers") or {}), **written}
    if variables:
        fields["env_vars"] = variables


def add_input_header(fields: ServerFields, header: Mapping[str, Any]) -> None:
    """A header of a `server.json`, which may say what it is instead of holding it."""
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
    """A text as a variable may be called: `X-Api-Key` is X_API_KEY."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text, flags=re.ASCII).upper()[:100]
    return f"V_{name}" if not name or name[0].isdigit() else name


def refuse_placeholders(fields: ServerFields) -> None:
    """Only headers have variables: a placeholder elsewhere would be sent as it stands."""
    elsewhere = [
        fields.get("url") or "",
        *(fields.get("args") or ()),
        *(fields.get("env") or {}).values(),
    ]
    elsewhere += [str(value) for value in (fields.get("credentials") or {}).values()]
    if any(_PLACEHOLDER.search(text) or _ENVIRON.search(text) for text in elsewhere):
        raise Unusable(
            "A placeholder stands in its address, command, environment or credentials. Only headers"
            " can have variables: write the value out, or add this server by hand."
        )


def find_secrets(name: str, fields: ServerFields) -> Iterator[Secret]:
    """The secrets that stand in a definition; those in headers with the name of the variable they
    could become."""
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
