"""What Admins see and edit of a server: names, origins and states, without opening secrets."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.runtime import runtime_of
from portal.services.secrets.server_definition import opened
from portal.services.secrets.token_store import KIND, is_usable
from portal.services.servers import queries
from portal.services.servers.stored import Stored, stored_of
from portal.services.servers.views import ServerView, view_masked, view_server
from portal.store.models import AccessGroup, User, UserCredential, UserVariable, now


@dataclass(frozen=True)
class Holder:
    """A user who stored something for a server, without what they stored."""

    user_id: str
    name: str
    values_set: int
    values_total: int
    has_key: bool
    sign_in: str
    account: str | None
    updated_at: datetime | None


def get_masked(session: Session, principal: Principal, server_id: str) -> ServerView:
    """Return a server for a page: as in the API, with every secret masked, even for Admins."""
    return view_masked(
        session,
        principal,
        queries.find_server(session, principal, server_id, Action.SERVER_READ).row,
    )


def get_inspected(session: Session, principal: Principal, server_id: str) -> ServerView:
    """Return a masked server for pages that require admin view."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT).row
    return view_server(session, principal, row, masked=True)


def get_stored(session: Session, principal: Principal, server_id: str) -> Stored:
    """Return the data that the edit form starts from."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_UPDATE).row
    return stored_of(session, principal, row)


def reveal(session: Session, principal: Principal, server_id: str) -> Mapping[str, str]:
    """Return URL, headers and global values in plain text for an Admin, and audit the request."""
    server = queries.find_server(session, principal, server_id, Action.SERVER_REVEAL)
    definition = None if runtime_of(session).write_only_globals else opened(session, server.row)
    audit.record(session, principal, "configuration revealed", "server", server.row.server_id)
    session.flush()
    if definition is None:
        return {}
    return {
        **{name.replace("_", " "): value for name, value in definition.urls.items()},
        **{f"header {name}": value for name, value in definition.static_headers.items()},
        **{f"variable {name}": value for name, value in definition.globals.items()},
        **{f"environment {name}": value for name, value in definition.env.items()},
        **({"arguments": " ".join(definition.args)} if definition.args else {}),
    }


def list_holders(session: Session, principal: Principal, server_id: str) -> list[Holder]:
    """Return up to 500 users who stored values or a key for a server, or are connected, by name."""
    row = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT).row
    required = {variable.name for variable in row.variables if variable.is_required}
    values = Counter[str]()
    changed = dict[str, datetime]()
    mine = select(UserVariable.user_id, UserVariable.name, UserVariable.updated_at)
    for user_id, name, at in session.execute(mine.where(UserVariable.server_id == row.server_id)):
        values[user_id] += name in required
        changed[user_id] = max(at, changed.get(user_id, at))
    keys = set[str]()
    connections = dict[str, UserCredential]()
    for held in session.scalars(
        select(UserCredential).where(UserCredential.server_id == row.server_id)
    ):
        changed[held.user_id] = max(held.connected_at, changed.get(held.user_id, held.connected_at))
        if held.kind == KIND:
            connections[held.user_id] = held
        else:
            keys.add(held.user_id)
    people = session.execute(
        select(
            User.user_id, func.coalesce(User.display_name, User.email, User.user_id).label("name")
        )
        .where(User.user_id.in_(changed))
        .order_by("name")
        .limit(500)
    )
    return [
        Holder(
            user_id,
            name,
            values[user_id],
            len(required),
            user_id in keys,
            _sign_in(connections.get(user_id)),
            connections[user_id].account if user_id in connections else None,
            changed[user_id],
        )
        for user_id, name in people
    ]


def _sign_in(held: UserCredential | None) -> str:
    if held is None:
        return ""
    return "connected" if is_usable(held, now()) else "expired"


def list_group_choices(session: Session, principal: Principal) -> list[str]:
    """Return the names of access groups that the caller can add a server to."""
    authz.require(principal, Action.SERVER_CREATE)
    return list(session.scalars(select(AccessGroup.name).order_by(AccessGroup.name).limit(500)))
