"""Forms for API keys."""

from wtforms import RadioField, SelectField, SelectMultipleField, StringField
from wtforms.fields import TextAreaField
from wtforms.validators import InputRequired, Length, Optional

from portal.web.forms.base import lines, stripped
from portal.web.forms.pickers import PickerForm

_DAYS = (("30", "30 days"), ("90", "90 days"), ("365", "1 year"), ("never", "Never"))


class KeyForm(PickerForm):
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
