"""The public registry: what strangers may know of publicly listed servers, and nothing else.

It has two formats: LiteLLM's `registry.json`, and the official registry API `v0.1` with
`server.json` of 2025-12-11.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Row, Select, func, literal, or_, select, tuple_, update
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import NotFound
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.instance_settings import load_preferences
from portal.services.runtime import runtime_of
from portal.services.servers import queries
from portal.store.models import Server, now

SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
MOST_ENTRIES = 100
HUB_PAGE = 48
_MOST_DESCRIPTION = 100
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_ENTRY_NAME = func.coalesce(Server.alias, Server.server_name, Server.server_id)
_COLUMNS = (
    _ENTRY_NAME.label("entry"),
    Server.server_id,
    Server.sort_key,
    Server.server_name,
    Server.description,
    Server.transport,
    Server.version,
    Server.created_at,
    Server.updated_at,
)


@dataclass(frozen=True)
class RegistryEntry:
    """A listed server: its `server.json`, and its creation and change times (UTC)."""

    server: dict[str, Any]
    published_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class EntryPage:
    """One page of the registry; `next_cursor` is None on the last page."""

    entries: tuple[RegistryEntry, ...]
    next_cursor: tuple[str, str] | None


@dataclass(frozen=True)
class HubCard:
    """A listed server as strangers see it on the hub."""

    name: str
    description: str | None
    transport: str


@dataclass(frozen=True)
class HubPage:
    """One page of the hub; `next_cursor` is None on the last page."""

    cards: tuple[HubCard, ...]
    next_cursor: tuple[str, str] | None


def describe_gateway(session: Session) -> list[dict[str, Any]]:
    """Return the entries of `registry.json`: the portal's own, then the listed servers by name."""
    _require_enabled(session)
    base = runtime_of(session).gateway_url
    own = _plain_entry(
        "mcp-portal",
        "MCP Portal",
        "All MCP servers of this portal under one address",
        f"{base}/mcp",
    )
    rows = session.execute(
        select(*_COLUMNS).where(authz.public_servers()).order_by(Server.sort_key, Server.server_id)
    )
    return [own, *(_plain(row, base) for row in rows if _NAME.fullmatch(row.entry))]


def list_entries(
    session: Session,
    *,
    limit: int,
    after: tuple[str, str] | None = None,
    search: str = "",
    updated_since: datetime | None = None,
    version: str = "",
) -> EntryPage:
    """Return a page of up to `limit` (1 to 100) listed servers, by name.

    `search` is part of a name or description, `version` is `latest` or an exact one. Raises
    `NotFound` while the registry is disabled.
    """
    _require_enabled(session)
    query = select(*_COLUMNS).where(authz.public_servers())
    if search.strip():
        query = query.where(_holds(session, search.strip()))
    if updated_since is not None:
        query = query.where(Server.updated_at >= updated_since)
    if version not in ("", "latest"):
        query = query.where(Server.version == _number_of(version))
    rows, cursor = _page(session, query, min(limit, MOST_ENTRIES), after)
    return EntryPage(_entries(session, rows), cursor)


def get_listed(session: Session, name: str, version: str = "latest") -> RegistryEntry:
    """Return one listed server by its full name. Raises `NotFound`.

    A server has only one version, the current one.
    """
    _require_enabled(session)
    space, _, short = name.rpartition("/")
    query = select(*_COLUMNS).where(authz.public_servers(), _ENTRY_NAME.in_([short]))
    row = (
        session.execute(query.order_by(Server.server_id).limit(1)).first()
        if space == namespace(session)
        else None
    )
    found = _entries(session, [row]) if row is not None else ()
    if not found or version not in ("latest", found[0].server["version"]):
        raise NotFound("Server or version not found in the registry.")
    return found[0]


def get_hub(session: Session, *, search: str = "", after: tuple[str, str] | None = None) -> HubPage:
    """Return a page of the hub. Raises `NotFound` while the registry is disabled."""
    _require_enabled(session)
    query = select(*_COLUMNS).where(authz.public_servers())
    if search.strip():
        query = query.where(_holds(session, search.strip()))
    rows, cursor = _page(session, query, HUB_PAGE, after)
    return HubPage(
        tuple(
            HubCard(row.server_name or row.entry, row.description, row.transport) for row in rows
        ),
        cursor,
    )


def set_listed(session: Session, principal: Principal, server_id: str, listed: bool) -> str:
    """Add a server to the public list, or remove it, and return its name."""
    authz.require(principal, Action.PREFERENCE_MANAGE)
    row = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT, lock=True).row
    name = row.server_name or row.alias or row.server_id
    if row.is_public != listed:
        session.execute(
            update(Server)
            .where(Server.server_id == row.server_id)
            .values(is_public=listed, updated_at=now())
        )
        what = "server listed publicly" if listed else "server taken off the public list"
        audit.record(session, principal, what, "server", row.server_id, name=name)
        session.flush()
    return name


def server_json(session: Session, row: Any) -> dict[str, Any]:
    """Return a server's `server.json` (2025-12-11); its only remote is the gateway."""
    return {
        "$schema": SCHEMA,
        "name": f"{namespace(session)}/{row.entry}",
        "title": row.server_name or row.entry,
        "description": _described(row),
        "version": f"1.0.{row.version}",
        "remotes": [
            {"type": "streamable-http", "url": f"{runtime_of(session).gateway_url}/{row.entry}/mcp"}
        ],
    }


def list_server_json(session: Session, principal: Principal) -> list[dict[str, Any]]:
    """Return the `server.json` of every active server, listed or not, for an Admin's export."""
    authz.require(principal, Action.SERVER_CREATE)
    query = (
        select(*_COLUMNS)
        .where(authz.visible_servers(principal))
        .order_by(Server.sort_key, Server.server_id)
    )
    return [
        server_json(session, row) for row in session.execute(query) if _NAME.fullmatch(row.entry)
    ]


def namespace(session: Session) -> str:
    """Return the portal's reverse-DNS namespace: `com.example.portal` for portal.example.com.

    An IP address or a name without a dot is not a domain, so it goes under `local`.
    """
    host = urlsplit(runtime_of(session).public_url).hostname or "portal"
    try:
        ipaddress.ip_address(host)
        is_domain = False
    except ValueError:
        is_domain = "." in host
    return (
        ".".join(reversed(host.split(".")))
        if is_domain
        else "local." + re.sub(r"[^A-Za-z0-9]+", "-", host).strip("-")
    )


def _require_enabled(session: Session) -> None:
    if not load_preferences(session).enable_mcp_registry:
        raise NotFound("The MCP registry is not enabled on this portal.")


def _page(
    session: Session, query: Select[*tuple[Any, ...]], limit: int, after: tuple[str, str] | None
) -> tuple[Sequence[Row[Any]], tuple[str, str] | None]:
    if after is not None:
        query = query.where(tuple_(Server.sort_key, Server.server_id) > after)
    rows = session.execute(query.order_by(Server.sort_key, Server.server_id).limit(limit + 1)).all()
    page = rows[:limit]
    return page, (page[-1].sort_key, page[-1].server_id) if len(rows) > limit else None


def _holds(session: Session, text: str) -> ColumnElement[bool]:
    full_name = literal(namespace(session) + "/").concat(_ENTRY_NAME)
    return or_(
        *(
            func.lower(column).contains(text.lower(), autoescape=True)
            for column in (full_name, Server.server_name, Server.description)
        )
    )


def _number_of(version: str) -> int:
    found = re.fullmatch(r"1\.0\.([0-9]{1,9})", version, re.ASCII)
    return int(found[1]) if found else 0


def _entries(session: Session, rows: Sequence[Any]) -> tuple[RegistryEntry, ...]:
    # An id may contain characters that registry names may not; such servers are left out.
    return tuple(
        RegistryEntry(server_json(session, row), row.created_at, row.updated_at)
        for row in rows
        if _NAME.fullmatch(row.entry)
    )


def _described(row: Any) -> str:
    text = (
        " ".join((row.description or "").split())
        or f"The MCP server {row.server_name or row.entry}"
    )
    return text if len(text) <= _MOST_DESCRIPTION else text[: _MOST_DESCRIPTION - 1].rstrip() + "…"


def _plain(row: Any, base: str) -> dict[str, Any]:
    return _plain_entry(
        row.entry, row.server_name or row.entry, _described(row), f"{base}/{row.entry}/mcp"
    )


def _plain_entry(name: str, title: str, description: str, url: str) -> dict[str, Any]:
    remotes = [{"type": "streamable-http", "url": url}]
    return {
        "server": {
            "name": name,
            "title": title,
            "description": description,
            "version": "1.0.0",
            "remotes": remotes,
        }
    }
