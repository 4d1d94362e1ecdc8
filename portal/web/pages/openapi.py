"""The catalog of services with an OpenAPI document, and the preview of any document."""

import re

from flask import Blueprint, Response, g, request

from portal.domain.errors import InvalidInput
from portal.domain.openapi.limits import MAX_OPERATIONS
from portal.services.catalog import openapi
from portal.services.catalog.openapi import DocumentPreview
from portal.web.context import reads_only
from portal.web.forms.openapi import DocumentForm
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.rendering import page

bp = Blueprint("openapi", __name__, url_prefix="/servers")


@bp.get("/openapi")
def index() -> Response:
    """List well-known APIs. The search is in the URL."""
    return _page(DocumentForm(), None)


@bp.post("/openapi")
@limiter.limit(TRY_UPSTREAM)
@reads_only
def preview() -> Response:
    """Preview the tools of a document. Nothing is saved."""
    form = DocumentForm()
    found = None
    openapi.list_apis(g.session, g.principal)  # raises `Forbidden` before the input is checked
    if form.sent():
        with form.showing_errors():
            found = _look(form)
    return _page(form, found)


def _look(form: DocumentForm) -> DocumentPreview:
    upload = form.file.data
    if not upload or not upload.filename:
        return openapi.preview_url(g.session, g.principal, form.spec_url.data or "")
    content = upload.stream.read(openapi.MOST_BYTES + 1)
    if len(content) > openapi.MOST_BYTES:
        raise InvalidInput(
            "The document is larger than 5 MB. Use a smaller document.", field="file"
        )
    return openapi.preview_file(g.session, g.principal, content)


def _page(form: DocumentForm, found: DocumentPreview | None) -> Response:
    query = request.args.get("q", "")[:200]
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", found.title if found else "").strip("_.")[:64]
    return page(
        "openapi/index.html",
        fragment="preview" if request.method == "POST" else "results",
        status=form.status,
        nav="openapi",
        form=form,
        found=found,
        suggested_name=name,
        query=query,
        most_operations=MAX_OPERATIONS,
        apis=openapi.list_apis(g.session, g.principal, query=query),
        any_apis=bool(openapi.list_apis(g.session, g.principal)),
    )
