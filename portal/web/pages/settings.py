"""The instance settings."""

from typing import Any

from flask import Blueprint, Response, flash, g, url_for

from portal.authorization import Action
from portal.domain.addresses import DEFAULT_INTERNAL_RANGES
from portal.domain.errors import Conflict
from portal.services import instance_settings
from portal.services.access import sso
from portal.web.context import arrival, may_change, only_with_admin_view, reads_only, settings
from portal.web.forms.settings import RULE_GROUPS, SettingsForm
from portal.web.rendering import page, see_other

bp = Blueprint("settings", __name__, url_prefix="/admin/settings")


bp.before_request(only_with_admin_view)


@bp.route("", methods=["GET", "POST"])
def edit() -> Response:
    """Show or change the settings.

    A change that would put the Admin outside the internal network needs confirmation.
    """
    may_change(Action.PREFERENCE_MANAGE)
    stored = instance_settings.load_preferences(g.session)
    values = instance_settings.get_preferences(g.session, g.principal)
    form = SettingsForm(
        **{**SettingsForm.shown(values), "seen": instance_settings.settings_hash(stored)}
    )
    asks = False
    if form.sent():
        with form.showing_errors():
            try:
                _save(form, values)
            except Conflict as conflict:
                asks = conflict.code == "would_be_external"
                raise
            flash("Settings saved.", "success")
            return see_other(url_for("settings.edit"))
    return page(
        "settings/edit.html",
        status=form.status,
        nav="settings",
        form=form,
        asks=asks,
        values=values,
        looks=_looks(form),
        rule_groups=RULE_GROUPS,
        callbacks=sso.list_callbacks(g.session, g.principal),
        by_password=settings().password_sign_in,
        public_url=settings().public_url,
        defaults=DEFAULT_INTERNAL_RANGES,
        operator_proxies=settings().trusted_proxies,
    )


@bp.post("/appearance")
@reads_only
def appearance() -> Response:
    """Preview how the portal classifies the caller's address with the form input."""
    return page(
        "settings/appearance.html", fragment="looks", nav="settings", looks=_looks(SettingsForm())
    )


def _save(form: SettingsForm, stored: dict[str, object]) -> None:
    changes = {name: value for name, value in form.typed().items() if value != _plain(stored[name])}
    instance_settings.update_preferences(
        g.session,
        g.principal,
        changes,
        arrival=arrival(),
        confirmed=bool(form.confirm_external.data),
        seen=form.seen.data or None,
    )


def _looks(form: SettingsForm) -> Any:
    typed = {
        name: value
        for name, value in form.typed().items()
        if name in ("mcp_internal_ip_ranges", "trusted_proxies")
    }
    return instance_settings.appearance(g.session, g.principal, arrival(), typed)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
