"""What Admins type to decide about a submission."""

from wtforms import TextAreaField
from wtforms.validators import Length

from portal.web.forms.base import PortalForm, stripped


class DecisionForm(PortalForm):
    """Why something was decided as it was."""

    notes = TextAreaField("Notes", [Length(max=4_000)], filters=[stripped])
