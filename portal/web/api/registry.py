"""The public registry: LiteLLM's `registry.json` and the official registry API v0.1.

Browser clients on any site read it without credentials, so only these routes send CORS headers.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, cast

from flask import Blueprint, Response, g, request
from pydantic import Field

from portal.domain.errors import InvalidInput
from portal.services.catalog import registry
from portal.services.catalog.registry import RegistryEntry
from portal.web.api.answer_shapes import Gateway, RegistryList, RegistryServer
from portal.web.api.answers import fresh
from portal.web.api.payloads import cursor_of, cursor_text, limit_of
from portal.web.documented import CURSOR, Query, documented

bp = Blueprint("api_registry", __name__)
_USUAL = 30
_OFFICIAL = "io.modelcontextprotocol.registry/official"


@bp.after_request
def _readable_from_anywhere(response: Response) -> Response:
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Allow-Methods"] = "GET, OPTIONS"
    response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
    return response


@bp.get("/v1/mcp/registry.json")
@documented(Gateway, also=(304, 404))
def gateway() -> Response:
    """List the portal itself and all listed servers by name, in LiteLLM's format."""
    return fresh({"servers": registry.describe_gateway(g.session)})


@bp.get("/v0.1/servers")
@documented(
    RegistryList,
    also=(304, 404),
    query=(
        Query(
            "limit",
            "Maximum number of items, 1 to 100.",
            Annotated[int, Field(ge=1, le=registry.MOST_ENTRIES)],
        ),
        CURSOR,
        Query("search", "Part of the name or description."),
        Query("updated_since", "Only entries changed since this time.", datetime),
        Query("version", "`latest`, or an exact version."),
    ),
)
def list_entries() -> Response:
    """List the servers of the registry."""
    page = registry.list_entries(
        g.session,
        limit=limit_of(usual=_USUAL, most=registry.MOST_ENTRIES) or _USUAL,
        after=cast(tuple[str, str] | None, cursor_of(2)),
        search=request.args.get("search", "")[:200],
        updated_since=_updated_since(),
        version=request.args.get("version", "")[:64],
    )
    return fresh(_listed(page.entries, cursor_text(page.next_cursor) if page.next_cursor else None))


@bp.get("/v0.1/servers/<path:name>/versions")
@documented(RegistryList, also=(304,))
def list_versions(name: str) -> Response:
    """List the versions of a server, which is only the current one."""
    return fresh(_listed((registry.get_listed(g.session, name),), None))


@bp.get("/v0.1/servers/<path:name>/versions/<version>")
@documented(RegistryServer, also=(304,))
def get_version(name: str, version: str) -> Response:
    """Get a version of a server, or `latest`."""
    return fresh(_wrapped(registry.get_listed(g.session, name, version)))


def _listed(entries: tuple[RegistryEntry, ...], cursor: str | None) -> dict[str, Any]:
    metadata = {"count": len(entries), **({"nextCursor": cursor} if cursor else {})}
    return {"servers": [_wrapped(entry) for entry in entries], "metadata": metadata}


def _wrapped(entry: RegistryEntry) -> dict[str, Any]:
    official = {
        "status": "active",
        "publishedAt": entry.published_at,
        "updatedAt": entry.updated_at,
        "statusChangedAt": entry.published_at,
        "isLatest": True,
    }
    return {"server": entry.server, "_meta": {_OFFICIAL: official}}


def _updated_since() -> datetime | None:
    text = request.args.get("updated_since")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            "Enter the time as 2026-12-31T23:59:59Z.", field="updated_since"
        ) from None
