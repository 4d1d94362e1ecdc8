"""The caller's credentials for servers: values of variables, and keys. They are write-only."""

from typing import Any

from flask import Blueprint, Response, g, request

from portal.services.credentials import self_service
from portal.services.credentials.states import KeyState, Requirement
from portal.web.api.answer_shapes import KeyStateAnswer, Needs
from portal.web.api.answers import answer, to_json, unless_held
from portal.web.api.payloads import read_if
from portal.web.api.shapes import OwnKey, OwnValues
from portal.web.documented import Query, documented

bp = Blueprint("api_credentials", __name__, url_prefix="/v1/mcp")


@bp.get("/server/<server_id>/user-env-vars")
@documented(Needs)
def get_variables(server_id: str) -> Response:
    """Get the variables that a server requires of the caller."""
    return answer(_requirement(self_service.get_requirement(g.session, g.principal, server_id)))


@bp.post("/server/<server_id>/user-env-vars")
@documented(Needs, takes=OwnValues, example={"values": {"TOKEN": "your own token"}})
def save_variables(server_id: str) -> Response:
    """Store the caller's values. Values that are not sent stay."""
    payload = read_if(
        lambda: self_service.require_values_place(g.session, g.principal, server_id), OwnValues
    )
    return answer(
        _requirement(self_service.save_variables(g.session, g.principal, server_id, payload.values))
    )


@bp.delete("/server/<server_id>/user-env-vars")
@documented(Needs)
def forget_variables(server_id: str) -> Response:
    """Delete all values of the caller for a server."""
    return answer(_requirement(self_service.forget_variables(g.session, g.principal, server_id)))


@bp.get("/user-env-vars/status")
@documented(list[Needs], also=(304,))
def list_requirements() -> Response:
    """List the variables that each of the caller's servers requires of them."""
    return unless_held(answer(self_service.list_requirements(g.session, g.principal)))


@bp.post("/server/<server_id>/user-credential")
@documented(KeyStateAnswer, takes=OwnKey, example={"credential": "your own key"})
def save_key(server_id: str) -> Response:
    """Store the caller's own key for a server."""
    payload = read_if(
        lambda: self_service.require_own_key_place(g.session, g.principal, server_id), OwnKey
    )
    state = self_service.save_key(
        g.session, g.principal, server_id, payload.credential, save=payload.save
    )
    return answer(_key_state(state))


@bp.delete("/server/<server_id>/user-credential")
@documented(
    KeyStateAnswer,
    query=(Query("user_id", "User whose key to remove, for Admins. Defaults to the caller."),),
)
def remove_key(server_id: str) -> Response:
    """Delete the caller's own key or, as an Admin, that of `?user_id=`."""
    user_id = request.args.get("user_id", "").strip() or None
    return answer(
        _key_state(self_service.remove_key(g.session, g.principal, server_id, user_id=user_id))
    )


def _requirement(found: Requirement) -> dict[str, Any]:
    return {
        "server_id": found.server_id,
        "server_name": found.server_name,
        "alias": found.alias,
        "required": [
            {"name": variable.name, "description": variable.description, "is_set": variable.is_set}
            for variable in found.required
        ],
        "missing_count": found.missing_count,
        "setup_url": found.setup_url,
    }


def _key_state(state: KeyState) -> dict[str, Any]:
    return to_json(state, without=("connected_at",))
