"""The picker of services with an OpenAPI document, and the look into any document before it is
added."""

import re

from flask import Blueprint, Response, g, request

from portal.domain.errors import InvalidInput
from portal.domain.openapi.limits import MAX_OPERATIONS
from portal.services.catalog import openapi
from portal.services.catalog.openapi import Preview
from portal.web.context import reads_only
from portal.web.forms.openapi import DocumentForm
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.rendering import page

bp = Blueprint("openapi", __name__, url_prefix="/servers")


@bp.get("/openapi")
def index() -> Response:
    """Cards of well-known APIs; the search is in the address."""
    return _page(DocumentForm(), None)


@bp.post("/openapi")
@limiter.limit(TRY_UPSTREAM)
@reads_only
def preview() -> Response:
    """The tools that a document yields; nothing is saved."""
    form = DocumentForm()
    found = None
    openapi.list_apis(
        g.session, g.principal
    )  # who may not see the page is told so, whatever was sent
    if form.sent():
        with form.showing_errors():
            found = _look(form)
    return _page(form, found)


def _look(form: DocumentForm) -> Preview:
    upload = form.file.data
    if not upload or not upload.filename:
        return openapi.preview_url(g.session, g.principal, form.spec_url.data or "")
    content = upload.stream.read(openapi.MOST_BYTES + 1)
    if len(content) > openapi.MOST_BYTES:
        raise InvalidInput("The document is larger than 5 MB. Use a smaller one.", field="file")
    return openapi.preview_file(g.session, g.principal, content)


def _page(form: DocumentForm, found: Preview | None) -> Response:
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
