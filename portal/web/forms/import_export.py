"""What is chosen about import and export."""

from flask_wtf.file import FileField
from wtforms import RadioField, TextAreaField

from portal.services.catalog.exports import OLD_NAMES
from portal.web.forms.base import PortalForm


class ImportForm(PortalForm):
    """A document to import: pasted, or a file, which goes first."""

    file = FileField("File")
    text = TextAreaField("Or paste it here")


class ExportForm(PortalForm):
    """The format to export in."""

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
