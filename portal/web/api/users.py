"""People: who may sign in, as what."""

from flask import Blueprint, Response, g

from portal.authorization import Action
from portal.services import people
from portal.web.api.answers import answer, nothing, page_of, to_json
from portal.web.api.guarding import guard
from portal.web.api.payloads import list_place, read
from portal.web.api.shapes import UserBody, UserChange

bp = Blueprint("api_users", __name__, url_prefix="/v1/users")
guard(bp, read=Action.USER_READ, write=Action.USER_MANAGE)


@bp.get("")
def list_users() -> Response:
    """A page of people."""
    return page_of(people.list_users(g.session, g.principal, **list_place()), to_json)


@bp.post("")
def create_user() -> Response:
    """Add a person."""
    payload = read(UserBody)
    return answer(people.create_user(g.session, g.principal, payload.own_fields(), payload.permission()), 201)


@bp.get("/<user_id>")
def get_user(user_id: str) -> Response:
    """One person."""
    return answer(people.get_user(g.session, g.principal, user_id))


@bp.patch("/<user_id>")
def change_user(user_id: str) -> Response:
    """Change what is sent of a person."""
    payload = read(UserChange)
    return answer(people.change_user(g.session, g.principal, user_id, payload.own_fields(), payload.permission()))


@bp.delete("/<user_id>")
def delete_user(user_id: str) -> Response:
    """Remove a person with all that is theirs."""
    people.delete_user(g.session, g.principal, user_id)
    return nothing(204)
