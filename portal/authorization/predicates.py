"""Predicates about the caller."""

from sqlalchemy import ColumnElement, and_

from portal.authorization.actions import ServerFacts
from portal.domain.principals import Principal, Role
from portal.store.models import User


def is_admin(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Return whether the caller is an Admin, in a browser or with a key."""
    return principal.role is Role.ADMIN


def has_admin_view(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Return whether the caller is Admin or Read-only admin, without a restricted key."""
    return principal.role.has_admin_view and not principal.is_restricted_key


def is_person(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Return whether the caller has a user record, in a browser or with a key."""
    return principal.user_id is not None


def is_not_restricted(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Return whether the caller uses no restricted key."""
    return not principal.is_restricted_key


def is_unbound(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Return whether the caller uses no key with its own routes or grants.

    Such a key may not grant more than it has. Changing users, keys, teams, groups, toolsets or
    settings can grant anything, so it may change none of them. Neither may an app that a user
    allowed to use one server, toolset or the gateway.
    """
    if principal.app_id is not None:
        return False
    own = ("key", principal.key_id)
    has_grants = any(level.holder == own for route in principal.routes_of_access for level in route)
    return principal.key_id is None or not (principal.is_restricted_key or has_grants)


def is_known(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Return whether the caller is authenticated."""
    return principal.user_id is not None or principal.key_id is not None or principal.is_operator


def is_operator(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Return whether the caller is a command on the portal's own host."""
    return principal.is_operator


def is_member(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Return whether the caller is a Member; Admins add servers directly, Viewers submit none."""
    return principal.role is Role.MEMBER and not principal.is_restricted_key


def may_take_route(principal: Principal, path: str) -> bool:
    """Return whether a key's `allowed_routes` (path prefixes) allow `path`; none allows all."""
    prefixes = [route.rstrip("/") for route in principal.allowed_routes]
    return not prefixes or any(
        path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes
    )


def may_take_endpoint(principal: Principal, path: str) -> bool:
    """Return whether a key's `allowed_routes` include `path` of the gateway, or `/mcp` for all."""
    return may_take_route(principal, path) or may_take_route(principal, "/mcp")


def may_ask_for_team(principal: Principal, team_id: str) -> bool:
    """Return whether the caller may list a team's servers: with admin view, or as its member."""
    return has_admin_view(principal) or (
        team_id in principal.team_ids and not principal.is_restricted_key
    )


def has_key_issued_by(principal: Principal, person: str | None) -> bool:
    """Return whether `person` issued the caller's key, so that they may be the caller."""
    return person is not None and principal.key_issued_by == person


def may_approve_of(principal: Principal, author: str | None, *, has_other_admin: bool) -> bool:
    """Return whether an Admin may approve what `author` (a user ID) proposed.

    They may not approve their own submission if another Admin can, nor use a key that the author
    issued, who may be the caller.
    """
    if has_key_issued_by(principal, author):
        return False
    return principal.user_id is None or principal.user_id != author or not has_other_admin


def is_active_admin(user: User) -> bool:
    """Return whether the user can govern the portal. The last one cannot be changed or deleted."""
    return user.role == Role.ADMIN and user.is_active


def active_admins() -> ColumnElement[bool]:
    """Return the condition on `User` that is equivalent to `is_active_admin`."""
    return and_(User.role == Role.ADMIN.value, User.is_active)
