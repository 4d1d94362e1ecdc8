"""Facts about who asks."""

from sqlalchemy import ColumnElement, and_

from portal.authorization.actions import ServerFacts
from portal.domain.principals import Principal, Role
from portal.store.models import User


def is_admin(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """A full Admin, in person or by key."""
    return principal.role is Role.ADMIN


def has_admin_view(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Admin or Read-only admin; a restricted key never has it, whoever owns it."""
    return principal.role.has_admin_view and not principal.is_restricted_key


def is_person(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Somebody with an own user record, in person or by key."""
    return principal.user_id is not None


def is_not_restricted(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Whoever asks, unless it is by a restricted key."""
    return not principal.is_restricted_key


def is_unbound(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Whoever asks with all that they have: in person, or by a key without routes and grants of its
    own.

    A key with any may hand out no more than it has itself, and whoever changes people, keys, teams,
    groups, toolsets and settings can hand out anything: such a key changes none of them. Neither
    does an app, which a person let use one server, toolset or the gateway.
    """
    if principal.app_id is not None:
        return False
    own = ("key", principal.key_id)
    has_grants = any(level.holder == own for route in principal.routes_of_access for level in route)
    return principal.key_id is None or not (principal.is_restricted_key or has_grants)


def is_known(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Somebody who showed a key or has signed in."""
    return principal.user_id is not None or principal.key_id is not None or principal.is_operator


def is_operator(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """A command on the portal's own host."""
    return principal.is_operator


def is_member(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """A Member, in person or by key; an Admin adds servers directly, a Viewer proposes none."""
    return principal.role is Role.MEMBER and not principal.is_restricted_key


def may_take_route(principal: Principal, path: str) -> bool:
    """Whether a key's `allowed_routes`, which are path prefixes, let it call `path`; a key without
    any is not bound."""
    prefixes = [route.rstrip("/") for route in principal.allowed_routes]
    return not prefixes or any(
        path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes
    )


def may_ask_for_team(principal: Principal, team_id: str) -> bool:
    """Whether a list may be narrowed to what a team is granted: by those with admin view and by its
    members."""
    return has_admin_view(principal) or (
        team_id in principal.team_ids and not principal.is_restricted_key
    )


def has_foreign_key(principal: Principal) -> bool:
    """Whether somebody else than the owner issued the key that asks, so that they may be who
    asks."""
    return principal.key_issued_by is not None


def may_approve_of(principal: Principal, author: str | None, *, has_other_admin: bool) -> bool:
    """Whether an Admin may approve what `author` (a person's id) proposed: not their own, if
    another Admin can, and not by a key that somebody else issued, who may be the author."""
    if has_foreign_key(principal):
        return False
    return principal.user_id is None or principal.user_id != author or not has_other_admin


def is_active_admin(user: User) -> bool:
    """Somebody who can govern the portal. There is always one: the last can be neither changed nor
    removed."""
    return user.role == Role.ADMIN and user.is_active


def active_admins() -> ColumnElement[bool]:
    """The condition on `User` that says what `is_active_admin` says."""
    return and_(User.role == Role.ADMIN.value, User.is_active)
