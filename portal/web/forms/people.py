"""Forms for users, teams, access groups and API keys."""

from typing import Any, ClassVar

from flask import request
from wtforms import (
    BooleanField,
    EmailField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
)
from wtforms.fields import TextAreaField
from wtforms.validators import InputRequired, Length, Optional, Regexp

from portal.domain.principals import Role, TeamRole
from portal.web.forms.base import PortalForm, lines, stripped

_DAYS = (("30", "30 days"), ("90", "90 days"), ("365", "1 year"), ("never", "Never"))
TEAM_ROLES = {TeamRole.USER.value: "Member", TeamRole.ADMIN.value: "Team admin"}


class ChoosingForm(PortalForm):
    """A form with search boxes. A search shows the form again and saves nothing."""

    _FIELD_OF: ClassVar = {
        "object_permission.mcp_servers": "servers",
        "mcp_server_ids": "servers",
        "object_permission.mcp_access_groups": "groups",
        "object_permission.mcp_toolsets": "toolsets",
    }

    def sent(self) -> bool:
        """Return whether the form was submitted to be saved and its fields are valid."""
        return not is_search() and super().sent()

    def field_of(self, name: str | None) -> Any:
        """Return the form field for an API field name, which may differ from the form's."""
        return super().field_of(self._FIELD_OF.get(name or "", name))


class TeamForm(ChoosingForm):
    """A team and its grants. A new team has only a name."""

    team_alias = StringField(
        "Name", [InputRequired("Enter a name for the team."), Length(max=200)], filters=[stripped]
    )
    groups = SelectMultipleField("Access groups", choices=[], validate_choice=False)
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)
    toolsets = SelectMultipleField("Toolsets", choices=[], validate_choice=False)


class MemberForm(ChoosingForm):
    """A new team member."""

    user_id = RadioField(
        "User", [InputRequired("Select a user.")], choices=[], validate_choice=False
    )
    role = SelectField("Role", choices=list(TEAM_ROLES.items()), default=TeamRole.USER.value)


class GroupForm(ChoosingForm):
    """An access group and its servers."""

    name = StringField(
        "Name",
        [InputRequired("Enter a name for the access group."), Length(max=200)],
        filters=[stripped],
    )
    description = TextAreaField("Description", [Length(max=4_000)], filters=[stripped])
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)


_ADDRESS = (
    Length(max=320),
    Regexp(
        r"[^@\s]+@[^@\s]+$",
        message="Enter an email address in the correct format, like ada@example.com.",
    ),
)


class UserForm(ChoosingForm):
    """A user."""

    ROLE_HINTS: ClassVar = {
        Role.ADMIN.value: "Sees and changes everything",
        Role.ADMIN_VIEWER.value: "Sees everything, cannot change anything of others",
        Role.MEMBER.value: "Uses granted servers",
        Role.VIEWER.value: "Uses granted servers, cannot submit servers",
    }
    email = EmailField("Email", [Optional(), *_ADDRESS], filters=[stripped])
    display_name = StringField("Name", [Length(max=200)], filters=[stripped])
    role = RadioField(
        "Role", choices=[(role.value, role.label) for role in Role], default=Role.MEMBER.value
    )


class NewUserForm(UserForm):
    """A new user with a one-time password."""

    email = EmailField(
        "Email",
        [InputRequired("Enter an email address. It is used to sign in."), *_ADDRESS],
        filters=[stripped],
    )
    password = PasswordField("One-time password", [Length(max=512)])


class UserEditForm(UserForm):
    """An existing user, and the servers and toolsets that are granted to them directly."""

    is_active = BooleanField("May sign in")
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)
    toolsets = SelectMultipleField("Toolsets", choices=[], validate_choice=False)


class OneTimePasswordForm(PortalForm):
    """A one-time password for another user."""

    password = PasswordField("New one-time password", [Length(max=512)])


class KeyForm(ChoosingForm):
    """A new API key for the user."""

    key_alias = StringField(
        "Name",
        [InputRequired("Enter a name, such as the app that will use the key."), Length(max=200)],
        filters=[stripped],
    )
    expiry = SelectField("Expires after", choices=list(_DAYS), default="90")
    team_id = SelectField("Team", [Optional()], choices=[])
    servers = SelectMultipleField("Only these MCP servers", choices=[], validate_choice=False)
    allowed_routes = TextAreaField("Only these routes", [Length(max=4_000)])

    def limit_expiry(self, most_days: int | None) -> None:
        """Offer only lifetimes of at most `most_days` days; None means no limit."""
        if most_days is None:
            return
        days = {
            int(value): text
            for value, text in _DAYS
            if value != "never" and int(value) <= most_days
        }
        days.setdefault(most_days, f"{most_days} days (maximum)")
        self.expiry.choices = [(str(count), text) for count, text in sorted(days.items())]
        if not self.is_submitted():
            self.expiry.data = "90" if 90 in days else str(max(days))

    def days(self) -> int | None:
        """Return the lifetime of the key in days; None means that it does not expire."""
        return None if self.expiry.data == "never" else int(self.expiry.data)

    def routes(self) -> list[str]:
        """Return the path prefixes that the key may call; an empty list means no limit."""
        return lines(self.allowed_routes.data)


class AnyKeyForm(KeyForm):
    """A new API key for any user or team."""

    team_id = RadioField("Team", [Optional()], choices=[], validate_choice=False)
    user_id = RadioField("Owner", [Optional()], choices=[], validate_choice=False)
    toolsets = SelectMultipleField("Toolsets", choices=[], validate_choice=False)


def is_search() -> bool:
    """Return whether a search box was submitted, by its button or with Enter.

    Enter presses the first button of the form.
    """
    if "save" in request.form:
        return False
    return "look" in request.form or any(
        text.strip() for name, text in request.form.items() if name.split("_")[0] == "find"
    )
