"""Forms for teams and their members."""

from wtforms import RadioField, SelectField, SelectMultipleField, StringField
from wtforms.validators import InputRequired, Length

from portal.domain.principals import TeamRole
from portal.web.forms.base import stripped
from portal.web.forms.pickers import PickerForm

TEAM_ROLES = {TeamRole.USER.value: "Member", TeamRole.ADMIN.value: "Team admin"}


class TeamForm(PickerForm):
    """A team and its grants. A new team has only a name."""

    team_alias = StringField(
        "Name", [InputRequired("Enter a name for the team."), Length(max=200)], filters=[stripped]
    )
    groups = SelectMultipleField("Access groups", choices=[], validate_choice=False)
    servers = SelectMultipleField("MCP servers", choices=[], validate_choice=False)
    toolsets = SelectMultipleField("Toolsets", choices=[], validate_choice=False)


class MemberForm(PickerForm):
    """A new team member."""

    user_id = RadioField(
        "User", [InputRequired("Select a user.")], choices=[], validate_choice=False
    )
    role = SelectField("Role", choices=list(TEAM_ROLES.items()), default=TeamRole.USER.value)
