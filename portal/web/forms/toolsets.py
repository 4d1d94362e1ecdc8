"""The form for toolsets."""

import json

from wtforms import SelectMultipleField, StringField
from wtforms.fields import TextAreaField
from wtforms.validators import InputRequired, Length

from portal.domain.errors import InvalidInput
from portal.services.tools.toolsets import ToolRef
from portal.web.forms.base import stripped
from portal.web.forms.pickers import PickerForm


class ToolsetForm(PickerForm):
    """A toolset. The value of each checkbox is JSON: the server ID and the tool name."""

    toolset_name = StringField(
        "Name",
        [InputRequired("Enter a name for the toolset."), Length(max=200)],
        filters=[stripped],
    )
    description = TextAreaField("Description", [Length(max=4_000)], filters=[stripped])
    tools = SelectMultipleField("Tools", choices=[], validate_choice=False)

    def refs(self) -> list[ToolRef]:
        """Return the selected tools. Raises `InvalidInput` for an invalid value."""
        return list(dict.fromkeys(parsed(value) for value in self.tools.data or ()))


def value_of(ref: ToolRef) -> str:
    """Return the checkbox value of a tool."""
    return json.dumps([ref.server_id, ref.tool_name], separators=(",", ":"))


def parsed(value: str) -> ToolRef:
    """Return the tool of a checkbox value. Raises `InvalidInput`."""
    try:
        server_id, name = json.loads(value)
    except (ValueError, TypeError, RecursionError):
        raise InvalidInput("Select tools from the list.", field="tools") from None
    if not (
        isinstance(server_id, str)
        and isinstance(name, str)
        and 0 < len(name) <= 300
        and len(server_id) <= 256
    ):
        raise InvalidInput("Select tools from the list.", field="tools")
    return ToolRef(server_id, name)
