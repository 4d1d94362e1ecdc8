"""The data for the form with a user's values for one server."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services.credentials.states import (
    ConnectionState,
    KeyState,
    Requirement,
    connection_state_of,
    key_state_of,
    requirement_of,
)
from portal.services.servers import own_data, queries
from portal.services.servers.cards import ServerCard, cards_of
from portal.services.servers.views import ServerView, view_masked


@dataclass(frozen=True)
class Setup:
    """A server and the caller's part of it; `connection` is None if users do not sign in."""

    card: ServerCard
    about: ServerView
    requirement: Requirement
    key: KeyState
    connection: ConnectionState | None


def get_setup(session: Session, principal: Principal, server_id: str) -> Setup:
    """Return a server and the caller's part of it, finding and authorizing the server once.

    Raises `NotFound` or, without admin view, `Forbidden`, and `InvalidRequest` for a key without an
    owner.
    """
    row = queries.find_server(session, principal, server_id, Action.SERVER_READ).row
    own_data.require_person(principal)
    card = cards_of(session, principal, [row])[0]
    return Setup(
        card=card,
        about=view_masked(session, principal, row),
        requirement=requirement_of(session, principal, row),
        key=key_state_of(session, principal, row),
        connection=connection_state_of(session, principal, row) if card.sign_in else None,
    )
