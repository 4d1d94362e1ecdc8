"""The API documentation: a list of operations, and a page for each."""

from itertools import groupby
from operator import attrgetter

from flask import Blueprint, Response, current_app, request

from portal.domain.errors import NotFound
from portal.web.openapi import document
from portal.web.openapi_reading import Operation, read_operations
from portal.web.rendering import page

bp = Blueprint("api_docs", __name__, url_prefix="/docs/api")


@bp.get("")
def index() -> Response:
    """List the operations by tag, or those that contain every word of `?q=`."""
    q = request.args.get("q", "").strip()[:200]
    found = [operation for operation in _operations().values() if operation.matches(q)]
    about = {tag["name"]: tag["description"] for tag in document(current_app)["tags"]}
    tags = [(tag, about[tag], tuple(group)) for tag, group in groupby(found, key=attrgetter("tag"))]
    return page(
        "api_docs/index.html", fragment="results", nav="api_docs", tags=tags, count=len(found), q=q
    )


@bp.get("/<operation_id>")
def operation(operation_id: str) -> Response:
    """Show one operation: its request, parameters and responses."""
    found = _operations().get(operation_id)
    if found is None:
        raise NotFound("API operation not found.")
    return page("api_docs/operation.html", nav="api_docs", operation=found)


def _operations() -> dict[str, Operation]:
    known: dict[str, Operation] | None = current_app.extensions.get("openapi_operations")
    if known is None:
        known = current_app.extensions["openapi_operations"] = read_operations(
            document(current_app)
        )
    return known
