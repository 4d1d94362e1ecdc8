"""The form to preview an OpenAPI document."""

from flask_wtf.file import FileField
from wtforms import URLField
from wtforms.validators import Length

from portal.web.forms.base import PortalForm, stripped


class DocumentForm(PortalForm):
    """An OpenAPI document by URL or as a file. The file takes precedence."""

    spec_url = URLField("Document URL", [Length(max=2_000)], filters=[stripped])
    file = FileField("Or upload a file")
