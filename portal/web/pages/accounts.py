"""Signing in and out, and the signed-in user's account."""

from urllib.parse import urlsplit

from flask import Blueprint, Response, flash, g, request, session, url_for
from flask_login import current_user

from portal.domain.errors import LookOnly, Unauthenticated
from portal.services.access import principals, sessions, sso
from portal.services.oauth_server import apps
from portal.web import context, devices
from portal.web.context import commit_now
from portal.web.forms.accounts import PasswordForm, ProfileForm, SignInForm
from portal.web.limits import sign_in_limits
from portal.web.rendering import onward, page, see_other

bp = Blueprint("accounts", __name__)


@bp.route("/login", methods=["GET", "POST"])
@sign_in_limits
def sign_in() -> Response:
    """Show the sign-in form, sign in, and redirect to the page that was requested."""
    form = SignInForm(next=own_path(request.values.get("next")))
    destination = own_path(form.next.data)
    if current_user.is_authenticated and request.method == "GET":
        return see_other(destination)
    by_password = context.settings().password_sign_in
    if request.method == "POST" and not by_password:
        raise LookOnly("Password sign-in is disabled on this portal.")
    if form.sent():
        device = devices.new_or_presented()
        try:
            user_id = principals.sign_in(
                g.session, form.email.data, form.password.data, g.address, device
            )
        except Unauthenticated as error:
            context.note_failed_sign_in()
            form.form_errors.append(error.message)
        else:
            context.sign_in(user_id)
            return devices.remember(see_other(destination), device)
    shown = destination if destination != url_for("grid.index") else None
    providers = sso.list_providers(g.session)
    return page(
        "accounts/sign_in.html",
        status=form.status,
        form=form,
        destination=shown,
        providers=providers,
        by_password=by_password,
    )


@bp.post("/logout")
def sign_out() -> Response:
    """Sign out of this session, and at the identity provider where it supports that."""
    principals.sign_out(g.session, g.principal)
    commit_now()
    name = session.get("signed_in_by", "")
    hint = session.get("id_token", "")
    back_to = context.settings().public_url + url_for("accounts.sign_in")
    address = (
        sso.end_at_provider(g.session, g.principal, name, hint, back_to=back_to) if name else None
    )
    context.sign_out()
    response = (
        onward(address, "You are signed out", "Next, sign out at your identity provider.")
        if address
        else (see_other(url_for("accounts.sign_in")))
    )
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


@bp.route("/profile/password", methods=["GET", "POST"])
def password() -> Response:
    """Change the user's own password."""
    form = PasswordForm()
    if form.sent():
        with form.showing_errors():
            principals.change_password(
                g.session, g.principal, form.current_password.data, form.new_password.data
            )
            sessions.end_other_sessions(g.session, g.principal, _cookie())
            flash("Password changed.", "success")
            return see_other(url_for("grid.index"))
    return page(
        "accounts/password.html",
        status=form.status,
        form=form,
        forced=g.profile.must_change_password,
    )


@bp.route("/profile", methods=["GET", "POST"])
def profile() -> Response:
    """Show or change the user's name and theme, and list sessions and apps."""
    form = ProfileForm(display_name=g.profile.display_name, theme=g.profile.theme)
    if form.sent():
        with form.showing_errors():
            principals.change_profile(
                g.session, g.principal, display_name=form.display_name.data, theme=form.theme.data
            )
            flash("Profile saved.", "success")
            return see_other(url_for("accounts.profile"))
    mine = sessions.list_own_sessions(g.session, g.principal, _cookie())
    return page(
        "accounts/profile.html",
        status=form.status,
        form=form,
        sessions=mine,
        has_password=g.profile.has_password,
        signs_in_with=g.profile.signs_in_with,
        apps=apps.list_signed_in_apps(g.session, g.principal),
    )


@bp.post("/profile/sessions/end")
def end_session() -> Response:
    """Sign out one other browser of the user."""
    sessions.end_own_session(g.session, g.principal, request.form.get("handle", ""))
    flash("Browser signed out.", "success")
    return see_other(url_for("accounts.profile"))


@bp.post("/profile/sessions/end-others")
def end_other_sessions() -> Response:
    """Sign out all other browsers of the user."""
    sessions.end_other_sessions(g.session, g.principal, _cookie())
    flash("All other browsers signed out.", "success")
    return see_other(url_for("accounts.profile"))


@bp.post("/profile/apps/remove")
def remove_app() -> Response:
    """Remove the user's consent for an app, so that the app must ask again."""
    apps.sign_out_app(g.session, g.principal, request.form.get("app", ""))
    flash("App removed. It must ask for your consent again.", "success")
    return see_other(url_for("accounts.profile"))


def own_path(target: str | None) -> str:
    """Return `target` if it is a path on this portal, else the start page.

    Browsers read `//` and `/\\` as the start of another host.
    """
    start = url_for("grid.index")
    if not target or not target.startswith("/") or target[1:2] in ("/", "\\") or len(target) > 4000:
        return start
    if any(ord(c) < 32 or ord(c) == 127 or c == "\\" for c in target):
        return start
    parts = urlsplit(target)
    return start if parts.scheme or parts.netloc else target


def _cookie() -> str | None:
    cookie: str | None = getattr(session, "cookie", None)
    return cookie
