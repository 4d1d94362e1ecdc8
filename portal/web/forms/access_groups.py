"""Access groups: what is typed about them."""

from wtforms import SelectMultipleField, StringField
from wtforms.fields import TextAreaField
from wtforms.validators import InputRequired, Length

from portal.web.forms.base import stripped
from portal.web.forms.pickers import PickerForm


class GroupForm(PickerForm):
    """An access group and its servers."""

    name = StringField(
        "Name",
        [InputRequired("An access group needs a name."), Length(max=200)],
        filters=[stripped],
    )
    description = TextAreaField("Description", [Length(max=4_000)], filters=[stripped])
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)
