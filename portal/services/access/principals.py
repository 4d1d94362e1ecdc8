"""Building principals from users and keys. These services run before the caller is known."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Select, bindparam, delete, select, update
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.addresses import is_internal
from portal.domain.emails import email_forms
from portal.domain.errors import InvalidInput, Unauthenticated
from portal.domain.passwords import check_new_password
from portal.domain.principals import STRANGER, Principal, Role
from portal.services import audit
from portal.services.access import dormancy, known_sign_ins
from portal.services.access.by_email import find_by_email
from portal.services.access.known_sign_ins import Known
from portal.services.instance_settings import STORED, load_preferences, preferences_of
from portal.services.runtime import runtime_of
from portal.services.servers.grants import Holder, Holdings, few_servers, holdings, servers_in
from portal.store import watching
from portal.store.database import read
from portal.store.models import ApiKey, TeamMember, User, now
from portal.store.oauth_tables import AppGrant

_LAST_USED_STEP = timedelta(seconds=60)


def hash_key(secret: str) -> str:
    """Return the SHA-256 of an API key; its 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def principal_for_user(session: Session, user_id: str, address: str | None) -> Principal:
    """Return the principal of a signed-in user: the union of their own and their teams' grants.

    This is rule 4 of the authorization rules. Raises `Unauthenticated` if the user was deleted or
    deactivated.
    """
    return person_of(session, user_id, address)[0]


def person_of(session: Session, user_id: str, address: str | None) -> tuple[Principal, "Profile"]:
    """Return `principal_for_user` with the user's profile, because every page needs both."""
    user = read(session, _USER, user_id=user_id).one_or_none()
    if user is None or not user.is_active:
        raise Unauthenticated("Sign in to continue.")
    teams = frozenset(read(session, _TEAMS, user_id=user_id).scalars())
    held = holdings(session, _holders(user_id, teams))
    principal = _person(session, user, teams, held, address)
    dormancy.check_person(user.dormant, may_wake=authz.may(principal, Action.KEY_MANAGE))
    return principal, _profile(session, user)


def _holders(user_id: str, teams: frozenset[str]) -> list[Holder]:
    return [("user", user_id), *(("team", team_id) for team_id in teams)]


def _person(
    session: Session,
    user: Any,
    teams: frozenset[str],
    held: Mapping[Holder, Holdings],
    address: str | None,
    *,
    few: bool = True,
) -> Principal:
    """Build the principal of a row of `_USER` or `_KEY`.

    Without `few`, the servers within reach are not looked up in advance.
    """
    reaches = [
        held[("user", user.user_id)].reach,
        *(held[("team", team_id)].with_own_groups() for team_id in teams),
    ]
    preferences = preferences_of(user.preferences)
    role = Role(user.role)
    return Principal(
        name=user.email or user.display_name or user.user_id,
        role=role,
        user_id=user.user_id,
        team_ids=teams,
        routes_of_access=tuple((reach,) for reach in reaches if reach.names_anything),
        is_internal=is_internal(address, preferences.mcp_internal_ip_ranges),
        few_servers=few_servers(session, reaches) if few and not role.has_admin_view else None,
        view_all=preferences.user_mcp_management_mode == "view_all",
        address=address,
    )


_PREFERENCES = STORED.scalar_subquery().label("preferences")
_DORMANT = dormancy.STATE.scalar_subquery().label("dormant")
_USER = select(
    User.user_id,
    User.email,
    User.display_name,
    User.role,
    User.is_active,
    User.theme,
    User.must_change_password,
    User.password_hash.is_not(None).label("has_password"),
    User.sso_issuer,
    _PREFERENCES,
    _DORMANT,
).where(User.user_id == bindparam("user_id"))
_TEAMS = select(TeamMember.team_id).where(TeamMember.user_id == bindparam("user_id"))


def principal_for_key(session: Session, secret: str, address: str | None) -> Principal:
    """Return the principal of an API key, within its own limits and its owner's (rules 2 to 4).

    Raises `Unauthenticated` for an unknown, expired or revoked key, for one whose owner is
    deactivated, and for a key of a user and a team if the user is not a member.
    """
    return _principal_of(session, _KEY_BY_HASH, hash_key(secret), address)


def principal_for_key_id(session: Session, key_id: str, address: str | None) -> Principal:
    """Return the principal of a key by id, only to explain its access, never to authenticate."""
    return _principal_of(session, _KEY_BY_ID, key_id, address)


def stranger(session: Session, address: str | None) -> Principal:
    """Return the principal of an unauthenticated caller at `address`."""
    ranges = load_preferences(session).mcp_internal_ip_ranges
    return replace(STRANGER, is_internal=is_internal(address, ranges), address=address)


_KEY = select(
    ApiKey.key_id,
    ApiKey.key_alias,
    ApiKey.key_prefix,
    ApiKey.user_id,
    ApiKey.team_id,
    ApiKey.allowed_routes,
    ApiKey.set_by,
    ApiKey.revoked_at,
    ApiKey.expires_at,
    User.email,
    User.display_name,
    User.role,
    User.is_active,
    authz.owner_is_member().label("is_member"),
    ApiKey.created_at,
    ApiKey.issued_by,
    _PREFERENCES,
    _DORMANT,
).outerjoin(User, User.user_id == ApiKey.user_id)
_KEY_BY_HASH = _KEY.where(ApiKey.key_hash == bindparam("which"))
_KEY_BY_ID = _KEY.where(ApiKey.key_id == bindparam("which"))
_TEAMS_OF = select(TeamMember.user_id, TeamMember.team_id).where(
    TeamMember.user_id.in_(bindparam("user_ids", expanding=True))
)


def _principal_of(
    session: Session, statement: Select[*tuple[Any, ...]], which: str, address: str | None
) -> Principal:
    key = read(session, statement, which=which).one_or_none()
    if key is None or _fault(key) is not None:
        raise Unauthenticated("A valid API key is required.")
    dormancy.check_key(key.dormant, key.created_at)
    return _principals(session, [key], address)[0]


def _fault(key: Any) -> authz.KeyFault | None:
    facts = authz.KeyFacts(
        revoked_at=key.revoked_at,
        expires_at=key.expires_at,
        has_owner=key.user_id is not None,
        owner_is_active=bool(key.is_active),
        has_team=key.team_id is not None,
        owner_is_member=bool(key.is_member),
    )
    return authz.key_fault(facts, now())


def judge_keys(
    session: Session, key_ids: Collection[str], address: str | None
) -> dict[str, tuple[authz.KeyFault | None, Principal]]:
    """Return for each key its fault, if any, and its principal, in a few queries.

    Only for showing what keys reach, never to authenticate.
    """
    keys = read(session, _KEY.where(ApiKey.key_id.in_(sorted(key_ids)))).all() if key_ids else []
    made = _principals(session, keys, address, few=len(keys) == 1)
    return {key.key_id: (_fault(key), principal) for key, principal in zip(keys, made, strict=True)}


def _principals(
    session: Session, keys: Sequence[Any], address: str | None, *, few: bool = True
) -> list[Principal]:
    following = {key.user_id for key in keys if key.user_id and key.set_by == authz.SetBy.OWNER}
    teams = {user_id: frozenset[str]() for user_id in following}
    for user_id, team_id in (
        read(session, _TEAMS_OF, user_ids=sorted(following)) if following else ()
    ):
        teams[user_id] |= {team_id}
    holders: dict[Holder, None] = {("key", key.key_id): None for key in keys}
    holders |= {("team", key.team_id): None for key in keys if key.team_id}
    holders |= {
        holder: None for user_id in following for holder in _holders(user_id, teams[user_id])
    }
    held = holdings(session, holders)
    owners = {
        key.user_id: _person(session, key, teams[key.user_id], held, address, few=few)
        for key in {key.user_id: key for key in keys if key.user_id in following}.values()
    }
    return [_principal(session, key, held, owners, address, few=few) for key in keys]


def _principal(
    session: Session,
    key: Any,
    held: Mapping[Holder, Holdings],
    owners: Mapping[str, Principal],
    address: str | None,
    *,
    few: bool,
) -> Principal:
    follows = key.user_id is not None and key.set_by == authz.SetBy.OWNER
    own = held[("key", key.key_id)]
    preferences = preferences_of(key.preferences)
    role = Role(key.role) if key.user_id else Role.MEMBER
    groups = own.reach.access_group_ids | frozenset(own.access_group_ids)
    asking = Principal(
        name=(key.email or key.user_id) if key.user_id else (key.key_alias or key.key_prefix),
        role=role,
        user_id=key.user_id,
        key_id=key.key_id,
        team_id=key.team_id,
        team_ids=frozenset([key.team_id] if key.team_id else []),
        allowed_routes=tuple(key.allowed_routes),
        key_issued_by=key.issued_by if key.issued_by != key.user_id else None,
        is_internal=is_internal(address, preferences.mcp_internal_ip_ranges),
        view_all=preferences.user_mcp_management_mode == "view_all",
        address=address,
    )
    made = authz.reach_of_key(
        asking,
        own=own.reach,
        own_groups=frozenset(own.access_group_ids) if own.has_own_groups else None,
        team=held[("team", key.team_id)].with_own_groups() if key.team_id else None,
        owner=owners[key.user_id] if follows else None,
        in_groups=servers_in(session, groups) if follows and role.has_admin_view else frozenset(),
    )
    if not few or role.has_admin_view or made.few_servers is not None:
        return made
    return replace(
        made,
        few_servers=few_servers(session, [of for route in made.routes_of_access for of in route]),
    )


@dataclass(frozen=True)
class Profile:
    """A user as they see themselves."""

    user_id: str
    email: str | None
    display_name: str
    role_label: str
    theme: str
    must_change_password: bool
    has_password: bool = True
    dormant_because: str | None = None
    signs_in_with: str | None = None


def _profile(session: Session, user: Any) -> Profile:
    name = user.display_name or user.email or user.user_id
    providers = runtime_of(session).providers.values()
    label = next((p.label for p in providers if p.issuer == user.sso_issuer), None)
    return Profile(
        user.user_id,
        user.email,
        name,
        Role(user.role).label,
        user.theme,
        user.must_change_password,
        has_password=user.has_password,
        signs_in_with=label,
        dormant_because=user.dormant["because"] if user.dormant else None,
    )


def change_profile(
    session: Session, principal: Principal, *, display_name: str, theme: str
) -> None:
    """Change the caller's own name and theme."""
    user = session.get(User, principal.user_id)
    if user is None or principal.key_id is not None:
        raise Unauthenticated("Sign in to continue.")
    if theme not in ("auto", "light", "dark"):
        raise InvalidInput("Choose auto, light or dark.", field="theme")
    user.display_name, user.theme = display_name.strip() or None, theme
    session.flush()


def is_use_noted(session: Session, principal: Principal) -> bool:
    """Return whether the key's use in the last minute is already recorded."""
    used_at = read(session, _USED_AT, key_id=principal.key_id).scalar()
    return used_at is not None and used_at > now() - _LAST_USED_STEP


_USED_AT = select(ApiKey.last_used_at).where(ApiKey.key_id == bindparam("key_id"))


def note_key_use(session: Session, principal: Principal) -> None:
    """Record that a key was used, to the minute."""
    session.execute(
        update(ApiKey).where(ApiKey.key_id == principal.key_id).values(last_used_at=now())
    )


def check_password(session: Session, email: str, password: str) -> User:
    """Return the user with this email and password. Raises `Unauthenticated`.

    Every failure has the same message and takes the same time.
    """
    runtime = runtime_of(session)
    user = find_by_email(session, email)
    stored = user.password_hash if user else None
    try:
        runtime.hasher.verify(stored or runtime.decoy_hash, password)
        correct = user is not None and stored is not None and user.is_active
    except (VerificationError, InvalidHashError):
        correct = False
    if user is None or not correct:
        raise Unauthenticated("Incorrect email or password.")
    if stored and runtime.hasher.check_needs_rehash(stored):
        _hash_anew(session, user, stored, password)
    return user


def _hash_anew(session: Session, user: User, stored: str, password: str) -> None:
    """Rehash the same password with current parameters, without logging a password change."""
    user.password_hash = f"{stored}{watching.SAME}"
    session.flush()
    user.password_hash = runtime_of(session).hasher.hash(password)
    session.flush()


def sign_in(session: Session, email: str, password: str, address: str | None, device: str) -> str:
    """Sign in with email and password, audit it, and return the user id. Raises `Unauthenticated`.

    The user is then known in the browser with the secret `device` and at `address`.
    """
    user_id = check_password(session, email, password).user_id
    principal = principal_for_user(session, user_id, address)
    known_sign_ins.note_sign_in(session, user_id, device, address)
    audit.record(session, principal, "signed in", "user", user_id, name=principal.name)
    session.flush()
    return user_id


def known_from(
    session: Session, email: str, device: str | None, address: str | None
) -> Known | None:
    """Return how the user with this email is known at this browser or address, if at all."""
    return known_sign_ins.find_known(session, email_forms(email), device, address)


def sign_out(session: Session, principal: Principal) -> None:
    """Audit that the user signed out; the web layer ends the session."""
    audit.record(session, principal, "signed out", "user", principal.user_id, name=principal.name)
    session.flush()


def change_password(session: Session, principal: Principal, current: str, new: str) -> None:
    """Set the caller's own password, and end the tokens of their apps. Raises `InvalidInput` naming
    the field."""
    user = session.get(User, principal.user_id)
    if user is None or principal.key_id is not None:
        raise Unauthenticated("Sign in to continue.")
    try:
        check_password(session, user.email or "", current)
    except Unauthenticated:
        raise InvalidInput("This is not your current password.", field="current_password") from None
    if new == current:
        raise InvalidInput(
            "Choose a password that differs from the current one.", field="new_password"
        )
    user.password_hash = hash_password(session, new, user, field="new_password")
    user.must_change_password = False
    known_sign_ins.forget_sign_ins(session, user.user_id)
    session.execute(delete(AppGrant).where(AppGrant.user_id == user.user_id))
    audit.record(session, principal, "password changed", "user", user.user_id)
    session.flush()


def hash_password(session: Session, password: str, user: User, field: str = "password") -> str:
    """Return the Argon2id hash of a new password. Raises `InvalidInput` if it is refused."""
    check_new_password(password, (user.email, user.display_name), field=field)
    try:
        return runtime_of(session).hasher.hash(password)
    except UnicodeEncodeError:
        raise InvalidInput(
            "The password contains an invalid character. Enter it again.", field=field
        ) from None
