"""Well-known MCP servers and APIs with an OpenAPI document, in LiteLLM's format."""

from flask import Blueprint, Response, g, request

from portal.authorization import Action
from portal.services.catalog import discover as catalog
from portal.services.catalog import openapi
from portal.services.catalog.discover import Catalog
from portal.web.api.answer_shapes import Apis
from portal.web.api.answers import answer, to_json
from portal.web.api.guarding import guard
from portal.web.documented import Query, documented

bp = Blueprint("api_catalog", __name__, url_prefix="/v1/mcp")
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
    found = catalog.list_catalog(
        g.session,
        g.principal,
        query=request.args.get("query", ""),
        category=request.args.get("category", ""),
    )
    return answer(
        {"servers": [to_json(entry) for entry in found.servers], "categories": found.categories}
    )


@bp.get("/openapi-registry")
@documented(Apis)
def openapi_registry() -> Response:
    """List well-known APIs with their OAuth details and key tools."""
    return answer({"apis": [to_json(entry) for entry in openapi.list_apis(g.session, g.principal)]})
