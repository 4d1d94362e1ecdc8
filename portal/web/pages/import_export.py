"""Import and export of the catalog.

The imported document stays on the server during the preview; the page shows only names.
"""

from typing import Any

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.enforcement import zipped
from portal.domain.errors import InvalidInput, NotFound, TooLarge
from portal.services.catalog import enforcement as enforcing
from portal.services.catalog import exports, imports
from portal.services.catalog.import_documents import MOST_BYTES
from portal.services.catalog.import_plan import Plan, State
from portal.services.catalog.imports import Choices, ImportResult
from portal.web.forms.import_export import ExportForm, ImportForm
from portal.web.rendering import page, plural, see_other

bp = Blueprint("import_export", __name__, url_prefix="/servers")
_FATES = ("type", "keep", "forget")
_SHARES = (("global", "Same value for everyone"), ("user", "Each user’s own value"))


@bp.route("/import", methods=["GET", "POST"])
def begin() -> Response:
    """Paste or upload a document."""
    authz.require(g.principal, Action.SERVER_CREATE)
    form = ImportForm()
    if form.sent():
        try:
            imports.keep_document(g.session, g.principal, _text(form))
            return see_other(url_for("import_export.preview"))
        except (InvalidInput, TooLarge) as error:
            form.text.errors = [*form.text.errors, error.message]
    form.text.data = ""  # a pasted document may contain secrets, which no page sends back
    return page("import_export/begin.html", nav="servers", form=form, status=form.status)


@bp.route("/import/preview", methods=["GET", "POST"])
def preview() -> Response:
    """Preview the import, then run it."""
    authz.require(g.principal, Action.SERVER_CREATE)
    try:
        plan = imports.plan_import(g.session, g.principal)
    except NotFound as error:
        flash(error.message, "info")
        return see_other(url_for("import_export.begin"))
    errors: dict[str, list[str]] = {}
    if request.method == "POST":
        choices = _choices(plan)
        if unknown := _unknown(plan):
            errors["plan"] = [
                f"“{unknown[:40]}” is not a valid choice. Choose again. Nothing was imported."
            ]
        elif not choices.numbers:
            errors["plan"] = ["Select at least one server."]
        else:
            outcome = imports.import_kept(g.session, g.principal, choices)
            if not outcome.errors:
                flash(f"{plural(len(outcome.imported), 'server')} imported.", "success")
                return see_other(url_for("grid.index", sort="changed"))
            errors = _told(plan, outcome)
    return page(
        "import_export/preview.html",
        nav="servers",
        plan=plan,
        errors=errors,
        shares=_SHARES,
        taken=_taken(plan),
        chosen=_chosen_shares(plan),
        status=422 if errors else 200,
    )


@bp.post("/import/cancel")
def cancel() -> Response:
    """Discard the document."""
    imports.drop_document(g.session, g.principal)
    flash("Import canceled. Nothing was imported.", "info")
    return see_other(url_for("grid.index"))


@bp.route("/export", methods=["GET", "POST"])
def export() -> Response:
    """Export the catalog as a file, without secrets."""
    authz.require(g.principal, Action.SERVER_CREATE)
    form = ExportForm()
    hides = exports.hides_addresses(g.session, g.principal)
    if form.sent():
        name = form.format.data
        text = exports.export_catalog(g.session, g.principal, name)
        exports.record_export(g.session, g.principal, name)
        attachment = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(text, mimetype=exports.FORMATS[name], headers=attachment)
    return page(
        "import_export/export.html", nav="servers", form=form, hides=hides, status=form.status
    )


@bp.route("/export/enforcement", methods=["GET", "POST"])
def enforcement() -> Response:
    """Show the files that restrict clients to the catalog, or download them as a ZIP archive."""
    pack = enforcing.make_pack(g.session, g.principal)
    if request.method == "POST":
        exports.record_export(g.session, g.principal, "enforcement pack")
        attachment = {"Content-Disposition": 'attachment; filename="mcp-enforcement.zip"'}
        return Response(zipped(pack.files), mimetype="application/zip", headers=attachment)
    return page(
        "import_export/enforcement.html",
        nav="servers",
        pack=pack,
        is_outside=not g.principal.is_internal,
    )


def _text(form: ImportForm) -> str:
    upload = form.file.data
    if not upload or not upload.filename:
        return form.text.data or ""
    content: bytes = upload.stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise TooLarge("The document is larger than 256 KB. Split it.", field="text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput("The file is not UTF-8 text.", field="text") from None


def _choices(plan: Plan) -> Choices:
    shares = {
        (row.number, number): imports.SHARES[chosen]
        for row in plan.rows
        for number in range(len(row.secrets))
        if (chosen := request.form.get(f"share-{row.number}-{number}", "")) in imports.SHARES
    }
    said = {
        row.number: request.form.get(f"keep-{row.number}", "") for row in plan.rows if row.moves
    }
    keep = {number: word == "keep" for number, word in said.items() if word in ("keep", "forget")}
    typed = {
        row.number: {
            secret: value
            for number, secret in enumerate(row.typeable)
            if (value := request.form.get(f"new-{row.number}-{number}", ""))
        }
        for row in plan.rows
        if said.get(row.number) == "type"
    }
    return Choices(frozenset(_taken(plan)), shares, imports.SHARES["global"], keep, typed=typed)


def _told(plan: Plan, outcome: ImportResult) -> dict[str, list[str]]:
    """Return the errors of an import by form field, at the choice that resolves each."""
    choices = {(row.name, row.line): f"keep-{row.number}" for row in plan.rows if row.moves}
    errors: dict[str, list[str]] = {}
    for name, line, why in outcome.errors:
        at = choices.get((name, line), "plan")
        # The rest is for API clients.
        said = why.split(" Send new values")[0] if at != "plan" else why
        errors.setdefault(at, []).append(f"{name}, line {line}: {said}")
    errors.setdefault("plan", []).append("Nothing was imported.")
    return errors


def _unknown(plan: Plan) -> str:
    """Return the first submitted value that is not a valid choice, or an empty string."""
    known = {
        **{
            f"share-{row.number}-{n}": imports.SHARES.keys()
            for row in plan.rows
            for n in range(len(row.secrets))
        },
        **{f"keep-{row.number}": _FATES for row in plan.rows},
    }
    return next(
        (w for name, w in request.form.items() if w and name in known and w not in known[name]), ""
    )


def _taken(plan: Plan) -> set[int]:
    """Return the numbers of the selected rows; at first, every new server."""
    if request.method != "POST":
        return {row.number for row in plan.rows if row.state is State.NEW}
    ticked = set(request.form.getlist("take"))
    possible = (State.NEW, State.CHANGED)
    return {row.number for row in plan.rows if row.state in possible and str(row.number) in ticked}


def _chosen_shares(plan: Plan) -> dict[str, Any]:
    names = [
        f"share-{row.number}-{number}" for row in plan.rows for number in range(len(row.secrets))
    ]
    said = {
        f"keep-{row.number}": request.form.get(f"keep-{row.number}", "")
        for row in plan.rows
        if row.moves
    }
    return {name: request.form.get(name, "global") for name in names} | said
