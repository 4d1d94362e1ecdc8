"""Validation of requests from MCP clients to the broker, before any lookup.

OAuth 2.1 (authorization and token requests), RFC 7636 (PKCE) and RFC 7591 (registration). The input
is untrusted.
"""

import base64
import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from portal.domain.addresses import DEFAULT_INTERNAL_RANGES, in_ranges, is_this_machine
from portal.domain.errors import InvalidInput, InvalidRequest

MOST_REDIRECTS = 10
LONGEST_NAME = 80
_LONGEST_STATE = 2_000
_LONGEST_ID = 512
_MOST_SCOPES = 50
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")  # RFC 6749, section 3.3
_VISIBLE = re.compile(r"[\x20-\x7e]*")
_ADDRESS = re.compile(r"[\x21-\x7e]+")
_SECRET = re.compile(r"[\x21-\x7e]{1,8192}")
_GRANTS = ("authorization_code", "refresh_token")
_OWN_NAME = "mcp portal"


@dataclass(frozen=True)
class AuthorizationRequest:
    """The parameters of an authorization request; missing ones are ""."""

    redirect_uri: str = ""
    client_id: str = ""
    state: str = field(default="", repr=False)
    scope: str = ""
    code_challenge: str = ""
    code_challenge_method: str = ""
    response_type: str = ""
    resource: str = ""

    def check(self) -> None:
        """Raise `InvalidInput` without a redirect URI, `InvalidRequest` for other errors."""
        if not self.redirect_uri:
            raise InvalidInput("redirect_uri is required.", field="redirect_uri")
        if self.response_type not in ("", "code"):
            raise InvalidRequest("Only the response_type code is supported.", field="response_type")
        if self.code_challenge_method != "S256" or not _CHALLENGE.fullmatch(self.code_challenge):
            raise InvalidRequest(
                "PKCE is required: a code_challenge of 43 characters with the code_challenge_method"
                " S256.",
                field="code_challenge",
            )
        if len(self.state) > _LONGEST_STATE or not self.state.isprintable():
            raise InvalidRequest(
                "The state is too long or contains invalid characters.", field="state"
            )
        check_client_id(self.client_id)
        scopes_of(self.scope)


@dataclass(frozen=True)
class TokenRequest:
    """The fields of a token request; missing ones are ""."""

    grant_type: str = ""
    code: str = field(default="", repr=False)
    redirect_uri: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    code_verifier: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    scope: str = ""
    resource: str = ""

    def check(self) -> None:
        """Raise `InvalidInput` without a grant type, `InvalidRequest` for other errors.

        The error codes are those of RFC 6749, section 5.2.
        """
        if not self.grant_type:
            raise InvalidInput("grant_type is required.", field="grant_type")
        if self.grant_type not in _GRANTS:
            raise InvalidRequest(
                "Unsupported grant_type. Use authorization_code or refresh_token.",
                code="unsupported_grant_type",
            )
        needed = "code" if self.grant_type == "authorization_code" else "refresh_token"
        given = getattr(self, needed)
        if not given:
            raise InvalidRequest(f"{needed} is required.", field=needed)
        if not _SECRET.fullmatch(given):
            raise InvalidRequest(f"The {needed} is not valid.", code="invalid_grant")
        if needed == "code" and not _VERIFIER.fullmatch(self.code_verifier):
            raise InvalidRequest(
                "A code_verifier of 43 to 128 characters is required.", field="code_verifier"
            )
        if self.client_secret and not _SECRET.fullmatch(self.client_secret):
            raise InvalidRequest(
                "The client_secret contains invalid characters.", field="client_secret"
            )
        check_client_id(self.client_id)
        scopes_of(self.scope)


@dataclass(frozen=True)
class ClientClaims:
    """The metadata that a client sends to register. They are not verified."""

    name: str = ""
    redirect_uris: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = _GRANTS
    response_types: tuple[str, ...] = ("code",)
    auth_method: str = "none"


def check_client_id(text: str) -> None:
    """Raise `InvalidRequest` for an invalid client ID."""
    if len(text) > _LONGEST_ID or not _VISIBLE.fullmatch(text):
        raise InvalidRequest(
            "The client_id is too long or contains invalid characters.", field="client_id"
        )


def is_metadata_document(client_id: str, *, may_be_local: bool) -> bool:
    """Return whether a client ID is a valid URL of a Client ID Metadata Document (section 3).

    It must be https with a path, without user, fragment and dot segments. Hosts on this machine or
    the internal network are allowed only with `may_be_local`.
    """
    if (
        not client_id.startswith("https://")
        or not 0 < len(client_id) <= _LONGEST_ID
        or "\\" in client_id
    ):
        return False
    try:
        parts = urlsplit(client_id)
        port_is_right = parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        return False
    host = parts.hostname or ""
    if (
        not _ADDRESS.fullmatch(client_id)
        or "#" in client_id
        or "@" in parts.netloc
        or not host
        or not port_is_right
    ):
        return False
    if parts.path in ("", "/") or any(
        unquote(segment) in (".", "..") for segment in parts.path.split("/")
    ):
        return False
    is_local = (
        is_this_machine(host)
        or host.endswith(".localhost")
        or in_ranges(host, DEFAULT_INTERNAL_RANGES)
    )
    return may_be_local or not (is_local or host.rstrip(".") == "localhost")


def fingerprint(server_id: str | None, claims: ClientClaims, redirect_uris: Iterable[str]) -> str:
    """Return a hash that is equal for equal registrations.

    It is the SHA-256 of the server and the metadata, with lists as sets.
    """
    said = [
        server_id,
        claims.name,
        sorted(set(redirect_uris)),
        sorted(set(claims.grant_types)),
        sorted(set(claims.response_types)),
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def scopes_of(text: str) -> tuple[str, ...]:
    """Return the distinct scopes of a `scope` parameter. Raises `InvalidRequest`."""
    scopes = tuple(dict.fromkeys(scope for scope in text.split(" ") if scope))
    if len(scopes) > _MOST_SCOPES or not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise InvalidRequest(
            "The scope has too many values or contains invalid characters.",
            code="invalid_scope",
            field="scope",
        )
    return scopes


def matches_challenge(verifier: str, challenge: str) -> bool:
    """Return whether `challenge` matches `verifier` (RFC 7636, section 4.6), in constant time."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), challenge)


def read_claims(metadata: Mapping[str, Any]) -> ClientClaims:
    """Return the metadata of a registration (RFC 7591, section 2), without unknown fields.

    No URL in them is fetched. Raises `InvalidRequest` with the code `invalid_client_metadata` or
    `invalid_redirect_uri`.
    """
    redirect_uris = _texts(metadata, "redirect_uris", code="invalid_redirect_uri")
    if len(redirect_uris) > MOST_REDIRECTS:
        raise InvalidRequest(
            f"Send at most {MOST_REDIRECTS} redirect URIs.", code="invalid_redirect_uri"
        )
    grants = tuple(g for g in _texts(metadata, "grant_types") or _GRANTS if g in _GRANTS)
    responses = _texts(metadata, "response_types") or ("code",)
    if "authorization_code" not in grants or "code" not in responses:
        raise _bad("Clients must use the authorization code grant.")
    method = metadata.get("token_endpoint_auth_method") or "none"
    if (
        not isinstance(method, str)
        or len(method) > 64
        or not method.isascii()
        or not method.isprintable()
    ):
        raise _bad("The token_endpoint_auth_method is not valid.")
    return ClientClaims(
        _name(metadata.get("client_name")), redirect_uris, grants, ("code",), method
    )


def _name(value: object) -> str:
    """Return a client's name for display: one line without control and format characters."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _bad("The client_name must be a string.")
    kept = "".join(
        c if unicodedata.category(c)[0] not in "CZ" else " "
        for c in unicodedata.normalize("NFC", value)
    )
    name = " ".join(kept.split())[:LONGEST_NAME].strip()
    if name.casefold() == _OWN_NAME:
        raise _bad("This client_name is reserved for the portal.")
    return name


def _texts(
    metadata: Mapping[str, Any], name: str, code: str = "invalid_client_metadata"
) -> tuple[str, ...]:
    value = metadata.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidRequest(f"{name} must be a list of strings.", code=code, field=name)
    return tuple(dict.fromkeys(value))


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_client_metadata")
