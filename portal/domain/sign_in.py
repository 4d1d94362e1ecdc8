"""The operator's rules for users of an OpenID provider: who may sign in, roles and teams."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from portal.domain.emails import domain_of, listed_domain, normal_email
from portal.domain.oauth import Client
from portal.domain.principals import Role

_STRONGEST_FIRST = (Role.ADMIN, Role.ADMIN_VIEWER, Role.MEMBER, Role.VIEWER)


@dataclass(frozen=True)
class SignInProvider:
    """An OpenID provider and the operator's rules for its users.

    `roles` and `teams` map a value of the claim `groups_claim` to a role or a team's alias. If
    `roles` is not empty, it sets the role at every sign-in. Users without a mapped group get
    `default_role`, or cannot sign in if that is None.
    """

    name: str
    label: str
    issuer: str
    client: Client = field(repr=False)
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    email_domains: tuple[str, ...] = ()
    groups_claim: str = "groups"
    roles: Mapping[str, Role] = field(default_factory=dict)
    teams: Mapping[str, str] = field(default_factory=dict)
    default_role: Role | None = Role.MEMBER
    link_by_email: bool = False


@dataclass(frozen=True)
class Identity:
    """A user identified by issuer and subject of a provider. `email` is set only if verified."""

    issuer: str
    subject: str
    email: str | None
    name: str | None
    groups: frozenset[str]
    has_odd_email: bool = False
    """Whether the verified email is invalid or a lookalike of another."""


def read_identity(provider: SignInProvider, claims: Mapping[str, Any]) -> Identity:
    """Return the identity in validated claims. Uses the email only if `email_verified` is true."""
    email = claims.get("email") if claims.get("email_verified") is True else None
    name = claims.get("name") or claims.get("preferred_username")
    groups = claims.get(provider.groups_claim)
    listed = [groups] if isinstance(groups, str) else groups
    if not isinstance(listed, list):
        listed = []
    return Identity(
        issuer=str(claims["iss"]),
        subject=str(claims["sub"]),
        email=(normal_email(email) or None) if isinstance(email, str) else None,
        name=name.strip()[:200] if isinstance(name, str) and name.strip() else None,
        groups=frozenset(group for group in listed if isinstance(group, str)),
        has_odd_email=isinstance(email, str) and email.strip() != "" and not normal_email(email),
    )


def may_come_in(provider: SignInProvider, identity: Identity) -> bool:
    """Return whether the user's email domain is allowed. Without a rule, all domains are."""
    if not provider.email_domains:
        return True
    allowed = {listed_domain(domain) for domain in provider.email_domains} - {""}
    return domain_of(identity.email or "") in allowed


def role_of(provider: SignInProvider, identity: Identity) -> Role | None:
    """Return the highest role of the user's groups, or `default_role`."""
    given = {role for group, role in provider.roles.items() if group in identity.groups}
    return next((role for role in _STRONGEST_FIRST if role in given), provider.default_role)


def mapped_teams(provider: SignInProvider, identity: Identity) -> frozenset[str]:
    """Return the aliases of the teams of the user's groups."""
    return frozenset(alias for group, alias in provider.teams.items() if group in identity.groups)
