"""Add, edit, test and delete a server."""

import json
from collections.abc import Mapping
from typing import Any

from flask import Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Conflict, Forbidden, PortalError, UpstreamFailure
from portal.domain.servers import KEPT, URL_FIELDS, ServerFields
from portal.domain.upstream import HealthStatus
from portal.domain.variables import references
from portal.services.drafts.sign_in import Draft
from portal.services.servers import crud, grid, inspection
from portal.services.servers.cards import ServerCard
from portal.services.servers.stored import Stored
from portal.services.upstreams import connection_test
from portal.web.context import reads_only, settings
from portal.web.forms import logos
from portal.web.forms.prefill import Prefill, prefill_from, prefill_from_preview
from portal.web.forms.servers import NOTHING, ServerForm
from portal.web.forms.typed import secret_modes
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.pages import drafts
from portal.web.pages.servers import bp
from portal.web.rendering import is_fragment_request, page, see_other

_MOST_MARK = 1_000  # characters


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
        return see_other(url_for("servers.grid"))
    affected = crud.cut_off(g.session, g.principal, server_id)
    return page("servers/delete.html", nav="servers", server=card, cut_off=affected)


def find_card(server_id: str, action: Action) -> ServerCard:
    """Return the server. Raises `Forbidden` if the user may not do `action` on it."""
    card = grid.get_card(g.session, g.principal, server_id)
    if action not in card.actions:
        raise Forbidden("You do not have permission to do this on this server.")
    return card


@bp.post("/<server_id>/reveal")
def reveal(server_id: str) -> Response:
    """Show the values that are stored unencrypted. The request is audited."""
    values = inspection.reveal(g.session, g.principal, server_id)
    card = grid.get_card(g.session, g.principal, server_id)
    return page(
        "servers/revealed.html", fragment="revealed", nav="servers", server=card, values=values
    )


def result_of(trial: connection_test.Trial) -> dict[str, Any]:
    """Return a connection test in the format of `ui.tools.result`."""
    found = trial.result
    ok = found.status is HealthStatus.HEALTHY
    labels = {"sign_in_needed": "Server reached, sign-in required"}
    tones = {HealthStatus.HEALTHY: "ok", HealthStatus.UNKNOWN: "warn"}
    return {
        "ok": ok,
        "tone": tones.get(found.status, "bad"),
        "label": "Connection successful" if ok else labels.get(found.reason, "Connection failed"),
        "message": None if ok else found.message,
        "latency_ms": found.latency_ms,
        "protocol_version": found.protocol_version,
        "server_name": found.server_name,
        "server_version": found.server_version,
        "tools": found.tools,
        "unset": trial.unset,
    }


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


def add_row(form: ServerForm) -> None:
    """Add a row if its button was pressed without JavaScript."""
    rows = {"header": form.headers, "variable": form.variables, "env": form.env}.get(
        request.form.get("add", "")
    )
    if rows is not None:
        rows.append_entry()


def typed_before(stored: Stored) -> dict[str, Any]:
    """Return the initial form data of a stored server."""
    view = stored.view
    plain = (
        "server_name",
        "alias",
        "description",
        "instructions",
        "source_url",
        "command",
        "timeout",
        "is_byok",
        "byok_api_key_help_url",
        "allow_all_keys",
        "available_on_public_internet",
        "delegate_auth_to_upstream",
        "oauth_passthrough",
    )
    rules = view.token_validation
    return {
        **{name: getattr(view, name) for name in plain},
        "version": view.version,
        "logo": logos.chosen(view.mcp_info),
        "transport": "openapi" if view.spec_path and view.transport != "stdio" else view.transport,
        "auth_type": view.auth_type or "none",
        "oauth2_flow": view.oauth2_flow or "",
        "token_validation": json.dumps(rules, indent=2, ensure_ascii=False) if rules else "",
        "byok_description": "\n".join(view.byok_description),
        "extra_headers": "\n".join(view.extra_headers),
        "access_groups": list(view.mcp_access_groups),
        "headers": [{"name": name} for name in stored.headers],
        "env": [{"name": name} for name in stored.env],
        "variables": [
            {"name": v.name, "scope": v.scope, "description": v.description}
            for v in stored.variables
        ],
    }


def with_picture(form: ServerForm, stored: Stored | None) -> ServerFields:
    """Return the submitted fields, with `mcp_info` if the logo changed. Its other keys stay."""
    fields = form.fields()
    info = stored.view.mcp_info if stored else None
    if form.logo.data != logos.chosen(info):
        fields["mcp_info"] = logos.with_logo(info, form.logo.data)
    return fields


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


def form_context(
    form: ServerForm, stored: Stored | None, public: Mapping[str, Any] = NOTHING
) -> dict[str, Any]:
    """Return the template context of the server form; `public` as in `forget_sealed`."""
    known, uses = _stored_names(form, stored)
    declared = {row.form["name"].data for row in form.variables}
    users: dict[str, list[str]] = {}
    for row in form.headers:
        for name in uses.get(row.name, ()):
            users.setdefault(name, []).append(row.form["name"].data)
    return {
        "form": form,
        "forgotten": form.forget_sealed(public),
        "public_url": form.url.data if form.still_has("url", public) else "",
        "form_url": request.path,
        "modes": secret_modes(),
        "stored": known,
        "server": (
            {
                "server_id": stored.view.server_id,
                "name": stored.view.server_name or stored.view.server_id,
            }
            if stored
            else None
        ),
        "args_stored": bool(stored and stored.args_stored),
        "origins": stored.origins if stored else {},
        "header_uses": uses,
        "uses": users,
        "unknown": {row: [n for n in names if n not in declared] for row, names in uses.items()},
    }


def _stored_names(
    form: ServerForm, stored: Stored | None
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """Return the fields with a stored secret, by name, and the variables of each header row."""
    if stored is None:
        return {}, {row.name: references(row.form["value"].data or "") for row in form.headers}
    known: dict[str, Any] = dict(stored.set_at)
    known |= {"base_url": known["url"]} if "url" in known else {}
    uses: dict[str, tuple[str, ...]] = {}
    for row in form.headers:
        name = row.form["name"].data
        if name in stored.headers:
            known[f"{row.name}-value"] = None
        uses[row.name] = references(row.form["value"].data or "") or stored.headers.get(name, ())
    known |= {f"{row.name}-value": None for row in form.env if row.form["name"].data in stored.env}
    set_globals = {v.name for v in stored.variables if v.is_set}
    known |= {
        f"{row.name}-value": None for row in form.variables if row.form["name"].data in set_globals
    }
    return known, uses


def changed_fields(fields: ServerFields, stored: Stored) -> ServerFields:
    """Return the fields that differ from the stored server. Kept secrets are not a change."""
    view: dict[str, Any] = vars(stored.view)
    changes: dict[str, Any] = {}
    for name, value in fields.items():
        if name in URL_FIELDS:
            # The stored URL is not known here, only its origin.
            same = value is None and name not in stored.origins
        elif name in ("static_headers", "env"):
            names = tuple(stored.headers if name == "static_headers" else stored.env)
            same = (
                isinstance(value, dict)
                and tuple(value) == names
                and all(v is KEPT for v in value.values())
            )
        elif name == "env_vars":
            same = isinstance(value, list) and _same_variables(value, stored)
        elif name == "auth_type":
            same = (view[name] or "none") == value
        elif isinstance(value, list):
            same = list(view.get(name) or ()) == value
        else:
            same = name in view and name != "version" and (view[name] or None) == (value or None)
        if not same:
            changes[name] = value
    return ServerFields(**changes)  # type: ignore[typeddict-item, no-any-return]


def _same_variables(entries: list[Any], stored: Stored) -> bool:
    typed = [(e["name"], e["scope"], e["description"], e["value"] is KEPT) for e in entries]
    before = [(v.name, v.scope, v.description, v.is_set) for v in stored.variables]
    return typed == before and not any(e["value"] not in (None, KEPT) for e in entries)
