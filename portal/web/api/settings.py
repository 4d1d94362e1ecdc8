"""Instance settings."""

from flask import Blueprint, Response, g

from portal.authorization import Action
from portal.services import instance_settings
from portal.services.servers import crud
from portal.web.api.answer_shapes import Settings
from portal.web.api.answers import answer
from portal.web.api.guarding import guard
from portal.web.api.payloads import read
from portal.web.api.shapes import SettingsChange
from portal.web.context import arrival
from portal.web.documented import documented

bp = Blueprint("api_settings", __name__, url_prefix="/v1/settings")
guard(bp, read=Action.PREFERENCE_READ, write=Action.PREFERENCE_MANAGE)


@bp.get("")
@documented(Settings)
def get_settings() -> Response:
    """Get the settings."""
    return answer(instance_settings.get_preferences(g.session, g.principal))


@bp.patch("")
@documented(Settings, takes=SettingsChange, also=(404, 409), example={"enable_mcp_registry": True})
def change_settings() -> Response:
    """Change the sent settings.

    Set `confirm_external` if the caller's address will count as external afterwards.
    """
    changes = read(SettingsChange).sent()
    confirmed = changes.pop("confirm_external", False)
    public = changes.pop("public_mcp_servers", None)
    if public is not None:
        crud.publish_servers(g.session, g.principal, public)
    if changes:
        instance_settings.update_preferences(
            g.session, g.principal, changes, arrival=arrival(), confirmed=confirmed
        )
    return answer(instance_settings.get_preferences(g.session, g.principal))
