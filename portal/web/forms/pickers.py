"""Forms with search boxes."""

from typing import Any, ClassVar

from flask import request

from portal.web.forms.base import PortalForm


class PickerForm(PortalForm):
    """A form with search boxes. A search shows the form again and saves nothing."""

    _FIELD_OF: ClassVar = {
        "object_permission.mcp_servers": "servers",
        "mcp_server_ids": "servers",
        "object_permission.mcp_access_groups": "groups",
        "object_permission.mcp_toolsets": "toolsets",
    }

    def sent(self) -> bool:
        """Return whether the form was submitted to be saved and its fields are valid."""
        return not is_search() and super().sent()

    def field_of(self, name: str | None) -> Any:
        """Return the form field for an API field name, which may differ from the form's."""
        return super().field_of(self._FIELD_OF.get(name or "", name))


def is_search() -> bool:
    """Return whether a search box was submitted, by its button or with Enter.

    Enter presses the first button of the form.
    """
    if "save" in request.form:
        return False
    return "look" in request.form or any(
        text.strip() for name, text in request.form.items() if name.split("_")[0] == "find"
    )
