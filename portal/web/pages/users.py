"""Users: their sign-in, roles and individual grants."""

import secrets

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.emails import normal_email
from portal.domain.principals import Role
from portal.services.access import impact, pickers, users
from portal.services.access.users import UserView
from portal.web.context import may_change, only_with_admin_view
from portal.web.forms.teams import TEAM_ROLES
from portal.web.forms.users import NewUserForm, OneTimePasswordForm, UserEditForm, UserForm
from portal.web.pages.pickers import (
    changed_permission,
    server_names,
    server_options,
    toolset_choices,
)
from portal.web.rendering import page, see_other

bp = Blueprint("users", __name__, url_prefix="/admin/users")
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # no characters that look alike
_ROLES = {role.value: role.label for role in Role}


bp.before_request(only_with_admin_view)


@bp.get("", endpoint="list")
def list_users() -> Response:
    """List the users, filtered by name or email with `?q=`."""
    q = request.args.get("q", "")[:200]
    found = users.list_users(
        g.session, g.principal, cursor=request.args.get("cursor", "")[:128], q=q
    )
    rows = sorted(found.items, key=lambda user: _name(user).casefold())
    next_url = (
        url_for("users.list", q=q or None, cursor=found.next_cursor) if found.next_cursor else ""
    )
    return page(
        "users/list.html",
        fragment="results",
        nav="users",
        users=rows,
        q=q,
        next_url=next_url,
        roles=_ROLES,
        cursor="cursor" in request.args,
    )


@bp.route("/new", methods=["GET", "POST"])
def new() -> Response:
    """Create a user. The one-time password is shown only in this response."""
    authz.require(g.principal, Action.USER_MANAGE)
    form = NewUserForm()
    if form.sent():
        with form.showing_errors():
            password = form.password.data or one_time_password()
            fields = {**_typed(form), "password": password, "must_change_password": True}
            user = users.create_user(g.session, g.principal, fields)
            return _password_shown(user, password, new=True)
    return page("users/new.html", status=form.status, nav="users", form=form)


@bp.route("/<user_id>", methods=["GET", "POST"])
def edit(user_id: str) -> Response:
    """Show or change a user."""
    may_change(Action.USER_MANAGE)
    stored = users.get_user(g.session, g.principal, user_id)
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
            users.change_user(g.session, g.principal, user_id, changes, permission)
            flash(f"{form.display_name.data or form.email.data} saved.", "success")
            return see_other(url_for("users.edit", user_id=user_id))
    return _user_page(stored, form, OneTimePasswordForm(formdata=None))


@bp.post("/<user_id>/password")
def set_password(user_id: str) -> Response:
    """Set a one-time password for a user. It is shown only in this response."""
    may_change(Action.USER_MANAGE)
    stored = users.get_user(g.session, g.principal, user_id)
    form = OneTimePasswordForm()
    if form.sent():
        with form.showing_errors():
            password = form.password.data or one_time_password()
            fields = {"password": password, "must_change_password": True}
            return _password_shown(
                users.change_user(g.session, g.principal, user_id, fields), password, new=False
            )
    granted = stored.object_permission
    shown = UserEditForm(
        formdata=None,
        obj=stored,
        servers=list(granted.mcp_servers),
        toolsets=list(granted.mcp_toolsets),
    )
    return _user_page(stored, shown, form)


@bp.route("/<user_id>/delete", methods=["GET", "POST"])
def delete(user_id: str) -> Response:
    """Show what is deleted with a user, then delete them."""
    authz.require(g.principal, Action.USER_MANAGE)
    stored = users.get_user(g.session, g.principal, user_id)
    if request.method == "POST":
        users.delete_user(g.session, g.principal, user_id)
        flash(f"{_name(stored)} deleted, with their keys and stored credentials.", "success")
        return see_other(url_for("users.list"))
    affected = impact.of_user(g.session, g.principal, user_id)
    return page("users/delete.html", nav="users", user=stored, name=_name(stored), cut_off=affected)


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
        "users/edit.html",
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
        "users/password.html", nav="users", user=user, name=_name(user), password=password, new=new
    )
    response.headers["Cache-Control"] = "no-store"
    return response
