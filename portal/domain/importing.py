"""Conversion of configuration documents of other programs to server definitions.

Supported are `mcp.json` of Claude, Cursor and VS Code, `server.json` of the official registry
(2025-12-11), and LiteLLM's `mcp_servers`. Secrets in a document are detected and offered as
variables. Placeholders become variables.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from portal.domain.errors import InvalidInput, PortalError
from portal.domain.import_fields import listed, litellm_fields, text_of, texts
from portal.domain.import_secrets import (
    Secret,
    Share,
    Unusable,
    add_headers,
    add_input_header,
    find_secrets,
    is_placeholder,
    refuse_placeholders,
)
from portal.domain.servers import AuthType, ServerFields, Transport, check_values

MOST_ENTRIES = 500


@dataclass(frozen=True)
class ImportEntry:
    """A server in a document, by its key; `fault` is the reason if it cannot be imported.

    `asked` are the variables that each user must set. `blank` are the headers without a value.
    """

    key: str
    line: int
    name: str = ""
    fields: ServerFields = field(default_factory=lambda: ServerFields(), repr=False)
    secrets: tuple[Secret, ...] = ()
    asked: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class ImportDocument:
    """A parsed document: its format, and its servers in the original order."""

    kind: str
    entries: tuple[ImportEntry, ...]


Reader = Callable[[str, Mapping[str, Any], Mapping[str, str]], ServerFields]


def read_import(document: object, lines: Mapping[str, int]) -> ImportDocument:
    """Return the servers of `document`; `lines` are the line numbers of its entries by key.

    Raises `InvalidInput` if the format is not supported.
    """
    kind, entries, reader, inputs = _recognized(document)
    if len(entries) > MOST_ENTRIES:
        raise InvalidInput(
            f"The document contains more than {MOST_ENTRIES} servers. Split it.", field="text"
        )
    return ImportDocument(
        kind, tuple(_entry(key, raw, lines.get(key, 1), reader, inputs) for key, raw in entries)
    )


def with_choices(
    entry: ImportEntry, choices: Mapping[int, Share], otherwise: Share
) -> ServerFields:
    """Return the definition of `entry` with each detected secret stored as chosen, by number."""
    fields = cast(ServerFields, dict(entry.fields))
    headers = dict(fields.get("static_headers") or {})
    variables = list(fields.get("env_vars") or ())
    for number, secret in enumerate(entry.secrets):
        share = choices.get(number, otherwise)
        if not secret.variable:
            continue
        if share is not Share.KEEP:
            headers[secret.name] = f"{secret.prefix}${{{secret.variable}}}"
            value = secret.value if share is Share.GLOBAL else None
            note = f"For the header {secret.name}"
            variables.append(
                {"name": secret.variable, "scope": share.value, "value": value, "description": note}
            )
        elif secret.prefix.lower() == "bearer " and "credentials" not in fields:
            del headers[secret.name]
            fields["auth_type"] = AuthType.BEARER_TOKEN
            fields["credentials"] = {"auth_value": secret.value}
    if "static_headers" in fields:
        fields["static_headers"] = headers
    if variables:
        fields["env_vars"] = variables
    return fields


def valid_server_name(key: str) -> str:
    """Return a valid server name for a key: other characters become `_`."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", key.strip(), flags=re.ASCII)[:64]


def _recognized(
    document: object,
) -> tuple[str, list[tuple[str, Any]], Reader, Mapping[str, str]]:
    if isinstance(document, list):
        return "server.json", [_named(item) for item in document], _from_registry, {}
    found = document if isinstance(document, Mapping) else {}
    if isinstance(found.get("mcp"), Mapping) and "servers" in found["mcp"]:
        found = found["mcp"]  # VS Code's settings.json
    if isinstance(found.get("mcp_servers"), Mapping):
        return "LiteLLM YAML", _pairs(found["mcp_servers"]), _from_litellm, {}
    if isinstance(found.get("mcpServers"), Mapping):
        return "mcp.json", _pairs(found["mcpServers"]), _from_client, {}
    if isinstance(found.get("servers"), Mapping):
        return (
            "VS Code mcp.json",
            _pairs(found["servers"]),
            _from_client,
            _inputs(found.get("inputs")),
        )
    if isinstance(found.get("servers"), list):
        return "server.json", [_named(item) for item in found["servers"]], _from_registry, {}
    if isinstance(found.get("server"), Mapping) or (
        "name" in found and ("remotes" in found or "packages" in found)
    ):
        return "server.json", [_named(found)], _from_registry, {}
    if found and all(
        isinstance(v, Mapping) and ("url" in v or "command" in v) for v in found.values()
    ):
        return "mcp.json", _pairs(found), _from_client, {}
    raise InvalidInput(
        "This format cannot be imported. Use mcp.json (mcpServers or servers), server.json, or"
        " YAML with mcp_servers.",
        field="text",
    )


def _pairs(found: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    return [(str(key), raw) for key, raw in found.items()]


def _named(item: Any) -> tuple[str, Any]:
    inner = (
        item.get("server")
        if isinstance(item, Mapping) and isinstance(item.get("server"), Mapping)
        else item
    )
    return (str(inner.get("name") or "") if isinstance(inner, Mapping) else "", inner)


def _inputs(found: Any) -> dict[str, str]:
    """Return the descriptions of VS Code's `inputs` by ID."""
    entries = found if isinstance(found, list) else []
    return {
        str(entry["id"]): str(entry.get("description") or "")[:1_000]
        for entry in entries
        if isinstance(entry, Mapping) and entry.get("id")
    }


def _entry(key: str, raw: Any, line: int, reader: Reader, inputs: Mapping[str, str]) -> ImportEntry:
    short = key.rpartition("/")[2] if reader is _from_registry else key
    entry = ImportEntry(key[:128], line, valid_server_name(short))
    try:
        if not isinstance(raw, Mapping):
            raise Unusable("The entry of a server must be an object.")
        if not entry.name.strip("_."):
            raise Unusable("The entry has no valid server name.")
        fields = reader(key, raw, inputs)
        fields["server_name"] = entry.name
        check_values(fields)
        refuse_placeholders(fields)
    except Unusable as error:
        return replace(entry, fault=str(error))
    except PortalError as error:
        return replace(entry, fault=error.message)
    asked = tuple(v["name"] for v in fields.get("env_vars") or () if v.get("scope") == Share.USER)
    return replace(
        entry,
        fields=fields,
        secrets=tuple(find_secrets(entry.name, fields)),
        asked=asked,
        blank=_blank(raw),
    )


def _blank(raw: Mapping[str, Any]) -> tuple[str, ...]:
    parts = (raw.get("static_headers"), raw.get("headers"))
    return tuple(
        str(k)
        for part in parts
        if isinstance(part, Mapping)
        for k, v in part.items()
        if v in (None, "")
    )


# Formats


def _from_client(_key: str, raw: Mapping[str, Any], inputs: Mapping[str, str]) -> ServerFields:
    """Read an entry of a file of Claude, Cursor or VS Code."""
    fields = _connection(raw, Transport.HTTP)
    if raw.get("description"):
        fields["description"] = text_of(raw, "description")
    if raw.get("headers"):
        add_headers(fields, texts(raw, "headers"), inputs)
    return fields


def _from_litellm(_key: str, raw: Mapping[str, Any], inputs: Mapping[str, str]) -> ServerFields:
    """Read an entry of `mcp_servers`, whose default transport is SSE."""
    fields = _connection(raw, Transport.SSE, complete=False)
    fields.update(litellm_fields(raw))
    headers = texts(raw, "static_headers") | texts(raw, "headers")
    token = str((fields.get("credentials") or {}).get("auth_value") or "")
    if fields.get("auth_type") is AuthType.BEARER_TOKEN and is_placeholder(token):
        # A placeholder for a token becomes a variable. The portal's environment is not read.
        headers["Authorization"] = f"Bearer {token}"
        fields["auth_type"] = AuthType.NONE
        del fields["credentials"]
    if headers:
        add_headers(fields, headers, inputs)
    return fields


def _from_registry(_key: str, raw: Mapping[str, Any], _inputs: Mapping[str, str]) -> ServerFields:
    """Read a `server.json`: its first remote, or its first package as a command.

    Streamable HTTP is preferred to SSE.
    """
    remotes = sorted(
        (remote for remote in listed(raw, "remotes") if isinstance(remote, Mapping)),
        key=lambda remote: remote.get("type") != "streamable-http",
    )
    if remotes:
        fields = _connection({**remotes[0], "url": _filled_in(remotes[0])}, Transport.HTTP)
        for header in (item for item in listed(remotes[0], "headers") if isinstance(item, Mapping)):
            add_input_header(fields, header)
    else:
        fields = _package(next((p for p in listed(raw, "packages") if isinstance(p, Mapping)), {}))
    if raw.get("description"):
        fields["description"] = text_of(raw, "description")
    repository = raw.get("repository")
    if isinstance(repository, Mapping) and repository.get("url"):
        fields["source_url"] = text_of(repository, "url")
    return fields


_TRANSPORTS = {
    "http": Transport.HTTP,
    "streamable-http": Transport.HTTP,
    "streamable_http": Transport.HTTP,
    "streamablehttp": Transport.HTTP,
    "sse": Transport.SSE,
    "stdio": Transport.STDIO,
}


def _connection(raw: Mapping[str, Any], usual: Transport, *, complete: bool = True) -> ServerFields:
    """Read the connection of a server. If not `complete`, the URL and arguments may be missing."""
    word = raw.get("type") or raw.get("transport")
    unnamed = Transport.STDIO if raw.get("command") else usual
    transport = _TRANSPORTS.get(str(word).lower()) if word else unnamed
    if transport is None:
        raise Unusable("This transport is not supported. Use http, sse or stdio.")
    if transport is Transport.STDIO:
        if not raw.get("command"):
            raise Unusable("A stdio server needs a command.")
        fields = ServerFields(transport=transport, command=text_of(raw, "command"))
        if complete or "args" in raw:
            fields["args"] = [text_of({"args": part}, "args") for part in listed(raw, "args")]
        if raw.get("env"):
            fields["env"] = texts(raw, "env")
        return fields
    url = text_of(raw, "url") or text_of(raw, "serverUrl")
    if not url and complete:
        raise Unusable("The entry has neither a URL nor a command.")
    return ServerFields(transport=transport, **({"url": url} if url else {}))


def _filled_in(remote: Mapping[str, Any]) -> str:
    """Return a remote's URL with the values or defaults of its variables. Raises `Unusable`."""
    found = remote.get("variables")
    variables: Mapping[str, Any] = found if isinstance(found, Mapping) else {}

    def value_of(match: re.Match[str]) -> str:
        variable = variables.get(match[1])
        value = (
            (variable.get("value") or variable.get("default"))
            if isinstance(variable, Mapping)
            else None
        )
        if value is None:
            raise Unusable("The URL contains a variable without a value. Add this server manually.")
        return str(value)

    return re.sub(r"\{([^{}]*)\}", value_of, text_of(remote, "url"))


_RUNNERS = {
    "npm": ("npx", ["-y"], "@"),
    "pypi": ("uvx", [], "=="),
    "oci": ("docker", ["run", "-i", "--rm"], ":"),
}


def _package(package: Mapping[str, Any]) -> ServerFields:
    runner = _RUNNERS.get(str(package.get("registryType")))
    if runner is None or not package.get("identifier"):
        raise Unusable(
            "The entry has no remote and no package from npm, PyPI or a container registry."
        )
    command, args, joint = runner
    identifier = text_of(package, "identifier")
    version = (
        f"{joint}{package['version']}"
        if package.get("version") and joint not in identifier[1:]
        else ""
    )
    env: dict[str, str] = {}
    for item in (
        item for item in listed(package, "environmentVariables") if isinstance(item, Mapping)
    ):
        value = item.get("value") or item.get("default")
        if value is None and item.get("isRequired"):
            raise Unusable(
                "A required environment variable has no value. Add this server manually."
            )
        if value is not None:
            env[text_of(item, "name")] = str(value)
    return ServerFields(
        transport=Transport.STDIO, command=command, args=[*args, identifier + version], env=env
    )
