"""Submissions: propose a server, and list the user's own submissions."""

from typing import Any

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Conflict
from portal.domain.submissions import REQUIRABLE
from portal.services.servers.stored import Stored
from portal.services.submissions import submit
from portal.web.context import reads_only
from portal.web.forms.submissions import SubmissionForm
from portal.web.pages.servers.form import (
    add_row,
    changed_fields,
    form_context,
    typed_before,
    with_picture,
)
from portal.web.rendering import page, see_other

bp = Blueprint("submissions", __name__, url_prefix="/submissions")
_ROWS = {"static_headers": "headers", "env_vars": "variables"}


@bp.get("/mine")
def mine() -> Response:
    """List the user's own submissions with the reviewers' notes."""
    return page(
        "submissions/mine.html",
        nav="submissions",
        submissions=submit.list_own_submissions(g.session, g.principal),
    )


@bp.route("/new", methods=["GET", "POST"])
def create() -> Response:
    """Propose a server."""
    authz.require(g.principal, Action.SUBMISSION_MAKE)
    form = _form(None)
    if "save" in request.form and form.sent():
        with form.showing_errors():
            team_id = form.team_id.data or None
            server = submit.submit(
                g.session, g.principal, dict(with_picture(form, None)), team_id=team_id
            )
            flash(f"{server.server_name} submitted. Its review status appears here.", "success")
            return see_other(url_for("submissions.mine"))
    return _page(form, None)


@bp.route("/<server_id>/edit", methods=["GET", "POST"])
def edit(server_id: str) -> Response:
    """Change the user's own submission and submit it again. Only changed fields are sent."""
    own, stored = submit.get_own_submission(g.session, g.principal, server_id)
    form = _form(stored)
    conflict = None
    if "save" in request.form and form.sent():
        with form.showing_errors():
            try:
                changes = changed_fields(with_picture(form, stored), stored)
                submit.resubmit(g.session, g.principal, server_id, dict(changes))
            except Conflict as error:
                if error.code != "stale_version":
                    raise
                conflict = error.message
                form.version.data = stored.view.version
            else:
                live = own.view.approval_status == "active"
                waiting = "Change submitted for review. The live server stays as it is until then."
                flash(waiting if live else "Submitted again.", "success")
                return see_other(url_for("submissions.mine"))
    return _page(form, stored, own=own, conflict=conflict)


@bp.post("/checks")
@reads_only
def checks() -> Response:
    """Show the checklist of required fields for the current form input."""
    form = _form(None)
    required = submit.list_required(g.session, g.principal, _typed(form))
    return page("submissions/checks.html", fragment="checks", nav="submissions", checks=required)


def _form(stored: Stored | None) -> SubmissionForm:
    form = SubmissionForm(
        data=typed_before(stored) if stored else {"available_on_public_internet": True}
    )
    teams = submit.list_submitter_teams(g.session, g.principal)
    form.offer_to_member(teams=teams, has_document=bool(stored and stored.view.spec_path))
    add_row(form)
    return form


def _typed(form: SubmissionForm) -> dict[str, Any]:
    """Return the form values of the fields that can be required. Of rows, only names."""
    typed: dict[str, Any] = {name: form[name].data for name in REQUIRABLE if name in form}
    typed["url"] = form.base_url.data if form.transport.data == "openapi" else form.url.data
    for name, rows in _ROWS.items():
        typed[name] = [row.form["name"].data for row in form[rows] if row.form["name"].data]
    typed["credentials"] = form.auth_value.data or form.client_id.data or None
    return typed


def _page(form: SubmissionForm, stored: Stored | None, **context: Any) -> Response:
    typed = _typed(form)
    if stored is not None:
        typed |= {name: typed.get(name) or "set" for name in stored.origins}
    conflict = context.get("conflict")
    return page(
        "submissions/edit.html",
        fragment="form",
        status=409 if conflict else form.status,
        nav="submissions",
        checks=submit.list_required(g.session, g.principal, typed),
        has_team=bool(form.team_id.choices),
        **form_context(form, stored),
        **context,
    )
