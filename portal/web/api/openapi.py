"""Well-known APIs with an OpenAPI document, in LiteLLM's format."""

from flask import Blueprint, Response, g

from portal.authorization import Action
from portal.services.catalog import openapi
from portal.web.api.answer_shapes import Apis
from portal.web.api.answers import answer, to_json
from portal.web.api.guarding import guard
from portal.web.documented import documented

bp = Blueprint("api_openapi", __name__, url_prefix="/v1/mcp")
guard(bp, read=Action.CATALOG_READ, write=Action.CATALOG_READ)


@bp.get("/openapi-registry")
@documented(Apis)
def openapi_registry() -> Response:
    """List well-known APIs with their OAuth details and key tools."""
    return answer({"apis": [to_json(entry) for entry in openapi.list_apis(g.session, g.principal)]})
