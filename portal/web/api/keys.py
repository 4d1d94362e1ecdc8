"""API keys of all users."""

from typing import Any

from flask import Blueprint, Response, g, request

from portal.authorization import Action
from portal.domain.errors import InvalidInput
from portal.services.access import keys
from portal.services.access.keys import IssuedKey, KeyDraft, KeyView
from portal.web.api import answer_shapes as shapes
from portal.web.api.answer_shapes import Key
from portal.web.api.answers import answer, nothing, page_of, to_json
from portal.web.api.guarding import guard
from portal.web.api.payloads import list_place, read
from portal.web.api.shapes import KeyBody, KeyChange
from portal.web.documented import PAGED, Query, documented, listed

bp = Blueprint("api_keys", __name__, url_prefix="/v1/keys")
SORTED = (
    *PAGED,
    Query(
        "sort",
        "`age`: oldest first. `last_used`: never used first, then oldest use. Default: by ID.",
    ),
    Query("unused", "Only keys that were never used.", bool),
)
guard(bp, read=Action.KEY_READ, write=Action.KEY_MANAGE)


@bp.get("")
@documented(listed(Key), query=SORTED)
def list_keys() -> Response:
    """List keys, without their secrets.

    `follows_owner` means that a key never has more access than its owner. `reach` is its current
    access and the reason. `complies` means that its expiry follows the settings.
    """
    return page_of(keys.list_keys(g.session, g.principal, **list_place(), **order()), shown)


@bp.post("")
@documented(
    shapes.IssuedKey, takes=KeyBody, status=201, example={"key_alias": "ci", "user_id": "ada"}
)
def issue_key() -> Response:
    """Create a key. Its secret is only in this response.

    The key has the access granted here or, with `follows_owner`, at most that of its owner.
    """
    return answer(issued(keys.issue_key(g.session, g.principal, draft_of(read(KeyBody)))), 201)


@bp.get("/<key_id>")
@documented(Key)
def get_key(key_id: str) -> Response:
    """Get a key."""
    return answer(shown(keys.get_key(g.session, g.principal, key_id)))


@bp.patch("/<key_id>")
@documented(Key, takes=KeyChange, example={"key_alias": "nightly"})
def change_key(key_id: str) -> Response:
    """Change the sent fields of a key.

    Changed grants do not depend on the owner's access, unless `follows_owner` is also sent.
    """
    payload = read(KeyChange)
    view = keys.change_key(
        g.session,
        g.principal,
        key_id,
        payload.own_fields(),
        payload.permission(),
        payload.group_ids(),
    )
    return answer(shown(view))


@bp.delete("/<key_id>")
@documented(status=204)
def revoke_key(key_id: str) -> Response:
    """Revoke a key immediately."""
    keys.revoke_key(g.session, g.principal, key_id)
    return nothing(204)


def order() -> dict[str, Any]:
    """Return `sort` and `unused` of the query. Raises `InvalidInput`."""
    unused = request.args.get("unused", "")
    if unused not in ("", "true", "false"):
        raise InvalidInput("Must be true or false.", field="unused")
    return {"sort": request.args.get("sort", ""), "unused": unused == "true"}


def draft_of(payload: KeyBody) -> KeyDraft:
    """Return the key draft of a request body."""
    return KeyDraft(
        key_alias=payload.key_alias,
        user_id=payload.user_id,
        team_id=payload.team_id,
        allowed_routes=payload.allowed_routes,
        object_permission=payload.permission(),
        access_group_ids=payload.group_ids() or (),
        expires_at=payload.expires_at,
        follows_owner=payload.follows_owner,
    )


def shown(view: KeyView) -> dict[str, Any]:
    """Return a key in the wire format."""
    return to_json(view)


def issued(key: IssuedKey) -> dict[str, Any]:
    """Return a new key with its secret."""
    return {**shown(key.view), "key": key.key}
