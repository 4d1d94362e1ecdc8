"""Users: their sign-in and roles."""

from flask import Blueprint, Response, g

from portal.authorization import Action
from portal.services.access import users
from portal.services.access.users import UserView
from portal.web.api.answers import answer, nothing, page_of, to_json
from portal.web.api.guarding import guard
from portal.web.api.payloads import list_place, read
from portal.web.api.shapes import UserBody, UserChange
from portal.web.documented import PAGED, documented, listed

bp = Blueprint("api_users", __name__, url_prefix="/v1/users")
guard(bp, read=Action.USER_READ, write=Action.USER_MANAGE)


@bp.get("")
@documented(listed(UserView), query=PAGED)
def list_users() -> Response:
    """List users."""
    return page_of(users.list_users(g.session, g.principal, **list_place()), to_json)


@bp.post("")
@documented(UserView, takes=UserBody, status=201, also=(409,), example={"email": "ada@example.com"})
def create_user() -> Response:
    """Create a user."""
    payload = read(UserBody)
    return answer(
        users.create_user(g.session, g.principal, payload.own_fields(), payload.permission()), 201
    )


@bp.get("/<user_id>")
@documented(UserView)
def get_user(user_id: str) -> Response:
    """Get a user."""
    return answer(users.get_user(g.session, g.principal, user_id))


@bp.patch("/<user_id>")
@documented(UserView, takes=UserChange, also=(409,), example={"display_name": "Ada"})
def change_user(user_id: str) -> Response:
    """Change the sent fields of a user."""
    payload = read(UserChange)
    return answer(
        users.change_user(
            g.session, g.principal, user_id, payload.own_fields(), payload.permission()
        )
    )


@bp.delete("/<user_id>")
@documented(status=204)
def delete_user(user_id: str) -> Response:
    """Delete a user with their keys and credentials."""
    users.delete_user(g.session, g.principal, user_id)
    return nothing(204)
