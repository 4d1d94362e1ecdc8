"""API keys: shown once when created, listed by prefix, revoked immediately."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, literal, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, SetBy
from portal.domain.errors import Forbidden, InvalidInput, InvalidRequest, LookOnly, NotFound
from portal.domain.gateway_addresses import read_path
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.access.key_reach import KeyReach, describe_reaches
from portal.services.access.principals import hash_key, principal_for_user
from portal.services.instance_settings import load_preferences
from portal.services.paging import Page, paged, paged_by_time
from portal.services.servers import queries
from portal.services.servers.grants import (
    Holdings,
    ObjectPermission,
    holdings,
    remove_grants_of_keys,
    replace_grants,
    resolve_servers,
)
from portal.store.models import ApiKey, Server, Team, TeamMember, User, UtcDateTime, now

_PREFIX_LENGTH = 10
_SHOWN_AFTERWARDS = timedelta(days=7)
_NOT_YOURS = "You do not have access to one of these servers."


@dataclass(frozen=True)
class KeyDraft:
    """The properties of a new key: its owner and team, and its limits."""

    key_alias: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    allowed_routes: Sequence[str] = ()
    object_permission: ObjectPermission | None = None
    access_group_ids: Collection[str] = ()
    expires_at: datetime | None = None
    follows_owner: bool | None = None


@dataclass(frozen=True)
class KeyView:
    """A key as it may be shown, without its secret. Times are UTC.

    `follows_owner`: it never reaches more than its owner does at that moment. `complies`: it
    expires within the time that the settings allow. `reach` is what it reaches now.
    """

    key_id: str
    key_alias: str | None
    key_prefix: str
    user_id: str | None
    team_id: str | None
    allowed_routes: tuple[str, ...]
    object_permission: ObjectPermission
    access_group_ids: tuple[str, ...]
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    follows_owner: bool
    complies: bool
    reach: KeyReach | None = None


@dataclass(frozen=True)
class IssuedKey:
    """A new key with its secret, which is shown only once."""

    view: KeyView
    key: str = field(repr=False)


def list_keys(
    session: Session,
    principal: Principal,
    *,
    cursor: str = "",
    limit: int = 50,
    sort: str = "",
    unused: bool = False,
) -> Page[KeyView]:
    """Return all users' keys, by id or sorted by `age` (oldest first) or `last_used`.

    `last_used` lists keys never used first, then those used longest ago. `unused` selects keys that
    were never used. Raises `InvalidInput` for another sort order.
    """
    authz.require(principal, Action.KEY_READ)
    return _listed(session, principal, select(ApiKey), cursor, limit, sort, unused=unused)


def list_own_keys(
    session: Session,
    principal: Principal,
    *,
    cursor: str = "",
    limit: int = 50,
    sort: str = "",
    unused: bool = False,
) -> Page[KeyView]:
    """Return the caller's own keys, in the way of `list_keys`."""
    authz.require(principal, Action.KEY_OWN_READ)
    mine = select(ApiKey).where(ApiKey.user_id == principal.user_id)
    return _listed(session, principal, mine, cursor, limit, sort, unused=unused)


def get_key(session: Session, principal: Principal, key_id: str) -> KeyView:
    """Return one key. Raises `NotFound`."""
    authz.require(principal, Action.KEY_READ)
    return _shown(session, principal, [_find(session, key_id)])[0]


def get_current_key(session: Session, principal: Principal) -> KeyView | None:
    """Return the key of this request; None for a user in a browser."""
    row = session.get(ApiKey, principal.key_id) if principal.key_id else None
    return _shown(session, principal, [row])[0] if row else None


def issue_key(
    session: Session, principal: Principal, draft: KeyDraft, *, secret: str | None = None
) -> IssuedKey:
    """Create a key for any user or team. `secret` is set only for the operator's first key."""
    authz.require(principal, Action.KEY_MANAGE)
    if draft.follows_owner and draft.user_id is None:
        raise InvalidRequest(
            "Only a key with an owner can follow its owner.", field="follows_owner"
        )
    return _issue(
        session, principal, draft, secret, SetBy.OWNER if draft.follows_owner else SetBy.ADMIN
    )


def issue_own_key(session: Session, principal: Principal, draft: KeyDraft) -> IssuedKey:
    """Create a key for the caller, with no more access than the caller has.

    It can have one of the caller's teams, and a restricted caller cannot create an unrestricted
    key. It follows the caller's access from then on, and is revoked with the key that created it.
    """
    authz.require(principal, Action.KEY_OWN)
    if draft.follows_owner is False:
        raise InvalidRequest(
            "Your own keys always follow your access. Only an Admin can create one that does not.",
            field="follows_owner",
        )
    if draft.team_id and draft.team_id not in principal.team_ids:
        raise LookOnly("You are not a member of this team.")
    if draft.access_group_ids:
        raise Forbidden("Only an Admin can add access groups to a key.")
    permission = _within_own(session, principal, draft.object_permission or ObjectPermission())
    if principal.key_id is not None and not permission.mcp_servers:
        raise Forbidden("Sign in to create a key, or choose the servers it is for.")
    draft = replace(
        draft,
        user_id=principal.user_id,
        object_permission=permission,
        access_group_ids=(),
        expires_at=_own_expiry(session, principal, draft.expires_at),
    )
    set_by = _set_by(session, principal, permission)
    return _issue(session, principal, draft, None, set_by, issued_with=principal.key_id)


def change_key(
    session: Session,
    principal: Principal,
    key_id: str,
    changes: Mapping[str, object],
    permission: ObjectPermission | None,
    access_group_ids: Collection[str] | None,
) -> KeyView:
    """Change the given fields and grants.

    The fields are `key_alias`, `allowed_routes`, `expires_at` and `follows_owner`. After an Admin
    changes its grants, a key no longer follows its owner, unless `follows_owner` is true. Removing
    grants does not change that.
    """
    authz.require(principal, Action.KEY_MANAGE)
    row = _find(session, key_id)
    before = _views(session, [row])[0]
    _check_routes(changes.get("allowed_routes"))
    if "expires_at" in changes and changes["expires_at"] != row.expires_at:
        _check_age(session, row.created_at, changes["expires_at"])
    if changes.get("follows_owner") and row.user_id is None:
        raise InvalidRequest(
            "Only a key with an owner can follow its owner.", field="follows_owner"
        )
    for name in ("key_alias", "expires_at"):
        if name in changes:
            setattr(row, name, changes[name])
    ends = row.expires_at
    for issued in _issued_with(session, row):
        if ends is not None and (issued.expires_at is None or issued.expires_at > ends):
            issued.expires_at = ends
            audit.record(
                session,
                principal,
                "API key changed",
                "key",
                issued.key_id,
                name=_called(issued),
                ended_with=key_id,
            )
    routes = changes.get("allowed_routes", row.allowed_routes)
    row.allowed_routes = list(routes) if isinstance(routes, list | tuple) else []
    replace_grants(session, ("key", key_id), permission, access_group_ids)
    granted = _views(session, [row])[0]
    grants_before = (before.object_permission, before.access_group_ids)
    grants_after = (granted.object_permission, granted.access_group_ids)
    if changes.get("follows_owner") is not None:
        row.set_by = SetBy.OWNER if changes["follows_owner"] else SetBy.ADMIN
    elif grants_after not in (grants_before, (ObjectPermission(), ())):
        row.set_by = SetBy.ADMIN
    after = _views(session, [row])[0]
    differences = audit.changed(before, after)
    audit.record(
        session, principal, "API key changed", "key", key_id, name=_called(row), changes=differences
    )
    session.flush()
    return _shown(session, principal, [row])[0]


def revoke_key(session: Session, principal: Principal, key_id: str) -> None:
    """Revoke a key, the caller's own or, as Admin, any key. Takes effect with the next request."""
    row = session.get(ApiKey, key_id)
    own = row is not None and row.user_id is not None and row.user_id == principal.user_id
    if not (own and authz.may(principal, Action.KEY_OWN)):
        authz.require(principal, Action.KEY_MANAGE)
    row = _find(session, key_id)
    for ended in (row, *_issued_with(session, row)):
        if ended.revoked_at is None:
            ended.revoked_at = now()
            said: dict[str, Any] = {} if ended is row else {"ended_with": key_id}
            audit.record(
                session,
                principal,
                "API key revoked",
                "key",
                ended.key_id,
                name=_called(ended),
                **said,
            )
    session.flush()


def revoke_own_key(session: Session, principal: Principal, key_id: str) -> None:
    """Revoke one of the caller's keys.

    Raises `Forbidden`, or with admin view `NotFound`, for any other key.
    """
    authz.require(principal, Action.KEY_OWN)
    row = session.get(ApiKey, key_id)
    if row is None or row.user_id != principal.user_id:
        if authz.has_admin_view(principal):
            raise NotFound(f"You have no API key with the ID {key_id[:64]}.")
        raise Forbidden("You have no such API key.")
    revoke_key(session, principal, key_id)


def sweep_keys(session: Session, _principal: Principal) -> None:
    """Delete keys a week after they expired, so that short-lived keys do not fill up lists."""
    over = ApiKey.expires_at <= now() - _SHOWN_AFTERWARDS
    remove_grants_of_keys(session, over)
    session.execute(delete(ApiKey).where(over))


def _issue(
    session: Session,
    principal: Principal,
    draft: KeyDraft,
    secret: str | None,
    set_by: SetBy,
    *,
    issued_with: str | None = None,
) -> IssuedKey:
    _check_holders(session, draft)
    if draft.expires_at is not None and draft.expires_at <= now():
        raise InvalidRequest("This expiry is in the past. Choose a later time.", field="expires_at")
    if secret is None:  # the operator decides when their first key expires
        _check_age(session, now(), draft.expires_at)
    _check_routes(draft.allowed_routes)
    key = secret or f"sk-{secrets.token_urlsafe(32)}"
    row = ApiKey(
        key_alias=draft.key_alias,
        key_hash=hash_key(key),
        key_prefix=key[:_PREFIX_LENGTH],
        user_id=draft.user_id,
        team_id=draft.team_id,
        allowed_routes=list(draft.allowed_routes),
        expires_at=draft.expires_at,
        set_by=set_by,
        issued_with=issued_with,
        issued_by=principal.key_issued_by or principal.user_id,
    )
    session.add(row)
    session.flush()
    replace_grants(session, ("key", row.key_id), draft.object_permission, draft.access_group_ids)
    view = _views(session, [row])[0]
    changes = audit.changed(None, view)
    audit.record(
        session, principal, "API key issued", "key", row.key_id, name=_called(row), changes=changes
    )
    session.flush()
    return IssuedKey(_shown(session, principal, [row])[0], key)


def _issued_with(session: Session, row: ApiKey) -> list[ApiKey]:
    """Return the keys created with `row`, the keys created with those, and so on."""
    found: list[ApiKey] = []
    above = [row.key_id]
    while above:
        next_ones = session.scalars(select(ApiKey).where(ApiKey.issued_with.in_(above))).all()
        found += next_ones
        above = [key.key_id for key in next_ones]
    return found


def _check_holders(session: Session, draft: KeyDraft) -> None:
    if draft.user_id and session.get(User, draft.user_id) is None:
        raise InvalidRequest("User not found.", field="user_id")
    if draft.team_id and session.get(Team, draft.team_id) is None:
        raise InvalidRequest("Team not found.", field="team_id")
    if not draft.user_id and not draft.team_id:
        raise InvalidRequest("Choose a user, a team, or both for the key.", field="user_id")
    has_both = draft.user_id and draft.team_id
    if has_both and session.get(TeamMember, (draft.team_id, draft.user_id)) is None:
        raise InvalidRequest(
            "The owner is not a member of this team, so the key would not work. Add them to the"
            " team first, or leave out the owner or the team.",
            field="team_id",
        )


def _within_own(
    session: Session, principal: Principal, permission: ObjectPermission
) -> ObjectPermission:
    """Narrow `permission` to the caller's tools, after checking the caller's access."""
    if permission.mcp_access_groups or permission.mcp_toolsets:
        raise LookOnly(
            "Choose servers. Only an Admin can grant access groups and toolsets to a key."
        )
    references = (*permission.mcp_servers, *permission.mcp_tool_permissions)
    try:
        ids = resolve_servers(session, references, "object_permission.mcp_servers")
    except InvalidRequest:
        if authz.has_admin_view(principal):
            raise
        # The same as for an existing server, so that ids cannot be guessed.
        raise LookOnly(_NOT_YOURS) from None
    usable = select(Server).where(
        Server.server_id.in_(ids.values()), authz.usable_servers(principal)
    )
    rows = list(session.scalars(usable))
    if len(rows) < len(set(ids.values())):
        raise LookOnly(_NOT_YOURS)
    tools = {ids[reference]: names for reference, names in permission.mcp_tool_permissions.items()}
    groups = queries.groups_of(session, rows)
    for row in rows:
        group_ids = frozenset(group.access_group_id for group in groups[row.server_id])
        own = authz.allowed_tool_names(principal, authz.ServerFacts(row, group_ids))
        if own is None:
            continue
        wanted = tools.setdefault(row.server_id, tuple(sorted(own)))
        if not own.issuperset(wanted):
            raise LookOnly("You do not have access to one of these tools.")
    return replace(permission, mcp_tool_permissions=tools)


def _set_by(session: Session, principal: Principal, permission: ObjectPermission) -> SetBy:
    """Return whether a new key of the caller follows its owner.

    It does, except when it passes on what an Admin granted only to the key that creates it.
    """
    if principal.key_id is None:
        return SetBy.OWNER
    try:
        _within_own(
            session,
            principal_for_user(session, str(principal.user_id), principal.address),
            permission,
        )
    except (Forbidden, InvalidRequest):
        asking = session.get(ApiKey, principal.key_id)
        return SetBy.OWNER if asking is not None and asking.set_by == SetBy.OWNER else SetBy.ADMIN
    return SetBy.OWNER


def _own_expiry(session: Session, principal: Principal, wanted: datetime | None) -> datetime | None:
    """Return the expiry of a key created with another key: no later than that key's."""
    asking = session.get(ApiKey, principal.key_id) if principal.key_id else None
    return min(filter(None, (wanted, asking.expires_at if asking else None)), default=None)


def _check_age(session: Session, created_at: datetime, ends: object) -> None:
    """Raise `InvalidRequest` if the settings require an earlier expiry."""
    most = load_preferences(session).key_max_age_days
    if most is not None and not authz.key_complies(
        most, created_at, ends if isinstance(ends, datetime) else None
    ):
        raise InvalidRequest(
            f"API keys must expire within {most} days. Choose an earlier expiry.",
            field="expires_at",
        )


def _check_routes(routes: object) -> None:
    for route in routes if isinstance(routes, list | tuple) else ():
        if not (isinstance(route, str) and (route.startswith("/v1/") or read_path(route))):
            raise InvalidInput(
                "A route must start with /v1/, for example /v1/mcp/server, or be an address of the"
                " gateway: /mcp for all of it, or the address of one server, such as /github/mcp.",
                field="allowed_routes",
            )


def _called(row: ApiKey) -> str:
    return row.key_alias or row.key_prefix


def _find(session: Session, key_id: str) -> ApiKey:
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFound(f"API key not found: {key_id[:64]}")
    return row


def _listed(
    session: Session,
    principal: Principal,
    query: Select[ApiKey],
    cursor: str,
    limit: int,
    sort: str,
    *,
    unused: bool,
) -> Page[KeyView]:
    if sort not in _ORDERS:
        raise InvalidInput("Sort by age or last_used.", field="sort")
    if unused:
        query = query.where(ApiKey.last_used_at.is_(None))
    order = _ORDERS[sort]
    if order is None:
        rows, next_cursor = paged(session, query, ApiKey.key_id, cursor, limit)
    else:
        rows, next_cursor = paged_by_time(session, query, order, ApiKey.key_id, cursor, limit)
    return Page(tuple(_shown(session, principal, rows)), next_cursor)


_ORDERS: Mapping[str, ColumnElement[datetime] | None] = {
    "": None,
    "age": ApiKey.created_at.expression,
    "last_used": func.coalesce(
        ApiKey.last_used_at, literal(datetime(1970, 1, 1, tzinfo=UTC), UtcDateTime)
    ),
}


def _shown(session: Session, principal: Principal, rows: Sequence[ApiKey]) -> list[KeyView]:
    """Return the views with what each key reaches now."""
    reaches = describe_reaches(session, principal, rows)
    return [replace(view, reach=reaches[view.key_id]) for view in _views(session, rows)]


def _views(session: Session, rows: Sequence[ApiKey]) -> list[KeyView]:
    held = holdings(session, [("key", row.key_id) for row in rows])
    most = load_preferences(session).key_max_age_days
    return [_view(row, held[("key", row.key_id)], most) for row in rows]


def _view(row: ApiKey, held: Holdings, most_days: int | None) -> KeyView:
    return KeyView(
        key_id=row.key_id,
        key_alias=row.key_alias,
        key_prefix=row.key_prefix,
        user_id=row.user_id,
        team_id=row.team_id,
        allowed_routes=tuple(row.allowed_routes),
        object_permission=held.permission,
        access_group_ids=held.access_group_ids,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
        created_at=row.created_at,
        follows_owner=row.set_by == SetBy.OWNER,
        complies=authz.key_complies(most_days, row.created_at, row.expires_at),
    )
