"""Authorization requests: scopes and URL (RFC 6749, 7636, 8707)."""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from portal.domain.oauth import Client, Discovery, with_parameters
from portal.services.oauth_client.discovery import identity_of
from portal.services.oauth_client.flows import begin_flow
from portal.services.oauth_client.registration import redirect_uri
from portal.services.oauth_client.user_tokens import name_of
from portal.services.secrets.server_definition import opened
from portal.store.models import Server


@dataclass(frozen=True)
class ProviderRedirect:
    """The authorization URL, its host, and the name of the server."""

    url: str
    host: str
    server_name: str


def usual_scopes(session: Session, row: Server, found: Discovery) -> list[str]:
    """Return the scopes to request: those of the definition, else the discovered ones."""
    typed = opened(session, row, credentials=True).credentials.get("scopes")
    if isinstance(typed, str):
        typed = typed.split()
    scopes = list(typed) if isinstance(typed, list) else []
    if not scopes:
        scopes = list(found.scopes)
        if scopes and "offline_access" in found.server.scopes_supported:
            scopes.append("offline_access")
    return scopes


def depart(
    session: Session,
    row: Server,
    found: Discovery,
    client: Client,
    scopes: Sequence[str],
    *,
    kind: str,
    user_id: str | None,
    browser: str,
    back: str,
) -> ProviderRedirect:
    """Start a flow of `kind`, and return where to send the browser.

    `back` is a path on the portal to return to.
    """
    verifier = secrets.token_urlsafe(48)
    contents = {
        "verifier": verifier,
        "issuer": identity_of(found.server),
        "token_endpoint": found.server.token_endpoint,
        "client_id": client.client_id,
        "scopes": list(scopes),
        "incarnation": row.incarnation,
        "back": back,
    }
    _, state = begin_flow(
        session, kind, contents, browser=browser, user_id=user_id, server_id=row.server_id
    )
    parameters = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect_uri(session),
        "state": state,
        "code_challenge": _challenge(verifier),
        "code_challenge_method": "S256",
        **({"resource": found.resource} if found.resource else {}),
        **({"scope": " ".join(scopes)} if scopes else {}),
        **({"prompt": "consent"} if "offline_access" in scopes else {}),  # OpenID Connect Core, 11
    }
    url = with_parameters(found.server.authorization_endpoint, parameters)
    return ProviderRedirect(url, urlsplit(url).hostname or "", name_of(row))


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
