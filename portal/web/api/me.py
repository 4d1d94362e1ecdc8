"""The current user or key: identity, access and own API keys."""

from flask import Blueprint, Response, g

from portal import authorization as authz
from portal.authorization import Action
from portal.services.access import keys, me
from portal.web.api.answer_shapes import Caller, IssuedKey, Key
from portal.web.api.answers import answer, nothing, page_of
from portal.web.api.keys import SORTED, draft_of, issued, order, shown
from portal.web.api.payloads import list_place, read
from portal.web.api.shapes import KeyBody
from portal.web.documented import documented, listed

bp = Blueprint("api_me", __name__, url_prefix="/v1/me")


@bp.get("")
@documented(Caller)
def describe() -> Response:
    """Get the caller and the servers they can use."""
    caller = me.describe_caller(g.session, g.principal)
    return answer(
        {
            "user": caller.user,
            "key": shown(caller.key) if caller.key else None,
            "teams": caller.teams,
            "restricted": caller.restricted,
            "server_ids": caller.server_ids,
        }
    )


@bp.get("/keys")
@documented(listed(Key), query=SORTED)
def list_keys() -> Response:
    """List the caller's own keys."""
    authz.require(g.principal, Action.KEY_OWN_READ)
    return page_of(keys.list_own_keys(g.session, g.principal, **list_place(), **order()), shown)


@bp.post("/keys")
@documented(IssuedKey, takes=KeyBody, status=201, example={"key_alias": "laptop"})
def issue_key() -> Response:
    """Create a key for the caller.

    It never has more access than the caller. Without a team and grants, it has the same access.
    """
    authz.require(g.principal, Action.KEY_OWN)
    return answer(issued(keys.issue_own_key(g.session, g.principal, draft_of(read(KeyBody)))), 201)


@bp.delete("/keys/<key_id>")
@documented(status=204)
def revoke_key(key_id: str) -> Response:
    """Revoke one of the caller's own keys immediately."""
    keys.revoke_own_key(g.session, g.principal, key_id)
    return nothing(204)
