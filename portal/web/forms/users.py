"""Forms for users."""

from typing import ClassVar

from wtforms import (
    BooleanField,
    EmailField,
    PasswordField,
    RadioField,
    SelectMultipleField,
    StringField,
)
from wtforms.validators import InputRequired, Length, Optional, Regexp

from portal.domain.principals import Role
from portal.web.forms.base import PortalForm, stripped
from portal.web.forms.pickers import PickerForm

_ADDRESS = (
    Length(max=320),
    Regexp(
        r"[^@\s]+@[^@\s]+$",
        message="Enter an email address in the correct format, like ada@example.com.",
    ),
)


class UserForm(PickerForm):
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
