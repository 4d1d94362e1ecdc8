"""Teams: their members and grants."""

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.services.access import access_groups, impact, pickers, teams
from portal.services.access.teams import TeamView
from portal.web.context import may_change, only_with_admin_view
from portal.web.forms.teams import TEAM_ROLES, MemberForm, TeamForm
from portal.web.pages.pickers import (
    changed_permission,
    person_options,
    server_names,
    server_options,
    toolset_choices,
)
from portal.web.rendering import page, see_other

bp = Blueprint("teams", __name__, url_prefix="/admin/teams")


bp.before_request(only_with_admin_view)


@bp.get("", endpoint="list")
def list_teams() -> Response:
    """List the teams, filtered by name with `?q=`."""
    q = request.args.get("q", "")[:200]
    found = teams.list_teams(
        g.session, g.principal, cursor=request.args.get("cursor", "")[:300], q=q
    )
    rows = sorted(found.items, key=lambda team: team.team_alias.casefold())
    next_url = (
        url_for("teams.list", q=q or None, cursor=found.next_cursor) if found.next_cursor else ""
    )
    return page(
        "teams/list.html",
        fragment="results",
        nav="teams",
        teams=rows,
        q=q,
        next_url=next_url,
        cursor="cursor" in request.args,
    )


@bp.route("/new", methods=["GET", "POST"])
def new() -> Response:
    """Create a team by name. Members and grants are added on its page."""
    authz.require(g.principal, Action.TEAM_MANAGE)
    form = TeamForm()
    if form.sent():
        with form.showing_errors():
            team = teams.create_team(g.session, g.principal, {"team_alias": form.team_alias.data})
            flash(f"{team.team_alias} added. Add people and servers.", "success")
            return see_other(url_for("teams.edit", team_id=team.team_id))
    return page("teams/new.html", status=form.status, nav="teams", form=form)


@bp.route("/<team_id>", methods=["GET", "POST"])
def edit(team_id: str) -> Response:
    """Show or change a team."""
    may_change(Action.TEAM_MANAGE)
    stored = teams.get_team(g.session, g.principal, team_id)
    granted = stored.object_permission
    form = _form(stored)
    if form.sent():
        with form.showing_errors():
            name = form.team_alias.data
            permission = changed_permission(
                granted, form.servers.data or (), form.toolsets.data or (), form.groups.data or ()
            )
            changes = {"team_alias": name} if name != stored.team_alias else {}
            teams.change_team(g.session, g.principal, team_id, changes, permission)
            flash(f"{name} saved.", "success")
            return see_other(url_for("teams.edit", team_id=team_id))
    return _page(stored, form, MemberForm(formdata=None))


@bp.post("/<team_id>/members")
def put_member(team_id: str) -> Response:
    """Add a user to a team, or change their role in it."""
    may_change(Action.TEAM_MANAGE)
    stored = teams.get_team(g.session, g.principal, team_id)
    form = MemberForm()
    if form.sent():
        with form.showing_errors():
            saved = teams.put_member(
                g.session, g.principal, team_id, form.user_id.data, form.role.data
            )
            name = next(m.name for m in saved.members_with_roles if m.user_id == form.user_id.data)
            flash(f"{name} added to {saved.team_alias} as {TEAM_ROLES[form.role.data]}.", "success")
            return see_other(url_for("teams.edit", team_id=team_id))
    return _page(stored, _form(stored, fresh=True), form)


@bp.post("/<team_id>/members/<user_id>/remove")
def remove_member(team_id: str, user_id: str) -> Response:
    """Remove a user from a team."""
    may_change(Action.TEAM_MANAGE)
    teams.remove_member(g.session, g.principal, team_id, user_id)
    flash("Member removed from the team.", "success")
    return see_other(url_for("teams.edit", team_id=team_id))


@bp.route("/<team_id>/delete", methods=["GET", "POST"])
def delete(team_id: str) -> Response:
    """Show who loses access, then delete the team."""
    authz.require(g.principal, Action.TEAM_MANAGE)
    stored = teams.get_team(g.session, g.principal, team_id)
    if request.method == "POST":
        teams.delete_team(g.session, g.principal, team_id)
        flash(f"{stored.team_alias} and its keys deleted.", "success")
        return see_other(url_for("teams.list"))
    affected = impact.of_team(g.session, g.principal, team_id)
    return page("teams/delete.html", nav="teams", team=stored, cut_off=affected)


def _form(stored: TeamView, *, fresh: bool = False) -> TeamForm:
    """Return the form with the stored values; `fresh` ignores input sent by another form."""
    granted = stored.object_permission
    typed = {
        "team_alias": stored.team_alias,
        "groups": list(granted.mcp_access_groups),
        "servers": list(granted.mcp_servers),
        "toolsets": list(granted.mcp_toolsets),
    }
    form = TeamForm(formdata=None, data=typed) if fresh else TeamForm(data=typed)
    form.groups.choices = [
        (name, name) for name in access_groups.list_names(g.session, g.principal)
    ]
    form.toolsets.choices = toolset_choices()
    return form


def _page(stored: TeamView, form: TeamForm, member_form: MemberForm) -> Response:
    members = sorted(stored.members_with_roles, key=lambda member: member.name.casefold())
    tools = stored.object_permission.mcp_tool_permissions
    return page(
        "teams/edit.html",
        status=422 if form.errors or member_form.errors else 200,
        nav="teams",
        team=stored,
        form=form,
        member_form=member_form,
        members=members,
        roles=TEAM_ROLES,
        tools=tools,
        names=server_names(tools),
        options=server_options(form.servers.data or ()),
        people=person_options(
            member_form.user_id.data, without={member.user_id for member in members}
        ),
        own_groups=pickers.name_groups(g.session, g.principal, stored.access_group_ids),
    )
