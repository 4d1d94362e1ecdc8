"""Teams: users who share grants."""

from typing import Any

from flask import Blueprint, Response, g

from portal.authorization import Action
from portal.services.access import teams
from portal.services.access.teams import TeamView
from portal.web.api.answer_shapes import Team
from portal.web.api.answers import answer, nothing, page_of, to_json
from portal.web.api.guarding import guard
from portal.web.api.payloads import list_place, read
from portal.web.api.shapes import Member, TeamBody, TeamChange
from portal.web.documented import PAGED, documented, listed

bp = Blueprint("api_teams", __name__, url_prefix="/v1/teams")
guard(bp, read=Action.TEAM_READ, write=Action.TEAM_MANAGE)


@bp.get("")
@documented(listed(Team), query=PAGED)
def list_teams() -> Response:
    """List teams."""
    return page_of(teams.list_teams(g.session, g.principal, **list_place()), _team)


@bp.post("")
@documented(Team, takes=TeamBody, status=201, also=(409,), example={"team_alias": "Research"})
def create_team() -> Response:
    """Create a team."""
    payload = read(TeamBody)
    view = teams.create_team(
        g.session,
        g.principal,
        payload.own_fields(),
        payload.permission(),
        payload.group_ids(),
        payload.members() or (),
    )
    return answer(_team(view), 201)


@bp.get("/<team_id>")
@documented(Team)
def get_team(team_id: str) -> Response:
    """Get a team."""
    return answer(_team(teams.get_team(g.session, g.principal, team_id)))


@bp.patch("/<team_id>")
@documented(
    Team, takes=TeamChange, also=(409,), example={"object_permission": {"mcp_servers": ["notes"]}}
)
def change_team(team_id: str) -> Response:
    """Change the sent fields of a team."""
    payload = read(TeamChange)
    view = teams.change_team(
        g.session,
        g.principal,
        team_id,
        payload.own_fields(),
        payload.permission(),
        payload.group_ids(),
        payload.members(),
    )
    return answer(_team(view))


@bp.delete("/<team_id>")
@documented(status=204)
def delete_team(team_id: str) -> Response:
    """Delete a team with its grants and keys."""
    teams.delete_team(g.session, g.principal, team_id)
    return nothing(204)


@bp.post("/<team_id>/members")
@documented(Team, takes=Member, status=201, example={"user_id": "ada", "role": "user"})
def put_member(team_id: str) -> Response:
    """Add a user to a team, or change their role in it."""
    member = read(Member)
    return answer(
        _team(teams.put_member(g.session, g.principal, team_id, member.user_id, member.role)), 201
    )


@bp.delete("/<team_id>/members/<user_id>")
@documented(status=204)
def remove_member(team_id: str, user_id: str) -> Response:
    """Remove a user from a team."""
    teams.remove_member(g.session, g.principal, team_id, user_id)
    return nothing(204)


def _team(view: TeamView) -> dict[str, Any]:
    members = [to_json(member, without=("name",)) for member in view.members_with_roles]
    return {**to_json(view), "members_with_roles": members}
