"""The description of this API as OpenAPI 3.1."""

from typing import Any

from flask import Blueprint, Response, current_app

from portal.web.api.answers import fresh
from portal.web.documented import documented
from portal.web.openapi import document

bp = Blueprint("api_document", __name__, url_prefix="/v1")


@bp.get("/openapi.json")
@documented(dict[str, Any], also=(304,))
def get_document() -> Response:
    """Get the OpenAPI 3.1 document of this API."""
    return fresh(document(current_app))
