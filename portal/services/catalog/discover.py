"""The list of well-known MCP servers to pick from: our own file, and which of its entries are in
the catalog already.

The file is part of the package and is read once. Where it is missing or broken the list is empty,
and the log says so once: nobody is kept from adding servers by hand.
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
    """A value that an entry's server asks for: its name there, what it is, and whether it is a
    secret."""

    name: str
    description: str
    secret: bool


@dataclass(frozen=True)
class CatalogEntry:
    """A well-known server. One with a `url` is reached over the network, one with a `command` runs
    on the host."""

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
    """What was asked for, and the categories of the whole list."""

    servers: tuple[CatalogEntry, ...]
    categories: tuple[str, ...]


@dataclass(frozen=True)
class Added:
    """A server of the catalog that is what an entry describes."""

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
    """The entries whose name, title or description holds `query`, of just that category and
    transport if one is named.

    The categories are those of the whole list, whatever is asked for.
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
    """One entry by its name, or None."""
    authz.require(principal, Action.CATALOG_READ)
    return next((entry for entry in _read_entries(FILE) if entry.name == name), None)


def why_not(session: Session, principal: Principal, entry: CatalogEntry) -> str:
    """Why a server like the entry cannot be added in this portal; blank where it can."""
    authz.require(principal, Action.CATALOG_READ)
    runtime = runtime_of(session)
    if entry.transport is Transport.STDIO and not runtime.stdio_enabled:
        return "Programs may not be run on this host: PORTAL_ENABLE_STDIO is off."
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
    """Which entries are there already, by name: active servers of their address, or of their
    command and arguments.

    It looks at up to 500 servers that share a host or a command with an entry, in a number of
    queries that does not grow. Addresses and arguments are opened to be compared, and not shown.
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
    """The entries of a file; none where it is not there or not right, which is logged."""
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
