"""The pages of one server: view, add, edit, test and delete it."""

from typing import Any

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Conflict, Forbidden, PortalError, UpstreamFailure
from portal.domain.servers import is_reserved
from portal.domain.snippets import KEY_VARIABLE
from portal.services.credentials import providers
from portal.services.drafts.sign_in import Draft
from portal.services.servers import crud, grid, inspection, secret_moves
from portal.services.servers.cards import ServerCard
from portal.services.servers.stored import Stored
from portal.services.tools import client_setup
from portal.services.upstreams import connection_test
from portal.web.context import reads_only, settings
from portal.web.forms import logos
from portal.web.forms.prefill import Prefill, prefill_from, prefill_from_preview
from portal.web.forms.servers import NOTHING, ServerForm
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.pages import drafts
from portal.web.pages.servers.form import (
    add_row,
    changed_fields,
    form_context,
    typed_before,
    with_picture,
)
from portal.web.pages.servers.trials import result_of
from portal.web.rendering import is_fragment_request, page, see_other

bp = Blueprint("servers", __name__, url_prefix="/servers")
_MOST_MARK = 1_000  # characters


@bp.get("/<server_id>")
def detail(server_id: str) -> Response:
    """What it is, and what the person needs for it."""
    card = grid.get_card(g.session, g.principal, server_id)
    view = inspection.get_masked(g.session, g.principal, server_id)
    addresses = secret_moves.addresses_among(view.origins or {}, card.address)
    return page(
        "servers/overview.html",
        nav="servers",
        server=card,
        view=view,
        addresses=addresses,
        reserved=[name for name in {card.name, card.alias or card.name} if is_reserved(name)],
    )


@bp.get("/<server_id>/connect")
def connect(server_id: str) -> Response:
    """What to paste into an AI client to reach it."""
    gateway = settings().gateway_url
    connection = client_setup.describe_connection(g.session, g.principal, server_id, gateway)
    card = grid.get_card(g.session, g.principal, server_id)
    return page(
        "servers/connect.html",
        nav="servers",
        server=card,
        connection=connection,
        has_gateway=bool(gateway),
        key_variable=KEY_VARIABLE,
    )


@bp.get("/<server_id>/configuration")
def configuration(server_id: str) -> Response:
    """How it is set up, secrets as set or not set."""
    view = inspection.get_inspected(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    addresses = secret_moves.addresses_among(view.origins or {}, card.address)
    return page(
        "servers/configuration.html", nav="servers", server=card, view=view, addresses=addresses
    )


@bp.get("/<server_id>/access")
def access(server_id: str) -> Response:
    """Who reaches it, and why."""
    view = inspection.get_inspected(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    reach = crud.cut_off(g.session, g.principal, server_id)
    return page("servers/access.html", nav="servers", server=card, view=view, reach=reach)


@bp.get("/<server_id>/credentials")
def users(server_id: str) -> Response:
    """Who has stored something for it; never what."""
    people = inspection.list_holders(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    provider = providers.get_provider(g.session, g.principal, server_id)
    return page("servers/users.html", nav="servers", server=card, people=people, provider=provider)


@bp.post("/<server_id>/reveal")
def reveal(server_id: str) -> Response:
    """Show the values that are stored unencrypted. The request is audited."""
    values = inspection.reveal(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    return page(
        "servers/revealed.html", fragment="revealed", nav="servers", server=card, values=values
    )


@bp.route("/new", methods=["GET", "POST"])
def create() -> Response:
    """Add a server."""
    authz.require(g.principal, Action.SERVER_CREATE)
    source = request.args.get("from", "")[:200]
    picked = prefill_from(source) or prefill_from_preview()
    form, draft = _form(None, picked)
    if "sign_in" in request.form and not drafts.is_over() and form.sent():
        return _signed_in(form, None, draft)
    if "save" in request.form and not drafts.is_over() and form.sent():
        with form.showing_errors():
            server = crud.create_server(g.session, g.principal, with_picture(form, None))
            drafts.adopt(draft, server.server_id, f"{server.server_name} added.")
            return see_other(url_for("servers.detail", server_id=server.server_id))
    kept: dict[str, Any] = {"from": source} if picked and source else {}
    return _page(form, None, draft, picked=picked, form_url=url_for("servers.create", **kept))


@bp.route("/<server_id>/edit", methods=["GET", "POST"])
def edit(server_id: str) -> Response:
    """Change a server. Only changed fields are written."""
    find_card(server_id, Action.SERVER_UPDATE)
    stored = inspection.get_stored(g.session, g.principal, server_id)
    (form, draft), conflict, moving = _form(stored), None, None
    if "sign_in" in request.form and not drafts.is_over() and form.sent():
        return _signed_in(form, stored, draft)
    if "save" in request.form and not drafts.is_over() and form.sent():
        with form.showing_errors():
            try:
                changes = changed_fields(with_picture(form, stored), stored)
                server, settled = crud.change_server(
                    g.session, g.principal, stored.view.server_id, changes
                )
            except Conflict as error:
                if error.code not in ("stale_version", "credentials_would_move"):
                    raise
                g.session.rollback()
                if error.code == "credentials_would_move":
                    moving = error.extra["secrets"]
                    drafts.keep_typed(draft)
                else:
                    conflict = error.message
                # Saving again overwrites the current version.
                form.version.data = stored.view.version
            else:
                message = f"{server.server_name} saved. {settled.sentence}".strip()
                drafts.adopt(draft, server.server_id, message)
                return see_other(url_for("servers.detail", server_id=server.server_id))
    return _page(form, stored, draft, conflict=conflict, moving=moving)


@bp.post("/test")
@limiter.limit(TRY_UPSTREAM)
@reads_only
def test() -> Response:
    """Test the connection with the form input. Nothing is saved."""
    authz.require(g.principal, Action.SERVER_CREATE)
    server_id = request.form.get("server_id") or None
    stored = inspection.get_stored(g.session, g.principal, server_id) if server_id else None
    form, _draft = _form(stored)
    result: dict[str, Any] = {
        "ok": False,
        "tone": "bad",
        "label": "Not tested",
        "tools": None,
        "unset": (),
    }
    if not form.validate():
        result["label"] = "Complete the required fields"
        result["message"] = " ".join(
            str(m) for field in form.errors.values() for m in field if isinstance(m, str)
        )
        return _result(result)
    try:
        mark = request.form.get("confirmed", "")[:_MOST_MARK]
        trial = connection_test.try_definition(
            g.session, g.principal, form.fields(), server_id=server_id, mark=mark
        )
    except connection_test.Unconfirmed as asked:
        return page(
            "servers/test_result.html",
            fragment="test_result",
            nav="servers",
            start=asked.start,
            can_confirm=is_fragment_request(),
        )
    except PortalError as error:
        return _result({**result, "message": error.message})
    return _result(result_of(trial))


@bp.route("/<server_id>/delete", methods=["GET", "POST"])
def delete(server_id: str) -> Response:
    """Show who loses access, then delete the server."""
    card = find_card(server_id, Action.SERVER_DELETE)
    if request.method == "POST":
        name = crud.delete_server(g.session, g.principal, server_id)
        flash(f"{name} deleted, with all credentials stored for it.", "success")
        return see_other(url_for("grid.index"))
    affected = crud.cut_off(g.session, g.principal, server_id)
    return page("servers/delete.html", nav="servers", server=card, cut_off=affected)


def find_card(server_id: str, action: Action) -> ServerCard:
    """Return the server. Raises `Forbidden` if the user may not do `action` on it."""
    card = grid.get_card(g.session, g.principal, server_id)
    if action not in card.actions:
        raise Forbidden("You do not have permission to do this on this server.")
    return card


def _result(result: dict[str, Any]) -> Response:
    # In the form, a failed test can be repeated from its result.
    retry = is_fragment_request() and not result["ok"]
    return page(
        "servers/test_result.html",
        fragment="test_result",
        nav="servers",
        result=result,
        retry=retry,
    )


def _signed_in(form: ServerForm, stored: Stored | None, draft: Draft | None) -> Response:
    """Redirect to the provider to sign in, or show the form with its errors."""
    result = None
    with form.showing_errors():
        try:
            return drafts.depart(form, stored, draft)
        except UpstreamFailure as failure:
            g.session.rollback()
            result = drafts.failure(failure)
    return _page(form, stored, draft, failed=result)


def _form(stored: Stored | None, picked: Prefill | None = None) -> tuple[ServerForm, Draft | None]:
    draft = drafts.opened_draft()
    values = picked.values if picked and request.method == "GET" else {}
    before = typed_before(stored) if stored else {"available_on_public_internet": True, **values}
    form = ServerForm(formdata=g.typed, data=before) if draft else ServerForm(data=before)
    groups = inspection.list_group_choices(g.session, g.principal)
    if stored and logos.chosen(stored.view.mcp_info) == logos.OTHER:
        form.logo.choices = [*logos.CHOICES, (logos.OTHER, "Set through the API")]
    form.offer(
        stdio=settings().enable_stdio,
        groups=groups,
        has_document=bool(stored and stored.view.spec_path),
    )
    add_row(form)
    return form, draft


def _page(
    form: ServerForm,
    stored: Stored | None,
    draft: Draft | None,
    *,
    picked: Prefill | None = None,
    **context: Any,
) -> Response:
    kept = drafts.shown(draft, form)
    if context.get("failed"):
        kept["result"] = context["failed"]
    errors = bool(
        form.errors
        or context.get("conflict")
        or context.get("moving")
        or (kept.get("draft_over") and form.is_submitted())
    )
    shown = {
        **form_context(form, stored, picked.values if picked else NOTHING),
        "picked": picked,
        **context,
        **kept,
    }
    if settings().enable_stdio:
        refusal = connection_test.why_no_commands(g.session, g.principal)
        shown |= {
            "no_commands": refusal,
            "runs_as": "" if refusal else connection_test.commands_user(g.session, g.principal),
        }
    status = 200
    if errors:
        status = 409 if context.get("conflict") else 422
    return page(
        "servers/edit.html",
        fragment="form",
        status=status,
        nav="servers",
        **shown,
    )
