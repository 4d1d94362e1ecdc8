"""The form to decide on a submission."""

from wtforms import TextAreaField
from wtforms.validators import Length

from portal.web.forms.base import PortalForm, stripped


class DecisionForm(PortalForm):
    """Notes on a decision."""

    notes = TextAreaField("Notes", [Length(max=4_000)], filters=[stripped])
