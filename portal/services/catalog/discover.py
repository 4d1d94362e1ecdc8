"""The built-in list of well-known MCP servers, and which of them are already in the catalog.

The list is a file of the package, read once. If it is missing or broken, the list is empty and the
error is logged once; adding servers manually still works.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, selectinload

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import PortalError
from portal.domain.principals import Principal
from portal.domain.servers import AuthType, Transport, check_definition, origin_of
from portal.services.runtime import runtime_of
from portal.services.secrets.server_definition import opened
from portal.store.models import Server

log = logging.getLogger("portal.catalog")
FILE = Path(__file__).parents[2] / "data" / "mcp_servers.json"
_MOST_CANDIDATES = 500


@dataclass(frozen=True)
class NeededValue:
    """A value that the server needs: its name there, what it is, and whether it is secret."""

    name: str
    description: str
    secret: bool


@dataclass(frozen=True)
class CatalogEntry:
    """A well-known server, with a `url` on the network or a `command` that runs on the host."""

    name: str
    title: str
    description: str
    category: str
    transport: Transport
    url: str | None
    command: str | None
    args: tuple[str, ...]
    auth_type: AuthType
    env_vars: tuple[NeededValue, ...]
    docs_url: str
    note: str | None


@dataclass(frozen=True)
class Catalog:
    """The matching entries, and the categories of the whole list."""

    servers: tuple[CatalogEntry, ...]
    categories: tuple[str, ...]


@dataclass(frozen=True)
class Added:
    """A server of the catalog that matches an entry."""

    server_id: str
    name: str


def list_catalog(
    session: Session,
    principal: Principal,
    *,
    query: str = "",
    category: str = "",
    transport: str = "",
) -> Catalog:
    """Return the entries with `query` in their name, title or description.

    `category` and `transport` filter exactly, if given. The categories are those of the whole list.
    """
    authz.require(principal, Action.CATALOG_READ)
    everything = _read_entries(FILE)
    words = query.strip().casefold()
    found = (
        entry
        for entry in everything
        if words in f"{entry.name}\n{entry.title}\n{entry.description}".casefold()
        and category in ("", entry.category)
        and transport in ("", entry.transport)
    )
    return Catalog(tuple(found), tuple(sorted({entry.category for entry in everything})))


def get_entry(session: Session, principal: Principal, name: str) -> CatalogEntry | None:
    """Return the entry with this name, or None."""
    authz.require(principal, Action.CATALOG_READ)
    return next((entry for entry in _read_entries(FILE) if entry.name == name), None)


def why_not(session: Session, principal: Principal, entry: CatalogEntry) -> str:
    """Return why this portal cannot add a server like the entry; blank if it can."""
    authz.require(principal, Action.CATALOG_READ)
    runtime = runtime_of(session)
    if entry.transport is Transport.STDIO and not runtime.stdio_enabled:
        return "This portal does not run commands: PORTAL_ENABLE_STDIO is off."
    try:
        check_definition(
            transport=entry.transport,
            url=entry.url,
            spec_path=None,
            command=entry.command,
            has_args=True,
            stdio_enabled=runtime.stdio_enabled,
            stdio_commands=runtime.stdio_commands,
            no_sandbox=runtime.sandbox.refusal,
        )
    except PortalError as error:
        return error.message
    return ""


def find_added(
    session: Session, principal: Principal, entries: Sequence[CatalogEntry]
) -> dict[str, Added]:
    """Return the active servers that match entries, by entry name.

    They match by address, or by command and arguments. Reads up to 500 servers with the host or the
    command of an entry, in a fixed number of queries. Addresses and arguments are unsealed for the
    comparison, and not shown.
    """
    authz.require(principal, Action.CATALOG_READ)
    origins = {origin_of(entry.url) for entry in entries if entry.url}
    commands = {entry.command for entry in entries if entry.command}
    query = select(Server).where(
        authz.visible_servers(principal),
        or_(Server.address.in_(origins), Server.command.in_(commands)),
    )
    query = query.order_by(Server.sort_key, Server.server_id).limit(_MOST_CANDIDATES)
    found: dict[str, Added] = {}
    for row in session.scalars(
        query.options(selectinload(Server.secrets), selectinload(Server.variables))
    ):
        definition = opened(session, row)
        for entry in entries:
            if entry.name not in found and _is_same(
                entry, row, definition.urls.get("url"), definition.args
            ):
                found[entry.name] = Added(
                    row.server_id, row.server_name or row.alias or row.server_id
                )
    return found


@lru_cache(maxsize=8)
def _read_entries(file: Path) -> tuple[CatalogEntry, ...]:
    """Return the entries of a file; none if it is missing or invalid, which is logged."""
    try:
        return tuple(
            _entry(found) for found in json.loads(file.read_text(encoding="utf-8"))["servers"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.error(
            "the list of well-known servers cannot be read",
            extra={"file": file.name, "reason": str(error)},
        )
        return ()


def _entry(found: dict[str, Any]) -> CatalogEntry:
    transport = Transport(found["transport"])
    is_program = transport is Transport.STDIO
    return CatalogEntry(
        name=found["name"],
        title=found["title"],
        description=found["description"],
        category=found.get("category", "Other"),
        transport=transport,
        url=None if is_program else found["url"],
        command=found["command"] if is_program else None,
        args=tuple(found["args"]) if is_program else (),
        auth_type=AuthType(found["auth_type"]),
        env_vars=tuple(NeededValue(**needed) for needed in found["env_vars"]),
        docs_url=found["docs_url"],
        note=found.get("note"),
    )


def _is_same(entry: CatalogEntry, row: Server, url: str | None, args: Sequence[str]) -> bool:
    if entry.url is not None:
        return url is not None and url.rstrip("/") == entry.url.rstrip("/")
    return entry.command == row.command and tuple(args[: len(entry.args)]) == entry.args
