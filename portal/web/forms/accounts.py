"""Forms for signing in and for the user's own account."""

from wtforms import EmailField, HiddenField, PasswordField, RadioField, StringField
from wtforms.validators import EqualTo, InputRequired, Length

from portal.web.forms.base import PortalForm, stripped


class SignInForm(PortalForm):
    """Email and password."""

    email = EmailField(
        "Email", [InputRequired("Enter your email address."), Length(max=320)], filters=[stripped]
    )
    password = PasswordField("Password", [InputRequired("Enter your password."), Length(max=512)])
    next = HiddenField()


class PasswordForm(PortalForm):
    """Change the user's own password."""

    current_password = PasswordField(
        "Current password", [InputRequired("Enter your current password.")]
    )
    new_password = PasswordField(
        "New password", [InputRequired("Enter a new password."), Length(max=512)]
    )
    repeat_password = PasswordField(
        "Confirm new password", [EqualTo("new_password", "The new passwords do not match.")]
    )


class ProfileForm(PortalForm):
    """Name and theme."""

    display_name = StringField("Name", [Length(max=200)], filters=[stripped])
    theme = RadioField(
        "Theme", choices=[("auto", "Automatic"), ("light", "Light"), ("dark", "Dark")]
    )
