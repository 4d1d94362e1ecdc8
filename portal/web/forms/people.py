"""People, teams, access groups and API keys: what is typed about them."""

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

_DAYS = (("30", "30 days"), ("90", "90 days"), ("365", "A year"), ("never", "Never"))
TEAM_ROLES = {TeamRole.USER.value: "Member", TeamRole.ADMIN.value: "Team admin"}


class ChoosingForm(PortalForm):
    """A form with find boxes: finding shows the form again with what was typed, and saves
    nothing."""

    _FIELD_OF: ClassVar = {
        "object_permission.mcp_servers": "servers",
        "mcp_server_ids": "servers",
        "object_permission.mcp_access_groups": "groups",
        "object_permission.mcp_toolsets": "toolsets",
    }

    def sent(self) -> bool:
        """Whether the form was sent to be saved, and has the right shape."""
        return not is_search() and super().sent()

    def field_of(self, name: str | None) -> Any:
        """Fields that the wire format calls otherwise than the form does."""
        return super().field_of(self._FIELD_OF.get(name or "", name))


class TeamForm(ChoosingForm):
    """A team and what it is granted. A new one has a name only."""

    team_alias = StringField(
        "Name", [InputRequired("A team needs a name."), Length(max=200)], filters=[stripped]
    )
    groups = SelectMultipleField("Access groups", choices=[], validate_choice=False)
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)
    toolsets = SelectMultipleField("Toolsets", choices=[], validate_choice=False)


class MemberForm(ChoosingForm):
    """Somebody who joins a team."""

    user_id = RadioField(
        "Person", [InputRequired("Choose a person.")], choices=[], validate_choice=False
    )
    role = SelectField("As", choices=list(TEAM_ROLES.items()), default=TeamRole.USER.value)


class GroupForm(ChoosingForm):
    """An access group and its servers."""

    name = StringField(
        "Name",
        [InputRequired("An access group needs a name."), Length(max=200)],
        filters=[stripped],
    )
    description = TextAreaField("Description", [Length(max=4_000)], filters=[stripped])
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)


_ADDRESS = (
    Length(max=320),
    Regexp(r"[^@\s]+@[^@\s]+$", message="Enter an e-mail address, like ada@example.com."),
)


class UserForm(ChoosingForm):
    """A person."""

    ROLE_HINTS: ClassVar = {
        Role.ADMIN.value: "Sees and changes everything",
        Role.ADMIN_VIEWER.value: "Sees everything, changes nothing of others",
        Role.MEMBER.value: "Uses what is granted",
        Role.VIEWER.value: "As a Member, and submits no servers",
    }
    email = EmailField("E-mail", [Optional(), *_ADDRESS], filters=[stripped])
    display_name = StringField("Name", [Length(max=200)], filters=[stripped])
    role = RadioField(
        "Role", choices=[(role.value, role.label) for role in Role], default=Role.MEMBER.value
    )


class NewUserForm(UserForm):
    """A new person with the password they first sign in with."""

    email = EmailField(
        "E-mail",
        [InputRequired("Enter an e-mail address: people sign in with it."), *_ADDRESS],
        filters=[stripped],
    )
    password = PasswordField("One-time password", [Length(max=512)])


class UserEditForm(UserForm):
    """A person who is known already, and the servers and toolsets that are granted to nobody but
    them."""

    is_active = BooleanField("May sign in")
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)
    toolsets = SelectMultipleField("Toolsets", choices=[], validate_choice=False)


class OneTimePasswordForm(PortalForm):
    """A new password for somebody else, good for one sign-in."""

    password = PasswordField("New one-time password", [Length(max=512)])


class KeyForm(ChoosingForm):
    """A new API key of one's own."""

    key_alias = StringField(
        "Name",
        [InputRequired("Name it after the program that will use it."), Length(max=200)],
        filters=[stripped],
    )
    expiry = SelectField("Expires after", choices=list(_DAYS), default="90")
    team_id = SelectField("Team", [Optional()], choices=[])
    servers = SelectMultipleField("Only these MCP servers", choices=[], validate_choice=False)
    allowed_routes = TextAreaField("Only these routes", [Length(max=4_000)])

    def limit_expiry(self, most_days: int | None) -> None:
        """Offer only ends that the settings allow; None allows any."""
        if most_days is None:
            return
        days = {
            int(value): text
            for value, text in _DAYS
            if value != "never" and int(value) <= most_days
        }
        days |= (
            {}
            if most_days in days
            else {most_days: f"{most_days} days, the longest that is allowed"}
        )
        self.expiry.choices = [(str(count), text) for count, text in sorted(days.items())]
        if not self.is_submitted():
            self.expiry.data = "90" if 90 in days else str(max(days))

    def days(self) -> int | None:
        """How long the key lives; None is for ever."""
        return None if self.expiry.data == "never" else int(self.expiry.data)

    def routes(self) -> list[str]:
        """The path prefixes that the key may call; none is no limit."""
        return lines(self.allowed_routes.data)


class AnyKeyForm(KeyForm):
    """A new API key for anybody."""

    team_id = RadioField("Team", [Optional()], choices=[], validate_choice=False)
    user_id = RadioField("Owner", [Optional()], choices=[], validate_choice=False)
    toolsets = SelectMultipleField("Toolsets", choices=[], validate_choice=False)


def is_search() -> bool:
    """Whether a find box asks: its button was pressed, or Enter in it, which presses the form's
    first button."""
    if "save" in request.form:
        return False
    return "look" in request.form or any(
        text.strip() for name, text in request.form.items() if name.split("_")[0] == "find"
    )
