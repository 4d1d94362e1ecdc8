"""The list of well-known MCP servers, as LiteLLM has it."""

from flask import Blueprint, Response, g, request

from portal.authorization import Action
from portal.services import catalog
from portal.web.api.answers import answer, to_json
from portal.web.api.guarding import guard

bp = Blueprint("api_catalog", __name__, url_prefix="/v1/mcp")
guard(bp, read=Action.CATALOG_READ, write=Action.CATALOG_READ)


@bp.get("/discover")
def discover() -> Response:
    """The entries that `?query=` and `?category=` leave, and the categories of all."""
    found = catalog.list_catalog(
        g.session, g.principal, query=request.args.get("query", ""), category=request.args.get("category", "")
    )
    return answer({"servers": [to_json(entry) for entry in found.servers], "categories": found.categories})
