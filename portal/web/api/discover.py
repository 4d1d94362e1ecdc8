"""The list of well-known MCP servers, as LiteLLM has it."""

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
        Query("query", "A part of the name, title or description."),
        Query("category", "Exactly this one."),
    ),
)
def discover() -> Response:
    """The entries that `?query=` and `?category=` leave, and the categories of all."""
    found = list_catalog(
        g.session,
        g.principal,
        query=request.args.get("query", ""),
        category=request.args.get("category", ""),
    )
    return answer(
        {"servers": [to_json(entry) for entry in found.servers], "categories": found.categories}
    )
