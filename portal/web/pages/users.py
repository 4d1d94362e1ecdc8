"""Users: their sign-in, roles and individual grants."""

import secrets

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.emails import normal_email
from portal.domain.principals import Role
from portal.services.access import impact, pickers
from portal.services.access import users as people
from portal.services.access.users import UserView
from portal.web.context import may_change, only_with_admin_view, reads_only
from portal.web.forms.people import (
    TEAM_ROLES,
    NewUserForm,
    OneTimePasswordForm,
    UserEditForm,
    UserForm,
)
from portal.web.pages.pickers import (
    changed_permission,
    person_options,
    server_names,
    server_options,
    team_options,
    toolset_choices,
)
from portal.web.rendering import page, see_other

bp = Blueprint("people", __name__, url_prefix="/admin")
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # no characters that look alike
_ROLES = {role.value: role.label for role in Role}


bp.before_request(only_with_admin_view)


@bp.get("/users")
def users() -> Response:
    """List the users, filtered by name or email with `?q=`."""
    q = request.args.get("q", "")[:200]
    found = people.list_users(
        g.session, g.principal, cursor=request.args.get("cursor", "")[:128], q=q
    )
    rows = sorted(found.items, key=lambda user: _name(user).casefold())
    next_url = (
        url_for("people.users", q=q or None, cursor=found.next_cursor) if found.next_cursor else ""
    )
    return page(
        "people/users.html",
        fragment="results",
        nav="users",
        users=rows,
        q=q,
        next_url=next_url,
        roles=_ROLES,
        cursor="cursor" in request.args,
    )


@bp.route("/users/new", methods=["GET", "POST"])
def user_new() -> Response:
    """Create a user. The one-time password is shown only in this response."""
    authz.require(g.principal, Action.USER_MANAGE)
    form = NewUserForm()
    if form.sent():
        with form.showing_errors():
            password = form.password.data or one_time_password()
            fields = {**_typed(form), "password": password, "must_change_password": True}
            user = people.create_user(g.session, g.principal, fields)
            return _password_shown(user, password, new=True)
    return page("people/user_new.html", status=form.status, nav="users", form=form)


@bp.route("/users/<user_id>", methods=["GET", "POST"])
def user(user_id: str) -> Response:
    """Show or change a user."""
    may_change(Action.USER_MANAGE)
    stored = people.get_user(g.session, g.principal, user_id)
    granted = stored.object_permission
    form = UserEditForm(
        email=stored.email,
        display_name=stored.display_name,
        role=stored.role,
        is_active=stored.is_active,
        servers=list(granted.mcp_servers),
        toolsets=list(granted.mcp_toolsets),
    )
    if form.sent():
        with form.showing_errors():
            fields = {**_typed(form), "is_active": form.is_active.data}
            changes = {
                name: value
                for name, value in fields.items()
                if (getattr(stored, name) or None) != (value or None)
            }
            permission = changed_permission(
                granted, form.servers.data or (), form.toolsets.data or ()
            )
            people.change_user(g.session, g.principal, user_id, changes, permission)
            flash(f"{form.display_name.data or form.email.data} saved.", "success")
            return see_other(url_for("people.user", user_id=user_id))
    return _user_page(stored, form, OneTimePasswordForm(formdata=None))


@bp.post("/users/<user_id>/password")
def user_password(user_id: str) -> Response:
    """Set a one-time password for a user. It is shown only in this response."""
    may_change(Action.USER_MANAGE)
    stored = people.get_user(g.session, g.principal, user_id)
    form = OneTimePasswordForm()
    if form.sent():
        with form.showing_errors():
            password = form.password.data or one_time_password()
            fields = {"password": password, "must_change_password": True}
            return _password_shown(
                people.change_user(g.session, g.principal, user_id, fields), password, new=False
            )
    granted = stored.object_permission
    shown = UserEditForm(
        formdata=None,
        obj=stored,
        servers=list(granted.mcp_servers),
        toolsets=list(granted.mcp_toolsets),
    )
    return _user_page(stored, shown, form)


@bp.route("/users/<user_id>/delete", methods=["GET", "POST"])
def user_delete(user_id: str) -> Response:
    """Show what is deleted with a user, then delete them."""
    authz.require(g.principal, Action.USER_MANAGE)
    stored = people.get_user(g.session, g.principal, user_id)
    if request.method == "POST":
        people.delete_user(g.session, g.principal, user_id)
        flash(f"{_name(stored)} deleted, with their keys and stored credentials.", "success")
        return see_other(url_for("people.users"))
    affected = impact.of_user(g.session, g.principal, user_id)
    return page(
        "people/user_delete.html", nav="users", user=stored, name=_name(stored), cut_off=affected
    )


@bp.post("/find/people")
@reads_only
def find_people() -> Response:
    """List the users that match a search box."""
    return page(
        "people/found.html",
        fragment="found",
        nav="users",
        options=person_options(request.form.get("user_id")),
    )


@bp.post("/find/teams")
@reads_only
def find_teams() -> Response:
    """List the teams that match a search box."""
    return page(
        "people/found.html",
        fragment="found",
        nav="teams",
        options=team_options(request.form.get("team_id")),
    )


def one_time_password() -> str:
    """Return 20 random letters and digits in groups of five (99 bits)."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))


def _typed(form: UserForm) -> dict[str, object]:
    email = form.email.data or ""
    return {
        "email": normal_email(email) or email or None,
        "display_name": form.display_name.data or None,
        "role": form.role.data,
    }


def _name(user: UserView) -> str:
    return user.display_name or user.email or user.user_id


def _user_page(
    stored: UserView, form: UserEditForm, password_form: OneTimePasswordForm
) -> Response:
    form.toolsets.choices = toolset_choices()
    return page(
        "people/user.html",
        status=422 if form.errors or password_form.errors else 200,
        nav="users",
        user=stored,
        name=_name(stored),
        form=form,
        password_form=password_form,
        options=server_options(form.servers.data or ()),
        teams=pickers.list_memberships(g.session, g.principal, stored.user_id),
        roles=_ROLES,
        team_roles=TEAM_ROLES,
        tools=stored.object_permission.mcp_tool_permissions,
        names=server_names(stored.object_permission.mcp_tool_permissions),
    )


def _password_shown(user: UserView, password: str, *, new: bool) -> Response:
    response = page(
        "people/password.html", nav="users", user=user, name=_name(user), password=password, new=new
    )
    response.headers["Cache-Control"] = "no-store"
    return response
