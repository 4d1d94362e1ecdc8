"""The authorization server half of `protected_mcp_server`: grants kept in memory, behind the Python
SDK's routes.

Tokens belong to a grant. A refresh token works once (RFC 9700, 4.14.2): the second use ends the
whole grant, and so does revoking either token of a pair (RFC 7009).
"""

import asyncio
import secrets
import time
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any

import httpx2
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    AuthorizeError,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    TokenError,
    construct_redirect_uri,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyUrl

BASE_SCOPE = "mcp"
CODE_SECONDS = 60
asking_user: ContextVar[str | None] = ContextVar("asking_user", default=None)


@dataclass
class Behavior:
    """What a test may change while the server runs."""

    user: str = "alice"
    consent: str = "auto"
    access_seconds: float = 3600
    token_delay_seconds: float = 0
    registration: bool = True
    step_up_scope: str = "admin"
    refresh_tokens: bool = True
    client_documents: bool = False
    response_iss: bool = False

    def change(self, changes: dict[str, Any]) -> None:
        """Set the named fields; raises ValueError for a name that is none of them."""
        unknown = set(changes) - {known.name for known in fields(self)}
        if unknown:
            raise ValueError(f"no such behavior: {sorted(unknown)}")
        for name, value in changes.items():
            setattr(self, name, value)


@dataclass
class Grant:
    """What one person allowed one client, and the newest pair of tokens for it."""

    subject: str
    client_id: str
    resource: str | None
    access: AccessToken | None = None
    expires: float = 0
    refresh: RefreshToken | None = None
    revoked: bool = False


class Authority(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """Clients, codes and grants of one authorization server at `issuer`."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.forget()

    def forget(self) -> None:
        """Begin afresh: no clients, no tokens, no counts, default behavior."""
        self.behavior = Behavior()
        self.counts: Counter[str] = Counter()
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.grants: list[Grant] = []
        self.by_refresh: dict[str, Grant] = {}
        self.pending: dict[str, tuple[OAuthClientInformationFull, AuthorizationParams]] = {}

    def counters(self) -> dict[str, int]:
        """Return how often each thing happened, and how many tokens live."""
        living = [grant for grant in self.grants if not grant.revoked]
        now = time.time()
        return {
            **self.counts,
            "live_access": sum(grant.expires > now for grant in living),
            "live_refresh": sum(grant.refresh is not None for grant in living),
            "clients": len(self.clients),
        }

    def expire_access_tokens(self) -> None:
        """Let every access token be expired from now on."""
        for grant in self.grants:
            grant.expires = 0

    def revoke_all(self) -> None:
        """End every grant, as an administrator upstream may."""
        for grant in self.grants:
            grant.revoked = True

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        if client_id in self.clients or not (
            self.behavior.client_documents and client_id.startswith("http")
        ):
            return self.clients.get(client_id)
        async with httpx2.AsyncClient(timeout=5) as http:
            answer = await http.get(client_id)
        if answer.status_code != 200 or answer.json().get("client_id") != client_id:
            return None
        self.counts["client_documents"] += 1
        await self.register_client(OAuthClientInformationFull.model_validate(answer.json()))
        return self.clients[client_id]

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        # As at most servers, what a client registered with is not the limit of what it may ask for
        # later.
        scope = f"{BASE_SCOPE} {self.behavior.step_up_scope}"
        self.clients[client_info.client_id] = client_info.model_copy(update={"scope": scope})

    async def authorize(
        self, client: OAuthClientInformationFull, params: AuthorizationParams
    ) -> str:
        if self.behavior.consent == "deny":
            raise AuthorizeError("access_denied", "The person said no")
        if self.behavior.consent == "form":
            ticket = secrets.token_urlsafe(16)
            self.pending[ticket] = (client, params)
            return f"{self.issuer}/consent?ticket={ticket}"
        return self.allow(client, params, asking_user.get() or self.behavior.user)

    def allow(
        self, client: OAuthClientInformationFull, params: AuthorizationParams, user: str
    ) -> str:
        """Make a code for `user` and return the address that takes it to the client."""
        code = AuthorizationCode(
            code=secrets.token_urlsafe(32),
            client_id=client.client_id,
            subject=user,
            scopes=params.scopes or [BASE_SCOPE],
            expires_at=time.time() + CODE_SECONDS,
            **params.model_dump(exclude={"state", "scopes"}),
        )
        self.codes[code.code] = code
        return self.back(params, code=code.code)

    def back(self, params: AuthorizationParams, **answer: str) -> str:
        """Return the client's address with `answer`, its state and, where asked for, our issuer
        (RFC 9207)."""
        iss = self.issuer if self.behavior.response_iss else None
        return construct_redirect_uri(
            str(params.redirect_uri), **answer, state=params.state, iss=iss
        )

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        if self.codes.pop(authorization_code.code, None) is None:
            raise TokenError("invalid_grant", "The code was used before")
        self.counts["code_grants"] += 1
        subject = authorization_code.subject or self.behavior.user
        grant = Grant(subject, client.client_id, authorization_code.resource)
        self.grants.append(grant)
        return await self._issue(grant, authorization_code.scopes)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        grant = self.by_refresh.get(refresh_token)
        if grant is None or grant.revoked:
            return None
        if grant.refresh is None or grant.refresh.token != refresh_token:
            self.counts["reused_refresh"] += 1
            grant.revoked = True
            return None
        return grant.refresh

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        self.counts["refresh_grants"] += 1
        return await self._issue(self.by_refresh[refresh_token.token], scopes)

    async def load_access_token(self, token: str) -> AccessToken | None:
        for grant in self.grants:
            if grant.access is not None and grant.access.token == token:
                return grant.access if grant.expires > time.time() and not grant.revoked else None
        return None

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        for grant in self.grants:
            if token in (grant.access, grant.refresh):
                grant.revoked = True
                self.counts["revoked_grants"] += 1

    async def _issue(self, grant: Grant, scopes: list[str]) -> OAuthToken:
        seconds = self.behavior.access_seconds
        common: dict[str, Any] = {
            "client_id": grant.client_id,
            "scopes": scopes,
            "resource": grant.resource,
            "subject": grant.subject,
        }
        grant.access = AccessToken(token=secrets.token_urlsafe(32), **common)
        grant.expires = time.time() + seconds
        grant.refresh = None
        if self.behavior.refresh_tokens:
            grant.refresh = RefreshToken(token=secrets.token_urlsafe(32), **common)
            self.by_refresh[grant.refresh.token] = grant
        await asyncio.sleep(
            self.behavior.token_delay_seconds
        )  # after the change: a second asker finds it made
        return OAuthToken(
            access_token=grant.access.token,
            refresh_token=grant.refresh.token if grant.refresh else None,
            expires_in=int(seconds),
            scope=" ".join(scopes),
        )


def client_by_hand(
    client_id: str, client_secret: str | None, redirect_uris: list[str]
) -> OAuthClientInformationFull:
    """Return a client as an administrator enters it, which posts its secret, or has none."""
    return OAuthClientInformationFull(
        client_id=client_id,
        client_secret=client_secret,
        redirect_uris=[AnyUrl(uri) for uri in redirect_uris],
        token_endpoint_auth_method="client_secret_post" if client_secret else "none",
    )
