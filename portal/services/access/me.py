"""The caller's own record: user or key, teams, and the servers they may use."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain.principals import Principal
from portal.services.access.keys import KeyView, get_current_key
from portal.services.access.users import UserView, get_self
from portal.store.models import Server, Team


@dataclass(frozen=True)
class CallerView:
    """The caller; `server_ids` are the servers they may use, sorted."""

    user: UserView | None
    key: KeyView | None
    teams: tuple[Mapping[str, str], ...]
    restricted: bool
    server_ids: tuple[str, ...]


def describe_caller(session: Session, principal: Principal) -> CallerView:
    """Return the caller's own record.

    Checks no permission: all callers may see their own access.
    """
    teams = session.execute(
        select(Team.team_id, Team.team_alias)
        .where(Team.team_id.in_(principal.team_ids))
        .order_by(Team.team_alias)
    )
    usable = (
        select(Server.server_id).where(authz.usable_servers(principal)).order_by(Server.server_id)
    )
    return CallerView(
        user=get_self(session, principal),
        key=get_current_key(session, principal),
        teams=tuple({"team_id": team_id, "team_alias": alias} for team_id, alias in teams),
        restricted=principal.is_restricted_key,
        server_ids=tuple(session.scalars(usable)),
    )
