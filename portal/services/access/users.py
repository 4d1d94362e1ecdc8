"""Users: who may sign in, and with which role."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.emails import REFUSED, normal_email
from portal.domain.errors import Conflict, InvalidInput, InvalidRequest, NotFound
from portal.domain.principals import Principal, Role
from portal.services import audit
from portal.services.access import known_sign_ins
from portal.services.access.by_email import find_by_email
from portal.services.access.principals import hash_password
from portal.services.admins import is_last_admin
from portal.services.oauth_client import revocation
from portal.services.paging import Page, paged
from portal.services.servers.grants import (
    ObjectPermission,
    holdings,
    remove_grants,
    remove_grants_of_keys,
    replace_grants,
)
from portal.services.unique import flush_unique
from portal.store.models import ApiKey, BrowserSession, User, UserCredential
from portal.store.oauth_tables import AppGrant

_TAKEN = "This email is already in use."


@dataclass(frozen=True)
class UserView:
    """A user as others may see them."""

    user_id: str
    email: str | None
    display_name: str | None
    role: str
    is_active: bool
    object_permission: ObjectPermission


def list_users(
    session: Session, principal: Principal, *, cursor: str = "", limit: int = 50, q: str = ""
) -> Page[UserView]:
    """Return users, filtered by part of their email or name."""
    authz.require(principal, Action.USER_READ)
    query = select(User)
    if q:
        query = query.where(
            or_(
                func.lower(User.email).contains(q.lower(), autoescape=True),
                func.lower(User.display_name).contains(q.lower(), autoescape=True),
            )
        )
    rows, next_cursor = paged(session, query, User.user_id, cursor, limit)
    return Page(tuple(_views(session, rows)), next_cursor)


def get_user(session: Session, principal: Principal, user_id: str) -> UserView:
    """Return one user. Raises `NotFound`."""
    authz.require(principal, Action.USER_READ)
    return _views(session, [_find(session, user_id)])[0]


def get_self(session: Session, principal: Principal) -> UserView | None:
    """Return the caller's own record; None for a key without an owner."""
    user = session.get(User, principal.user_id) if principal.user_id else None
    return _views(session, [user])[0] if user else None


def create_user(
    session: Session,
    principal: Principal,
    fields: Mapping[str, object],
    permission: ObjectPermission | None = None,
) -> UserView:
    """Add a user. Raises `Conflict` for a taken id or email.

    `fields` are `user_id`, `email`, `display_name`, `role`, `password` and `is_active`.
    """
    authz.require(principal, Action.USER_MANAGE)
    user = User(role=Role.MEMBER.value)
    if fields.get("user_id"):
        user.user_id = str(fields["user_id"])
        if session.get(User, user.user_id) is not None:
            raise Conflict("A user with this ID already exists.", field="user_id")
    _apply(session, user, fields)
    session.add(user)
    flush_unique(session, _TAKEN, "email")
    replace_grants(session, ("user", user.user_id), permission, None)
    view = _views(session, [user])[0]
    changes = audit.changed(None, view)
    audit.record(
        session, principal, "user created", "user", user.user_id, name=user.email, changes=changes
    )
    session.flush()
    return view


def change_user(
    session: Session,
    principal: Principal,
    user_id: str,
    fields: Mapping[str, object],
    permission: ObjectPermission | None = None,
) -> UserView:
    """Change the given fields.

    Deactivating a user or setting a new password ends all their sessions, also in apps.
    """
    authz.require(principal, Action.USER_MANAGE)
    user = _find(session, user_id)
    before = _views(session, [user])[0]
    was_last = is_last_admin(session, user)
    _apply(session, user, fields)
    if was_last and not authz.is_active_admin(user):
        raise InvalidRequest("This is the last Admin. Make another user Admin first.", field="role")
    flush_unique(session, _TAKEN, "email")
    if not user.is_active or fields.get("password"):
        session.execute(delete(BrowserSession).where(BrowserSession.user_id == user_id))
        session.execute(delete(AppGrant).where(AppGrant.user_id == user_id))
    replace_grants(session, ("user", user_id), permission, None)
    after = _views(session, [user])[0]
    changes = audit.changed(before, after) | (
        {"password": "changed"} if fields.get("password") else {}
    )
    audit.record(
        session, principal, "user changed", "user", user_id, name=user.email, changes=changes
    )
    session.flush()
    return after


def delete_user(session: Session, principal: Principal, user_id: str) -> None:
    """Delete a user with their sessions, keys, credentials and values."""
    authz.require(principal, Action.USER_MANAGE)
    user = _find(session, user_id)
    if is_last_admin(session, user):
        raise InvalidRequest(
            "This is the last Admin. Make another user Admin first.", field="user_id"
        )
    changes = audit.changed(_views(session, [user])[0], None)
    remove_grants(session, ("user", user_id))
    remove_grants_of_keys(session, ApiKey.user_id == user_id)
    to_revoke = revocation.note_for_revocation(session, UserCredential.user_id == user_id)
    session.delete(user)
    audit.record(
        session,
        principal,
        "user deleted",
        "user",
        user_id,
        name=user.email,
        changes=changes,
        connections_to_revoke=to_revoke,
    )
    session.flush()


def _apply(session: Session, user: User, fields: Mapping[str, object]) -> None:
    if "email" in fields:
        _set_email(session, user, fields["email"])
    if "display_name" in fields:
        user.display_name = str(fields["display_name"]) if fields["display_name"] else None
    if fields.get("role") is not None:
        try:
            user.role = Role(str(fields["role"])).value
        except ValueError:
            raise InvalidInput(f"Choose one of: {', '.join(Role)}.", field="role") from None
    if fields.get("is_active") is not None:
        user.is_active = bool(fields["is_active"])
    if fields.get("password"):
        user.password_hash = hash_password(session, str(fields["password"]), user)
        user.must_change_password = bool(fields.get("must_change_password", False))
        known_sign_ins.forget_sign_ins(session, user.user_id)


def _set_email(session: Session, user: User, given: object) -> None:
    """Store an email in its normal form. An email stored before that form existed is kept."""
    email = given.strip() if isinstance(given, str) else ""
    if user.email is not None and email.lower() == user.email:
        return
    if not email:
        user.email = None
        return
    normal = normal_email(email)
    if not normal:
        raise InvalidInput(REFUSED, field="email")
    with session.no_autoflush:
        namesake = find_by_email(session, normal)
    if namesake is not None and namesake is not user:
        raise Conflict(_TAKEN, field="email")
    user.email = normal


def _find(session: Session, user_id: str) -> User:
    user = session.get(User, user_id)
    if user is None:
        raise NotFound(f"User not found: {user_id[:64]}")
    return user


def _views(session: Session, rows: Sequence[User]) -> list[UserView]:
    held = holdings(session, [("user", row.user_id) for row in rows])
    return [
        UserView(
            row.user_id,
            row.email,
            row.display_name,
            row.role,
            row.is_active,
            held[("user", row.user_id)].permission,
        )
        for row in rows
    ]
