"""Forms for import and export."""

from flask_wtf.file import FileField
from wtforms import RadioField, TextAreaField

from portal.services.catalog.exports import OLD_NAMES
from portal.web.forms.base import PortalForm


class ImportForm(PortalForm):
    """A document to import: pasted text or a file. The file takes precedence."""

    file = FileField("File")
    text = TextAreaField("Or paste it here")


class ExportForm(PortalForm):
    """The export format."""

    format = RadioField(
        "Format",
        choices=[
            ("catalog.yaml", "YAML"),
            ("mcp.json", "mcp.json"),
            ("server.json", "server.json"),
        ],
        default="catalog.yaml",
        coerce=lambda name: OLD_NAMES.get(name, name),
    )
