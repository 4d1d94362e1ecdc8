"""Which OpenAPI document to look into."""

from flask_wtf.file import FileField
from wtforms import URLField
from wtforms.validators import Length

from portal.web.forms.base import PortalForm, stripped


class DocumentForm(PortalForm):
    """A document by its address, or a file, which goes first."""

    spec_url = URLField("Address of the document", [Length(max=2_000)], filters=[stripped])
    file = FileField("Or a file")
