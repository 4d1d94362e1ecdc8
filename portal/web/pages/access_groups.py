"""Access groups: named sets of servers that are granted to teams and keys."""

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.services.access import access_groups, impact
from portal.web.context import may_change, only_with_admin_view
from portal.web.forms.access_groups import GroupForm
from portal.web.pages.pickers import server_options
from portal.web.rendering import page, see_other

bp = Blueprint("access_groups", __name__, url_prefix="/admin/groups")


bp.before_request(only_with_admin_view)


@bp.get("", endpoint="list")
def list_groups() -> Response:
    """List the access groups, filtered by name with `?q=`."""
    q = request.args.get("q", "")[:200]
    found = access_groups.list_groups(
        g.session, g.principal, cursor=request.args.get("cursor", "")[:300], q=q
    )
    rows = sorted(found.items, key=lambda group: group.name.casefold())
    next_url = (
        url_for("access_groups.list", q=q or None, cursor=found.next_cursor)
        if found.next_cursor
        else ""
    )
    return page(
        "access_groups/list.html",
        fragment="results",
        nav="access_groups",
        groups=rows,
        q=q,
        next_url=next_url,
        cursor="cursor" in request.args,
    )


@bp.route("/new", methods=["GET", "POST"])
def new() -> Response:
    """Create an access group with its servers."""
    authz.require(g.principal, Action.ACCESS_GROUP_MANAGE)
    form = GroupForm()
    if form.sent():
        with form.showing_errors():
            group = access_groups.create_group(
                g.session,
                g.principal,
                form.name.data,
                form.description.data or None,
                form.servers.data or (),
            )
            flash(
                f"{group.name} added. Grant it to a team to give its members access.",
                "success",
            )
            return see_other(url_for("access_groups.edit", access_group_id=group.access_group_id))
    options = server_options(form.servers.data or ())
    return page(
        "access_groups/new.html",
        status=form.status,
        nav="access_groups",
        form=form,
        options=options,
    )


@bp.route("/<access_group_id>", methods=["GET", "POST"])
def edit(access_group_id: str) -> Response:
    """Show or change an access group."""
    may_change(Action.ACCESS_GROUP_MANAGE)
    stored = access_groups.get_group(g.session, g.principal, access_group_id)
    form = GroupForm(
        name=stored.name, description=stored.description, servers=list(stored.mcp_server_ids)
    )
    if form.sent():
        with form.showing_errors():
            ticked = form.servers.data or []
            access_groups.change_group(
                g.session,
                g.principal,
                access_group_id,
                name=form.name.data,
                description=form.description.data or "",
                servers=ticked if set(ticked) != set(stored.mcp_server_ids) else None,
            )
            flash(f"{form.name.data} saved.", "success")
            return see_other(url_for("access_groups.edit", access_group_id=access_group_id))
    return page(
        "access_groups/edit.html",
        status=form.status,
        nav="access_groups",
        group=stored,
        form=form,
        options=server_options(form.servers.data or ()),
        reach=impact.of_group(g.session, g.principal, access_group_id),
    )


@bp.route("/<access_group_id>/delete", methods=["GET", "POST"])
def delete(access_group_id: str) -> Response:
    """Show who loses access, then delete the group."""
    authz.require(g.principal, Action.ACCESS_GROUP_MANAGE)
    stored = access_groups.get_group(g.session, g.principal, access_group_id)
    if request.method == "POST":
        access_groups.delete_group(g.session, g.principal, access_group_id)
        flash(f"{stored.name} deleted. Its servers were not deleted.", "success")
        return see_other(url_for("access_groups.list"))
    affected = impact.of_group(g.session, g.principal, access_group_id)
    return page("access_groups/delete.html", nav="access_groups", group=stored, cut_off=affected)
