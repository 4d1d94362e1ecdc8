"""Signing in and one's own account."""

from wtforms import EmailField, HiddenField, PasswordField, RadioField, StringField
from wtforms.validators import EqualTo, InputRequired, Length

from portal.web.forms.base import PortalForm, stripped


class SignInForm(PortalForm):
    """E-mail and password."""

    email = EmailField(
        "E-mail", [InputRequired("Enter your e-mail."), Length(max=320)], filters=[stripped]
    )
    password = PasswordField("Password", [InputRequired("Enter your password."), Length(max=512)])
    next = HiddenField()


class PasswordForm(PortalForm):
    """A new password of one's own."""

    current_password = PasswordField(
        "Current password", [InputRequired("Enter your current password.")]
    )
    new_password = PasswordField(
        "New password", [InputRequired("Enter a new password."), Length(max=512)]
    )
    repeat_password = PasswordField(
        "New password again", [EqualTo("new_password", "The two new passwords are not the same.")]
    )


class ProfileForm(PortalForm):
    """Name and theme."""

    display_name = StringField("Name", [Length(max=200)], filters=[stripped])
    theme = RadioField(
        "Theme", choices=[("auto", "Automatic"), ("light", "Light"), ("dark", "Dark")]
    )
