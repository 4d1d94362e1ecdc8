"""Exports of the catalog as documents for clients, registries and Git, without stored secrets.

For headers, environment entries and variables, only names are exported; for credentials, nothing.
Addresses and arguments are exported as they are, unless they look like secrets or the caller may
not read them. Importing such a document into the same portal does not change them.
"""

import json
from typing import Any

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import InvalidInput
from portal.domain.import_secrets import holds_only_references, looks_secret
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.catalog import registry
from portal.services.runtime import runtime_of
from portal.services.secrets.server_definition import Definition, opened
from portal.services.servers import queries
from portal.store.models import Server

FORMATS = {
    "mcp.json": "application/json",
    "server.json": "application/json",
    "catalog.yaml": "application/yaml",
}
OLD_NAMES = {"catalogue.yaml": "catalog.yaml"}
"""Format names of earlier versions, and their current names."""
_PLAIN = ("description", "instructions", "auth_type", "source_url", "timeout", "command")
_LISTS = ("allowed_tools", "extra_headers")


def export_catalog(session: Session, principal: Principal, file_name: str) -> str:
    """Return the active servers as `mcp.json` (for clients), `server.json` (a list) or YAML."""
    authz.require(principal, Action.SERVER_CREATE)
    file_name = OLD_NAMES.get(file_name, file_name)
    if file_name not in FORMATS:
        raise InvalidInput("Choose mcp.json, server.json or catalog.yaml.", field="format")
    entries = registry.list_server_json(session, principal)
    if file_name == "mcp.json":
        found = {
            entry["name"].rpartition("/")[2]: {"type": "http", "url": entry["remotes"][0]["url"]}
            for entry in entries
        }
        return json.dumps({"mcpServers": found}, indent=2) + "\n"
    if file_name == "server.json":
        return (
            json.dumps({"servers": [{"server": e} for e in entries]}, indent=2, ensure_ascii=False)
            + "\n"
        )
    return _yaml(session, principal)


def record_export(session: Session, principal: Principal, file_name: str) -> None:
    """Record in the audit log that the catalog was exported."""
    authz.require(principal, Action.SERVER_CREATE)
    audit.record(session, principal, "catalog exported", "server", None, format=file_name)


def _yaml(session: Session, principal: Principal) -> str:
    query = select(Server).where(authz.visible_servers(principal), Server.origin == "database")
    rows = list(
        session.scalars(query.order_by(Server.sort_key, Server.server_id).options(*queries.PARTS))
    )
    groups = queries.groups_of(session, rows)
    found = {
        row.server_name or row.alias or row.server_id: _entry(
            session,
            row,
            [group.name for group in groups[row.server_id]],
            hides=hides_addresses(session, principal),
        )
        for row in rows
    }
    text: str = yaml.safe_dump(
        {"mcp_servers": found}, sort_keys=False, allow_unicode=True, width=120
    )
    return _head(runtime_of(session).public_url, hides=hides_addresses(session, principal)) + text


def hides_addresses(session: Session, principal: Principal) -> bool:
    """Return whether the caller may not read addresses and arguments, so exports omit them."""
    authz.require(principal, Action.SERVER_CREATE)
    return runtime_of(session).write_only_globals and not authz.is_operator(principal)


def _head(public_url: str, *, hides: bool) -> str:
    addresses = (
        "Addresses and arguments are omitted, because they are write-only on this portal."
        if hides
        else (
            "Addresses and arguments are included unless they look like secrets. Do not put"
            " secrets in them."
        )
    )
    return (
        f"# The MCP servers of {public_url}, without values of headers, environment and global"
        f" variables, credentials and keys.\n# {addresses}\n"
    )


def _entry(session: Session, row: Server, groups: list[str], *, hides: bool) -> dict[str, Any]:
    definition = opened(session, row)
    entry: dict[str, Any] = {"transport": row.transport}
    if row.alias and row.alias != row.server_name:
        entry["alias"] = row.alias
    entry |= {name: getattr(row, name) for name in _PLAIN if getattr(row, name)}
    entry |= {name: list(getattr(row, name)) for name in _LISTS if getattr(row, name)}
    if row.is_byok:
        entry["is_byok"] = True
    if row.allow_all_keys:
        entry["allow_all_keys"] = True
    if not row.available_on_public_internet:
        entry["available_on_public_internet"] = False
    if groups:
        entry["mcp_access_groups"] = groups
    return entry | ({} if hides else _connection(definition)) | _names(row, definition, hides=hides)


def _connection(definition: Definition) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("url", "spec_path"):
        url = definition.urls.get(name)
        if url and not looks_secret("", url) and "?" not in url:
            found[name] = url
    if definition.args and not any(looks_secret("", part) for part in definition.args):
        found["args"] = list(definition.args)
    return found


def _names(row: Server, definition: Definition, *, hides: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if definition.static_headers:
        found["static_headers"] = {
            name: value if holds_only_references(value) and not hides else None
            for name, value in definition.static_headers.items()
        }
    if definition.env:
        found["env"] = dict.fromkeys(definition.env)
    if row.variables:
        found["env_vars"] = [
            {
                "name": v.name,
                "scope": v.scope,
                **({"description": v.description} if v.description else {}),
            }
            for v in row.variables
        ]
    return found
