"""An OpenID provider that signs whoever comes in, and lies in exactly the way it is told to."""

import base64
import contextlib
import functools
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, jsonify, request
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.support.oauth.serving import Answer, Recorded, serving

ID_TOKEN_FAULTS = (
    "nonce",
    "nonce_missing",
    "issuer",
    "audience",
    "azp",
    "signature",
    "unknown_key",
    "alg_none",
    "alg_hs256",
    "expired",
    "issued_in_future",
    "subject_missing",
)
FAULTS = (
    *ID_TOKEN_FAULTS,
    "id_token_missing",
    "response_issuer",
    "response_issuer_missing",
    "response_state",
    "discovery_issuer",
    "userinfo_subject",
    "token_status",
    "token_html",
    "access_denied",
)
FOREIGN = "https://evil.example"
DAY = 86_400
NO_HEADER = b'{"alg":"none"}'
HMAC_HEADER = b'{"alg":"HS256","kid":"known"}'
KINDS = {
    "/.well-known/openid-configuration": "discovery",
    "/jwks": "jwks",
    "/authorize": "authorize",
    "/token": "token",
    "/userinfo": "userinfo",
    "/logout": "logout",
}


@functools.cache
def _known_key() -> RSAKey:
    """Make the key that such a provider signs with, once for all that come one after the other: it
    takes long."""
    return RSAKey.generate_key(2048, {"kid": "known"})


@dataclass
class ForgingProvider:
    """What a test sees of it. `fault` is None (an honest provider) or one of `FAULTS`."""

    issuer: str = ""
    client_id: str = "portal"
    client_secret: str = "SECRET-of-the-portal-at-the-forger"
    fault: str | None = None
    claims: dict[str, Any] = field(
        default_factory=lambda: {
            "sub": "sub-of-ada",
            "email": "ada@example.com",
            "email_verified": True,
            "name": "Ada",
            "groups": ["mcp-admins"],
        }
    )
    requests: list[Recorded] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _key: RSAKey = field(default_factory=_known_key)

    def seen(self, kind: str) -> list[Recorded]:
        """Return the requests of a kind: discovery, jwks, authorize, token, userinfo or logout."""
        return [recorded for recorded in self.requests if recorded.kind == kind]

    def discovery(self) -> dict[str, Any]:
        """Return the discovery document (OpenID Connect Discovery 1.0, 3)."""
        return {
            "issuer": FOREIGN if self.fault == "discovery_issuer" else self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "end_session_endpoint": f"{self.issuer}/logout",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }

    def keys(self) -> dict[str, Any]:
        """Return the key set with the one key that is its own."""
        return {"keys": [self._key.as_dict(private=False, use="sig", alg="RS256")]}

    def back_from_authorize(self, asked: dict[str, str]) -> str:
        """Return where the browser is sent after an authorization request."""
        answer = {"state": asked.get("state", ""), "iss": self.issuer}
        if self.fault == "access_denied":
            answer |= {"error": "access_denied", "error_description": "The person said no"}
        else:
            answer["code"] = secrets.token_urlsafe(24)
            self._codes[answer["code"]] = asked
        if self.fault == "response_issuer":
            answer["iss"] = FOREIGN
        if self.fault == "response_issuer_missing":
            del answer["iss"]
        if self.fault == "response_state":
            answer["state"] = "of-somebody-else"
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def tokens(self, form: dict[str, str]) -> Answer:
        """Answer a token request: the code once, with its verifier (RFC 7636) and its redirect
        URI."""
        if self.fault == "token_status":
            return Answer(500, {"error": "server_error"})
        if self.fault == "token_html":
            return Answer.html()
        asked = self._codes.pop(form.get("code", ""), None)
        challenge = _coded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or asked.get("code_challenge") != challenge:
            return Answer(400, {"error": "invalid_grant"})
        if asked["redirect_uri"] != form.get("redirect_uri"):
            return Answer(
                400, {"error": "invalid_grant", "error_description": "another redirect_uri"}
            )
        answer = {
            "access_token": secrets.token_urlsafe(24),
            "token_type": "Bearer",
            "expires_in": 600,
        }
        if self.fault != "id_token_missing":
            answer["id_token"] = self.id_token(asked.get("nonce"))
        return Answer(json=answer)

    def id_token(self, nonce: str | None) -> str:
        """Return an id_token for `claims`, wrong in the way that `fault` says."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 600,
            "nonce": nonce,
            **self.claims,
        }
        faults: dict[str, dict[str, Any]] = {
            "nonce": {"nonce": "of-somebody-else"},
            "nonce_missing": {"nonce": None},
            "issuer": {"iss": FOREIGN},
            "audience": {"aud": "another-client"},
            "azp": {"aud": [self.client_id, "another-client"], "azp": "another-client"},
            "expired": {"iat": now - DAY, "exp": now - DAY + 600},
            "issued_in_future": {"iat": now + DAY, "exp": now + DAY + 600},
            "subject_missing": {"sub": None},
        }
        claims |= faults.get(self.fault or "", {})
        return self._signed({name: value for name, value in claims.items() if value is not None})

    def _signed(self, claims: dict[str, Any]) -> str:
        payload = _coded(json.dumps(claims).encode())
        if self.fault == "alg_none":
            return f"{_coded(NO_HEADER)}.{payload}."
        if (
            self.fault == "alg_hs256"
        ):  # the public key, which everybody has, taken for a shared secret
            signed = f"{_coded(HMAC_HEADER)}.{payload}"
            public = self._key.as_pem(private=False)
            return f"{signed}.{_coded(hmac.digest(public, signed.encode(), 'sha256'))}"
        key = RSAKey.generate_key(2048) if self.fault in ("signature", "unknown_key") else self._key
        kid = "unknown" if self.fault == "unknown_key" else "known"
        return jwt.encode({"alg": "RS256", "kid": kid}, claims, key)


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextlib.contextmanager
def forging_server() -> Iterator[ForgingProvider]:
    """Run one on a free loopback port for the block."""
    provider = ForgingProvider()
    with serving(_app(provider), provider.over) as issuer:
        provider.issuer = issuer
        yield provider


def _app(provider: ForgingProvider) -> Flask:
    app = Flask(__name__, static_folder=None)

    @app.before_request
    def note() -> None:
        provider.requests.append(Recorded.of(KINDS.get(request.path, "other"), request))

    @app.get("/.well-known/openid-configuration")
    def discovery() -> Response:
        return jsonify(provider.discovery())

    @app.get("/jwks")
    def keys() -> Response:
        return jsonify(provider.keys())

    @app.get("/authorize")
    def authorize() -> Response:
        return Answer.redirect(provider.back_from_authorize(request.args.to_dict())).response(
            provider.over
        )

    @app.post("/token")
    def token() -> Response:
        return provider.tokens(request.form.to_dict()).response(provider.over)

    @app.get("/userinfo")
    def userinfo() -> Response:
        wrong = {"sub": "sub-of-mallory"} if provider.fault == "userinfo_subject" else {}
        return jsonify({**provider.claims, **wrong})

    @app.get("/logout")
    def logout() -> Response:
        target = request.args.get("post_logout_redirect_uri")
        if target is None:
            return Response("Signed out")
        state = request.args.get("state")
        return Answer.redirect(
            f"{target}?{urlencode({'state': state})}" if state else target
        ).response(provider.over)

    return app
