"""Users: what is typed about them."""

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
    Regexp(r"[^@\s]+@[^@\s]+$", message="Enter an e-mail address, like ada@example.com."),
)


class UserForm(PickerForm):
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
