"""API keys: the user's own and, for Admins, all keys. A key's secret is shown once."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.services import instance_settings
from portal.services.access import impact, key_reach, keys, pickers, teams
from portal.services.access.keys import IssuedKey, KeyDraft, KeyView
from portal.services.paging import Page
from portal.services.servers.grants import ObjectPermission
from portal.web.context import may_change, only_with_admin_view, reads_only, settings
from portal.web.forms.keys import AnyKeyForm, KeyForm
from portal.web.pages.pickers import person_options, server_options, team_options, toolset_choices
from portal.web.rendering import page, see_other

SORTS = (("", "Name"), ("age", "Age, oldest first"), ("last_used", "Last used, oldest first"))
bp = Blueprint("keys", __name__)


@bp.before_request
def guard_keys_of_others() -> None:
    """Let only those with admin view see what lies below `/admin`: everybody's keys."""
    if request.url_rule is not None and request.url_rule.rule.startswith("/admin/"):
        only_with_admin_view()


@bp.get("/keys")
def mine() -> Response:
    """List the user's own keys."""
    found = keys.list_own_keys(g.session, g.principal, **_order())
    return _list("keys/mine.html", "keys", "keys.mine", found)


@bp.route("/keys/new", methods=["GET", "POST"])
def new() -> Response:
    """Create a key for the user, with at most the user's own access."""
    form = _own_form()
    if form.sent():
        with form.showing_errors():
            return _issued(keys.issue_own_key(g.session, g.principal, _draft(form)), "keys")
    return page(
        "keys/new.html",
        status=form.status,
        nav="keys",
        form=form,
        options=server_options(form.servers.data or ()),
        preview=_preview(form),
    )


@bp.post("/keys/reach")
@reads_only
def reach() -> Response:
    """Preview which servers the key could use with the current form input."""
    form = _own_form()
    return page(
        "keys/new.html",
        fragment="reach",
        nav="keys",
        form=form,
        options=server_options(form.servers.data or ()),
        preview=_preview(form),
    )


def _own_form() -> KeyForm:
    form = KeyForm()
    own = teams.list_own_teams(g.session, g.principal)
    form.team_id.choices = [("", "None"), *((team.team_id, team.team_alias) for team in own)]
    form.limit_expiry(instance_settings.load_preferences(g.session).key_max_age_days)
    return form


def _preview(form: KeyForm) -> key_reach.ReachPreview:
    return key_reach.preview_own(
        g.session,
        g.principal,
        team_id=form.team_id.data or None,
        server_ids=form.servers.data or (),
    )


@bp.route("/keys/<key_id>/revoke", methods=["GET", "POST"])
def revoke(key_id: str) -> Response:
    """Ask for confirmation, then revoke one of the user's own keys."""
    key = impact.of_own_key(g.session, g.principal, key_id)
    if request.method == "POST":
        keys.revoke_own_key(g.session, g.principal, key_id)
        flash(f"{key.key_alias or key.key_prefix} revoked.", "success")
        return see_other(url_for("keys.mine"))
    return page(
        "keys/revoke.html", nav="keys", key=key, url=request.path, back=url_for("keys.mine")
    )


@bp.post("/keys/find/servers")
@reads_only
def find_servers() -> Response:
    """List the servers that the user can use and that match a search box."""
    return page(
        "pickers/found.html",
        fragment="found",
        nav="keys",
        options=server_options(request.form.getlist("servers")),
    )


@bp.get("/admin/keys", endpoint="list")
def list_keys() -> Response:
    """List all keys."""
    found = keys.list_keys(g.session, g.principal, **_order())
    owners = pickers.name_people(
        g.session, g.principal, {key.user_id for key in found.items if key.user_id}
    )
    return _list("keys/list.html", "all_keys", "keys.list", found, owners=owners)


@bp.route("/admin/keys/new", methods=["GET", "POST"])
def new_for_anybody() -> Response:
    """Create a key for any user or team."""
    authz.require(g.principal, Action.KEY_MANAGE)
    form = AnyKeyForm()
    form.toolsets.choices = toolset_choices()
    form.limit_expiry(instance_settings.load_preferences(g.session).key_max_age_days)
    if form.sent():
        with form.showing_errors():
            draft = _draft(form, form.user_id.data or None, tuple(form.toolsets.data or ()))
            return _issued(keys.issue_key(g.session, g.principal, draft), "all_keys")
    return page(
        "keys/new_for_anybody.html",
        status=form.status,
        nav="all_keys",
        form=form,
        options=server_options(form.servers.data or ()),
        people=person_options(form.user_id.data),
        teams=team_options(form.team_id.data),
    )


@bp.route("/admin/keys/<key_id>/revoke", methods=["GET", "POST"])
def revoke_any(key_id: str) -> Response:
    """Ask for confirmation, then revoke any key."""
    may_change(Action.KEY_MANAGE)
    key = impact.of_key(g.session, g.principal, key_id)
    if request.method == "POST":
        keys.revoke_key(g.session, g.principal, key_id)
        flash(f"{key.key_alias or key.key_prefix} revoked.", "success")
        return see_other(url_for("keys.list"))
    return page(
        "keys/revoke.html", nav="all_keys", key=key, url=request.path, back=url_for("keys.list")
    )


def _draft(form: KeyForm, user_id: str | None = None, toolsets: tuple[str, ...] = ()) -> KeyDraft:
    days = form.days()
    ticked = tuple(form.servers.data or ())
    permission = (
        ObjectPermission(mcp_servers=ticked, mcp_toolsets=toolsets) if ticked or toolsets else None
    )
    return KeyDraft(
        key_alias=form.key_alias.data,
        user_id=user_id,
        team_id=form.team_id.data or None,
        allowed_routes=form.routes(),
        object_permission=permission,
        expires_at=datetime.now(UTC) + timedelta(days=days) if days else None,
    )


def _order() -> dict[str, Any]:
    """Return sort order, filter and cursor from the query. Unknown values are ignored."""
    sort = request.args.get("sort", "")
    return {
        "cursor": request.args.get("cursor", "")[:200], "sort": sort if sort in dict(SORTS) else "",
        "unused": request.args.get("unused") == "true",
    }  # fmt: skip


def _list(template: str, nav: str, endpoint: str, found: Page[KeyView], **more: Any) -> Response:
    asked = _order()
    kept: dict[str, Any] = {
        "sort": asked["sort"] or None,
        "unused": "true" if asked["unused"] else None,
    }
    named = pickers.name_teams(
        g.session, g.principal, {key.team_id for key in found.items if key.team_id}
    )
    rows: Sequence[KeyView] = found.items
    if not asked["sort"]:
        rows = sorted(
            rows,
            key=lambda key: (
                key.revoked_at is not None,
                (key.key_alias or key.key_prefix).casefold(),
            ),
        )
    return page(
        template,
        nav=nav,
        keys=rows,
        teams=named,
        now=datetime.now(UTC),
        soon=datetime.now(UTC) + timedelta(days=14),
        next_url=url_for(endpoint, cursor=found.next_cursor, **kept) if found.next_cursor else "",
        first_url=url_for(endpoint, **kept) if "cursor" in request.args else "",
        list_url=url_for(endpoint),
        asked=asked,
        sorts=SORTS,
        **more,
    )


def _issued(issued: IssuedKey, nav: str) -> Response:
    """Show the new key with its secret.

    There is no redirect: the secret is not stored, so no later page could show it.
    """
    back = url_for("keys.mine" if nav == "keys" else "keys.list")
    route = (*issued.view.allowed_routes, "/v1/mcp/server")[0]
    response = page(
        "keys/issued.html",
        nav=nav,
        key=issued.view,
        secret=issued.key,
        back=back,
        url=f"{settings().public_url}{route}",
    )
    response.headers["Cache-Control"] = "no-store"
    return response
