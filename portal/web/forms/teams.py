"""Teams and who is in them: what is typed about them."""

from wtforms import RadioField, SelectField, SelectMultipleField, StringField
from wtforms.validators import InputRequired, Length

from portal.domain.principals import TeamRole
from portal.web.forms.base import stripped
from portal.web.forms.pickers import PickerForm

TEAM_ROLES = {TeamRole.USER.value: "Member", TeamRole.ADMIN.value: "Team admin"}


class TeamForm(PickerForm):
    """A team and what it is granted. A new one has a name only."""

    team_alias = StringField(
        "Name", [InputRequired("A team needs a name."), Length(max=200)], filters=[stripped]
    )
    groups = SelectMultipleField("Access groups", choices=[], validate_choice=False)
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)
    toolsets = SelectMultipleField("Toolsets", choices=[], validate_choice=False)


class MemberForm(PickerForm):
    """Somebody who joins a team."""

    user_id = RadioField(
        "Person", [InputRequired("Choose a person.")], choices=[], validate_choice=False
    )
    role = SelectField("As", choices=list(TEAM_ROLES.items()), default=TeamRole.USER.value)
