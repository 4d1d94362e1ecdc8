"""The OpenID Connect client: discovery, authorization request, code exchange, id_token validation.

OpenID Connect Core and Discovery 1.0, with PKCE (RFC 7636) and the issuer in responses (RFC 9207).
joserfc checks signatures and Authlib checks claims. Keys come only from the issuer's metadata.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from portal.domain.discovery import is_secure
from portal.domain.errors import UpstreamFailure
from portal.domain.oauth import AuthorizationServer, with_parameters
from portal.domain.sign_in import SignInProvider
from portal.domain.upstream import HealthReason, OutboundPolicy, Target
from portal.upstream.bodies import too_many_values
from portal.upstream.fetching import fetch
from portal.upstream.json_text import MAX_VALUES, TooManyValues, read_json
from portal.upstream.oauth_client import OAuthClient

ALGORITHMS = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]
LEEWAY = 60  # seconds
TIMEOUT = 10.0
MAX_DOCUMENT = 1024 * 1024
_FRESH = 600.0  # seconds to cache metadata and keys
_REFETCH = 60.0  # minimum seconds between two requests for an unknown key


class SignInRefused(UpstreamFailure):
    """The provider's response does not prove the identity; `reason` is the cause."""

    def __init__(self, why: str, reason: str) -> None:
        super().__init__(why, reason=reason)


@dataclass
class _Known:
    """Cached documents of a provider, which are public and validated on each use."""

    metadata: dict[str, Any]
    keys: KeySet
    read_at: float = field(default_factory=time.monotonic)


class OpenIdClient:
    """Relying party for the operator's providers, which may have private addresses."""

    def __init__(self) -> None:
        self._policy = OutboundPolicy(True)
        self._oauth = OAuthClient(self._policy)
        self._known: dict[str, _Known] = {}

    def meet(self, provider: SignInProvider) -> None:
        """Fetch the provider's documents unless they are cached. Raises `UpstreamFailure`."""
        self._provider(provider)

    def authorization_url(
        self, provider: SignInProvider, *, redirect_uri: str, state: str, nonce: str, verifier: str
    ) -> str:
        """Return the authorization URL. Raises `UpstreamFailure`, like all other methods."""
        metadata = self._provider(provider).metadata
        return with_parameters(
            str(metadata["authorization_endpoint"]),
            {
                "response_type": "code",
                "client_id": provider.client.client_id,
                "redirect_uri": redirect_uri,
                "scope": " ".join(dict.fromkeys(("openid", *provider.scopes))),
                "state": state,
                "nonce": nonce,
                "code_challenge": create_s256_code_challenge(verifier),
                "code_challenge_method": "S256",
            },
        )

    def check_response_issuer(self, provider: SignInProvider, iss: str | None) -> None:
        """Raise `SignInRefused` for a wrong `iss`, or a missing one if supported (RFC 9207)."""
        metadata = self._provider(provider).metadata
        announced = metadata.get("authorization_response_iss_parameter_supported") is True
        if iss != provider.issuer and (iss is not None or announced):
            raise SignInRefused("The response came from a different provider.", "wrong_issuer")

    def claims(
        self, provider: SignInProvider, *, code: str, redirect_uri: str, nonce: str, verifier: str
    ) -> tuple[dict[str, Any], str]:
        """Exchange the code, and return the claims and the validated id_token.

        The claims also include those of the userinfo endpoint.
        """
        known = self._provider(provider)
        server = AuthorizationServer(
            issuer=provider.issuer,
            token_endpoint=str(known.metadata["token_endpoint"]),
            token_endpoint_auth_methods=tuple(
                method
                for method in known.metadata.get("token_endpoint_auth_methods_supported") or ()
                if method
            ),
        )
        answer = self._oauth.ask_for_token(
            server,
            provider.client,
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": verifier,
            },
        )
        token = answer.get("id_token")
        access = answer.get("access_token")
        if not isinstance(token, str):
            raise SignInRefused("The provider did not return an id_token.", "no_id_token")
        claims = self._proven(
            provider, known, token, nonce, access if isinstance(access, str) else None
        )
        return self._completed(known, claims, access), token

    def end_session_url(
        self, provider: SignInProvider, *, back_to: str, id_token: str | None
    ) -> str | None:
        """Return the provider's logout URL (RP-Initiated Logout 1.0), or None."""
        endpoint = self._provider(provider).metadata.get("end_session_endpoint")
        if not isinstance(endpoint, str) or not is_secure(endpoint):
            return None
        hint = {"id_token_hint": id_token} if id_token else {}
        return with_parameters(
            endpoint,
            {"client_id": provider.client.client_id, "post_logout_redirect_uri": back_to, **hint},
        )

    def _proven(
        self,
        provider: SignInProvider,
        known: _Known,
        token: str,
        nonce: str,
        access_token: str | None,
    ) -> dict[str, Any]:
        keys = known.keys
        try:
            kid = _header(token).get("kid")
            if kid is not None and kid not in {key.kid for key in keys.keys}:
                keys = self._newer_keys(provider, known)
            decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
            options = {
                "iss": {"value": provider.issuer},
                "aud": {"value": provider.client.client_id},
            }
            params = {
                "nonce": nonce,
                "client_id": provider.client.client_id,
                "access_token": access_token,
            }
            claims = CodeIDToken(decoded.claims, decoded.header, options, params)
            claims.validate(leeway=LEEWAY)
            subject = decoded.claims.get("sub")
            if not isinstance(subject, str) or not 0 < len(subject) <= 255:
                raise ValueError("sub")
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as fault:
            word = str(getattr(fault, "error", "")) or "invalid"
            raise SignInRefused(
                "The provider’s id_token is not valid.", f"id_token {word}"
            ) from None
        return dict(decoded.claims)

    def _completed(
        self, known: _Known, claims: dict[str, Any], access_token: object
    ) -> dict[str, Any]:
        """Return the claims with those of userinfo, which must have the same subject.

        See OpenID Connect Core, section 5.3.2.
        """
        endpoint = known.metadata.get("userinfo_endpoint")
        if not isinstance(endpoint, str) or not isinstance(access_token, str):
            return claims
        if not is_secure(endpoint):
            return claims
        more = self._document(endpoint, {"Authorization": f"Bearer {access_token}"})
        if more.get("sub") != claims["sub"]:
            raise SignInRefused(
                "The provider’s responses are about different users.", "userinfo_subject"
            )
        return {**more, **claims}

    def _provider(self, provider: SignInProvider) -> _Known:
        known = self._known.get(provider.issuer)
        if known is None or known.read_at + _FRESH < time.monotonic():
            known = self._known[provider.issuer] = self._read(provider)
        return known

    def _newer_keys(self, provider: SignInProvider, known: _Known) -> KeySet:
        if known.read_at + _REFETCH < time.monotonic():
            self._known[provider.issuer] = self._read(provider)
        return self._known[provider.issuer].keys

    def _read(self, provider: SignInProvider) -> _Known:
        metadata = self._document(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
        if metadata.get("issuer") != provider.issuer:
            raise SignInRefused(
                "The provider’s metadata contain a different issuer than the settings.",
                "wrong_issuer",
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            address = metadata.get(name)
            if not isinstance(address, str) or not is_secure(address):
                raise SignInRefused(f"The provider’s metadata have no https {name}.", "metadata")
        try:
            keys = KeySet.import_key_set(self._document(metadata["jwks_uri"]))  # type: ignore[arg-type]
        except (JoseError, ValueError, TypeError, KeyError):
            raise SignInRefused("The provider’s keys are not valid.", "keys") from None
        return _Known(metadata, keys)

    def _document(self, url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        target = Target("http", url=url)
        status, text = fetch(
            self._policy, url, timeout=TIMEOUT, max_bytes=MAX_DOCUMENT, headers=headers
        )
        try:
            document = read_json(text) if status == 200 else None
        except TooManyValues:
            said = f"{target.label} {too_many_values(MAX_VALUES)}"
            raise UpstreamFailure(said, reason=HealthReason.HTTP_STATUS) from None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            message = f"{target.label} did not return the requested document (HTTP {status})."
            raise UpstreamFailure(message, reason=HealthReason.HTTP_STATUS)
        return document


def _header(token: str) -> dict[str, Any]:
    from joserfc.jws import extract_compact

    return dict(extract_compact(token.encode()).headers())
