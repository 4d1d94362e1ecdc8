"""Well-known MCP servers, in LiteLLM's format."""

from flask import Blueprint, Response, g, request

from portal.authorization import Action
from portal.services.catalog.discover import Catalog, list_catalog
from portal.web.api.answers import answer, to_json
from portal.web.api.guarding import guard
from portal.web.documented import Query, documented

bp = Blueprint("api_discover", __name__, url_prefix="/v1/mcp")
guard(bp, read=Action.CATALOG_READ, write=Action.CATALOG_READ)


@bp.get("/discover")
@documented(
    Catalog,
    query=(
        Query("query", "Part of the name, title or description."),
        Query("category", "Exact category."),
    ),
)
def discover() -> Response:
    """List well-known MCP servers that match the filters, and all categories."""
    found = list_catalog(
        g.session,
        g.principal,
        query=request.args.get("query", ""),
        category=request.args.get("category", ""),
    )
    return answer(
        {"servers": [to_json(entry) for entry in found.servers], "categories": found.categories}
    )
