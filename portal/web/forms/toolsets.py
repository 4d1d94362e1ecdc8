"""Toolsets: what is typed and ticked."""

import json

from wtforms import SelectMultipleField, StringField
from wtforms.fields import TextAreaField
from wtforms.validators import InputRequired, Length

from portal.domain.errors import InvalidInput
from portal.services.tools.toolsets import ToolRef
from portal.web.forms.base import stripped
from portal.web.forms.pickers import PickerForm


class ToolsetForm(PickerForm):
    """A toolset. Each ticked box carries its server's id and the tool's name as JSON: either may
    hold anything."""

    toolset_name = StringField(
        "Name", [InputRequired("A toolset needs a name."), Length(max=200)], filters=[stripped]
    )
    description = TextAreaField("Description", [Length(max=4_000)], filters=[stripped])
    tools = SelectMultipleField("Tools", choices=[], validate_choice=False)

    def refs(self) -> list[ToolRef]:
        """The tools that are ticked. Raises `InvalidInput` for a box that no page of ours has."""
        return list(dict.fromkeys(parsed(value) for value in self.tools.data or ()))


def value_of(ref: ToolRef) -> str:
    """The value of a tool's box."""
    return json.dumps([ref.server_id, ref.tool_name], separators=(",", ":"))


def parsed(value: str) -> ToolRef:
    """The tool behind the value of a box."""
    try:
        server_id, name = json.loads(value)
    except (ValueError, TypeError, RecursionError):
        raise InvalidInput("Tick tools from the list.", field="tools") from None
    if not (
        isinstance(server_id, str)
        and isinstance(name, str)
        and 0 < len(name) <= 300
        and len(server_id) <= 256
    ):
        raise InvalidInput("Tick tools from the list.", field="tools")
    return ToolRef(server_id, name)
