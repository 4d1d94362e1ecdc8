"""The form to submit a server."""

from typing import Any

from wtforms import SelectField
from wtforms.validators import Optional

from portal.domain.servers import ServerFields
from portal.web.forms.servers import ServerForm

_OF_ADMINS = (
    "mcp_access_groups",
    "allow_all_keys",
    "available_on_public_internet",
    "keep_credentials",
    "delegate_auth_to_upstream",
    "oauth_passthrough",
)


class SubmissionForm(ServerForm):
    """A server submitted by a Member, without a command and without access settings."""

    team_id = SelectField("Team", [Optional()], choices=[])

    def offer_to_member(self, *, teams: list[tuple[str, str]], has_document: bool) -> None:
        """Set the transports and teams to choose from."""
        self.offer(stdio=False, groups=[], has_document=has_document)
        self.team_id.choices = teams

    def fields(self) -> ServerFields:
        """Return the input as a definition, without the fields that only Admins set."""
        fields: dict[str, Any] = {n: v for n, v in super().fields().items() if n not in _OF_ADMINS}
        return ServerFields(**fields)  # type: ignore[typeddict-item, no-any-return]
