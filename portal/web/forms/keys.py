"""API keys: what is typed about a new one."""

from wtforms import RadioField, SelectField, SelectMultipleField, StringField
from wtforms.fields import TextAreaField
from wtforms.validators import InputRequired, Length, Optional

from portal.web.forms.base import lines, stripped
from portal.web.forms.pickers import PickerForm

_DAYS = (("30", "30 days"), ("90", "90 days"), ("365", "A year"), ("never", "Never"))


class KeyForm(PickerForm):
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
