"""Sign-in with an OpenID provider: the redirect, the response, and the matching account."""

import base64
import secrets
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden, InvalidRequest, NotFound, UpstreamFailure
from portal.domain.principals import Principal, Role
from portal.domain.sign_in import (
    Identity,
    SignInProvider,
    mapped_teams,
    may_come_in,
    read_identity,
    role_of,
)
from portal.services import audit
from portal.services.access.by_email import find_by_email
from portal.services.access.principals import principal_for_user
from portal.services.admins import is_last_admin
from portal.services.oauth_client import flows
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.store.models import Team, TeamMember, User, new_id

_KIND = "sign_in"


@dataclass(frozen=True)
class Arrived:
    """A user back from their provider: their account, where to go, and how to sign out."""

    user_id: str
    go_to: str
    provider: str
    id_token: str


def list_providers(session: Session) -> tuple[tuple[str, str], ...]:
    """Return the providers' names and labels, for the buttons of the sign-in page."""
    return tuple(
        (provider.name, provider.label) for provider in runtime_of(session).providers.values()
    )


def list_callbacks(session: Session, principal: Principal) -> tuple[tuple[str, str, str], ...]:
    """Return each provider's label, issuer and redirect URI to register."""
    authz.require(principal, Action.PREFERENCE_READ)
    providers = runtime_of(session).providers.values()
    return tuple(
        (provider.label, provider.issuer, _callback(session, provider.name))
        for provider in providers
    )


def begin_sign_in(session: Session, name: str, *, browser: str, go_to: str) -> str:
    """Return the URL to send the browser to. Raises `NotFound` and `UpstreamFailure`."""
    provider = _provider(session, name)
    verifier = secrets.token_urlsafe(48)
    nonce = secrets.token_urlsafe(32)
    contents = {"provider": name, "verifier": verifier, "nonce": nonce, "go_to": go_to}
    runtime = runtime_of(session)
    runtime.openid.meet(provider)  # before any write, because this can take a while
    _, state = flows.begin_flow(session, _KIND, contents, browser=browser)
    return runtime.openid.authorization_url(
        provider, redirect_uri=_callback(session, name), state=state, nonce=nonce, verifier=verifier
    )


def take_answer(session: Session, name: str, state: str, browser: str | None) -> flows.Flow:
    """Consume the sign-in that a response belongs to. Raises `InvalidRequest` if there is none."""
    flow = flows.take_flow(session, state, kinds=(_KIND,), browser=browser)
    if flow is None or flow.contents.get("provider") != name:
        raise InvalidRequest(
            "This sign-in is no longer valid: it was already used, took longer than ten minutes,"
            " or was started in another browser.",
            code="sign_in_expired",
        )
    return flow


def complete_sign_in(
    session: Session, flow: flows.Flow, *, code: str, iss: str | None, address: str | None
) -> Arrived:
    """Verify the identity of the returning user, and sign them in.

    Raises `UpstreamFailure` if the provider's response proves nothing, and `Forbidden` if the rules
    do not admit the user.
    """
    provider = _provider(session, str(flow.contents["provider"]))
    openid = runtime_of(session).openid
    openid.check_response_issuer(provider, iss)
    claims, id_token = openid.claims(
        provider,
        code=code,
        redirect_uri=_callback(session, provider.name),
        nonce=str(flow.contents["nonce"]),
        verifier=str(flow.contents["verifier"]),
    )
    identity = read_identity(provider, claims)
    user = _account_of(session, provider, identity)
    principal = principal_for_user(session, user.user_id, address)
    audit.record(
        session,
        principal,
        "signed in",
        "user",
        user.user_id,
        name=principal.name,
        provider=provider.name,
    )
    session.flush()
    sealed = runtime_of(session).vault.seal(id_token, bindings.of_id_token(user.user_id))
    return Arrived(
        user.user_id, str(flow.contents["go_to"]), provider.name, base64.b64encode(sealed).decode()
    )


def end_at_provider(
    session: Session, principal: Principal, name: str, id_token: str, *, back_to: str
) -> str | None:
    """Return the provider's sign-out URL; None if it offers none or cannot be reached.

    `id_token` comes sealed from `complete_sign_in`, and is opened only to send it to its provider.
    """
    runtime = runtime_of(session)
    provider = runtime.providers.get(name)
    if provider is None or principal.user_id is None:
        return None
    try:
        hint = None
        if id_token:
            place = bindings.of_id_token(principal.user_id)
            hint = runtime.vault.open(base64.b64decode(id_token), place)
        return runtime.openid.end_session_url(provider, back_to=back_to, id_token=hint)
    except (UpstreamFailure, ValueError):
        return None


def _provider(session: Session, name: str) -> SignInProvider:
    provider = runtime_of(session).providers.get(name)
    if provider is None:
        raise NotFound("Sign-in provider not found.")
    return provider


def _callback(session: Session, name: str) -> str:
    return f"{runtime_of(session).public_url}/login/{name}/callback"


def _account_of(session: Session, provider: SignInProvider, identity: Identity) -> User:
    """Return the account of an identity: by subject, by verified email if allowed, or a new one."""
    role = role_of(provider, identity)
    if not may_come_in(provider, identity) or role is None:
        raise Forbidden(
            f"You signed in to {provider.label}, but the portal’s rules do not give you access."
            " Ask an Admin for access.",
            code="not_admitted",
        )
    known = select(User).where(
        User.sso_issuer == identity.issuer, User.sso_subject == identity.subject
    )
    user = session.scalar(known)
    if user is None:
        user = _linked_or_new(session, provider, identity, role)
    if not user.is_active:
        raise Forbidden("Your account is deactivated. Ask an Admin.", code="deactivated")
    _apply_rules(session, provider, identity, user, role)
    return user


def _linked_or_new(
    session: Session, provider: SignInProvider, identity: Identity, role: Role
) -> User:
    if identity.has_odd_email:
        raise Forbidden(
            f"The email domain that {provider.label} reports for you is invalid or imitates"
            " another domain, so no account can be created for it. Ask an Admin.",
            code="odd_email",
        )
    namesake = find_by_email(session, identity.email) if identity.email else None
    if namesake is not None and (not provider.link_by_email or namesake.sso_subject is not None):
        raise Forbidden(
            "An account with your email exists, but is not linked to this sign-in provider. Ask"
            " an Admin.",
            code="not_linked",
        )
    user = namesake or User(
        user_id=new_id(), email=identity.email, display_name=identity.name, role=role.value
    )
    user.sso_issuer, user.sso_subject = identity.issuer, identity.subject
    session.add(user)
    try:
        session.flush()
    except IntegrityError:  # the same user signed in from two tabs at once
        raise InvalidRequest(
            "You signed in twice at the same time. Try again.", code="sign_in_expired"
        ) from None
    made = Principal(
        name=identity.email or identity.name or user.user_id,
        role=Role(user.role),
        user_id=user.user_id,
    )
    what = "account linked" if namesake is not None else "user created"
    audit.record(session, made, what, "user", user.user_id, name=made.name, provider=provider.name)
    return user


def _apply_rules(
    session: Session, provider: SignInProvider, identity: Identity, user: User, role: Role
) -> None:
    """Apply the configured role and team rules at every sign-in.

    The last Admin always stays Admin, so that someone can correct the rules.
    """
    made = Principal(name=f"{provider.label} (sign-in rules)", role=Role(user.role))
    if provider.roles and user.role != role.value and not is_last_admin(session, user):
        changes = {"role": {"before": user.role, "after": role.value}}
        user.role = role.value
        audit.record(
            session, made, "user changed", "user", user.user_id, name=user.email, changes=changes
        )
    mapped = {
        team.team_alias: team.team_id
        for team in session.scalars(
            select(Team).where(Team.team_alias.in_(provider.teams.values()))
        )
    }
    wanted = {mapped[alias] for alias in mapped_teams(provider, identity) if alias in mapped}
    held = {
        member.team_id: member
        for member in session.scalars(
            select(TeamMember).where(
                TeamMember.user_id == user.user_id, TeamMember.team_id.in_(mapped.values())
            )
        )
    }
    for team_id in wanted - held.keys():
        session.add(TeamMember(team_id=team_id, user_id=user.user_id))
    for team_id in held.keys() - wanted:
        session.delete(held[team_id])
    if wanted != held.keys():
        audit.record(
            session,
            made,
            "teams set by sign-in",
            "user",
            user.user_id,
            name=user.email,
            joined=sorted(wanted - held.keys()),
            left=sorted(held.keys() - wanted),
        )
    session.flush()
