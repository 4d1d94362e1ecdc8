"""Forms for access groups."""

from wtforms import SelectMultipleField, StringField
from wtforms.fields import TextAreaField
from wtforms.validators import InputRequired, Length

from portal.web.forms.base import stripped
from portal.web.forms.pickers import PickerForm


class GroupForm(PickerForm):
    """An access group and its servers."""

    name = StringField(
        "Name",
        [InputRequired("Enter a name for the access group."), Length(max=200)],
        filters=[stripped],
    )
    description = TextAreaField("Description", [Length(max=4_000)], filters=[stripped])
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)
