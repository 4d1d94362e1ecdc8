"""The form for the instance settings."""

from typing import Any

from wtforms import BooleanField, HiddenField, IntegerField, RadioField, SelectMultipleField
from wtforms.fields import TextAreaField
from wtforms.validators import Length, NumberRange, Optional

from portal.services.instance_settings import MOST_KEY_AGE_DAYS, REQUIRABLE_FIELDS
from portal.web.forms.base import PortalForm, lines

_MODES = (
    ("restricted", "Users see only servers they can use"),
    ("view_all", "Everyone sees all servers"),
)
_LINES = ("mcp_internal_ip_ranges", "trusted_proxies", "trusted_redirect_origins")


RULE_GROUPS = {
    "Documentation": (
        "description",
        "server_name",
        "alias",
        "instructions",
        "mcp_info",
        "byok_description",
        "byok_api_key_help_url",
    ),
    "Source": (
        "source_url",
        "mcp_access_groups",
        "allowed_tools",
        "tool_name_to_display_name",
        "tool_name_to_description",
    ),
    "Connection": (
        "url",
        "transport",
        "spec_path",
        "timeout",
        "command",
        "args",
        "env",
        "env_vars",
    ),
    "Security": (
        "auth_type",
        "credentials",
        "is_byok",
        "static_headers",
        "extra_headers",
        "oauth2_flow",
        "authorization_url",
        "token_url",
        "registration_url",
        "token_validation",
    ),
}
"""The fields that can be required of submissions, by group of the page."""


class SettingsForm(PortalForm):
    """All instance settings. Lists have one entry per line; `seen` is the edited version."""

    user_mcp_management_mode = RadioField("Server visibility", choices=list(_MODES))
    mcp_required_fields = SelectMultipleField(
        "Required fields for submissions",
        choices=[(name, name) for name in REQUIRABLE_FIELDS],
        validate_choice=False,
    )
    mcp_internal_ip_ranges = TextAreaField("Internal ranges", [Length(max=20_000)])
    trusted_proxies = TextAreaField("Trusted proxies", [Length(max=20_000)])
    trusted_redirect_origins = TextAreaField("Trusted redirect origins", [Length(max=20_000)])
    enable_mcp_registry = BooleanField("Publish the registry")
    key_max_age_days = IntegerField(
        "Maximum API key lifetime (days)", [Optional(), NumberRange(1, MOST_KEY_AGE_DAYS)]
    )
    seen = HiddenField()
    confirm_external = BooleanField("Save, even though my address will count as external")

    @staticmethod
    def shown(stored: dict[str, Any]) -> dict[str, Any]:
        """Return the stored settings as form values."""
        return {
            name: "\n".join(value) if name in _LINES else value for name, value in stored.items()
        }

    def typed(self) -> dict[str, Any]:
        """Return the form input as settings for the services."""
        return {
            "user_mcp_management_mode": self.user_mcp_management_mode.data,
            "mcp_required_fields": list(dict.fromkeys(self.mcp_required_fields.data or ())),
            "enable_mcp_registry": bool(self.enable_mcp_registry.data),
            "key_max_age_days": self.key_max_age_days.data,
            **{name: lines(self[name].data) for name in _LINES},
        }
