"""Forms with find boxes, and whether a find box asks."""

from typing import Any, ClassVar

from flask import request

from portal.web.forms.base import PortalForm


class PickerForm(PortalForm):
    """A form with find boxes: finding shows the form again with what was typed, and saves
    nothing."""

    _FIELD_OF: ClassVar = {
        "object_permission.mcp_servers": "servers",
        "mcp_server_ids": "servers",
        "object_permission.mcp_access_groups": "groups",
        "object_permission.mcp_toolsets": "toolsets",
    }

    def sent(self) -> bool:
        """Whether the form was sent to be saved, and has the right shape."""
        return not is_search() and super().sent()

    def field_of(self, name: str | None) -> Any:
        """Fields that the wire format calls otherwise than the form does."""
        return super().field_of(self._FIELD_OF.get(name or "", name))


def is_search() -> bool:
    """Whether a find box asks: its button was pressed, or Enter in it, which presses the form's
    first button."""
    if "save" in request.form:
        return False
    return "look" in request.form or any(
        text.strip() for name, text in request.form.items() if name.split("_")[0] == "find"
    )
