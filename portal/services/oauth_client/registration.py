"""The portal's OAuth client registrations.

In the order of MCP authorization (2026-07-28, client registration): the client that an Admin
entered, the portal's Client ID Metadata Document, a client that the portal registered itself (RFC
7591), and otherwise an error that asks the Admin to enter one.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain.addresses import is_this_machine
from portal.domain.errors import InvalidRequest
from portal.domain.oauth import AuthorizationServer, Client
from portal.domain.oauth_origins import keeps_codes, split_at
from portal.domain.servers import origin_of
from portal.services.oauth_client import held_definitions
from portal.services.oauth_client.discovery import identity_of
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.services.secrets.server_definition import has_part, opened
from portal.store.database import release
from portal.store.models import Server
from portal.store.oauth_tables import OAuthClientRegistration

CLIENT_NAME = "MCP Portal"
_PREFERRED = ("client_secret_post", "client_secret_basic", "none")  # all servers accept the first


def redirect_uri(session: Session) -> str:
    """Return the portal's redirect URI for all authorization servers."""
    return f"{runtime_of(session).public_url}/oauth/callback"


def document_url(public_url: str) -> str:
    """Return the URL of the portal's Client ID Metadata Document, which is also its client id."""
    return f"{public_url}/.well-known/oauth-client"


def metadata_document(public_url: str) -> dict[str, Any]:
    """Return the portal's Client ID Metadata Document."""
    return {
        "client_id": document_url(public_url),
        "client_uri": public_url,
        **_description(f"{public_url}/oauth/callback"),
        "token_endpoint_auth_method": "none",
    }


def client_of(
    session: Session, row: Server, server: AuthorizationServer, scopes: Sequence[str] = ()
) -> Client:
    """Return the client for a new sign-in, registering one if there is none.

    Registration ends the transaction; `scopes` are those that the new client may request. Raises
    `InvalidRequest` (`missing_client_id`) if no client can be had, and (`mixed_providers`) if a
    registered client's secret would be used at another host than the one that issued it; and
    `UpstreamFailure` if the registration fails.
    """
    typed = _typed(session, row)
    if typed is not None:
        return typed
    takes_document = server.takes_metadata_documents and keeps_codes(server)
    if takes_document and _is_reachable(runtime_of(session).public_url, server):
        return Client(document_url(runtime_of(session).public_url), auth_method="none")
    _check_split(session, row, server)
    ours = _kept(session, row, identity_of(server))
    if ours is not None and ours.redirect_uri == redirect_uri(session):
        registered = _opened(session, row, ours)
        if registered is not None:
            return registered
    if not server.registration_endpoint:
        raise InvalidRequest(
            "The portal is not registered at the sign-in provider. An Admin has to register it"
            f" there as a client, with the redirect URI {redirect_uri(session)}, and enter its"
            " client ID in the server’s form.",
            code="missing_client_id",
            field="client_id",
        )
    return _registered(session, row, server, scopes)


def known_client(
    session: Session, row: Server, server: AuthorizationServer, client_id: str, *, used_at: str = ""
) -> Client | None:
    """Return the client that a token was issued to; None if it is no longer a client of the portal.

    Used to renew or revoke the token. `used_at` is the endpoint for that, if it is not the server's
    token endpoint. Raises `InvalidRequest` (`mixed_providers`) for a registered client whose secret
    would be used at another host than the one that issued it.
    """
    typed = _typed(session, row)
    if typed is not None and client_id in ("", typed.client_id):
        return typed
    if client_id == document_url(runtime_of(session).public_url):
        return Client(client_id, auth_method="none")
    ours = _kept(session, row, identity_of(server))
    if ours is not None and client_id in ("", ours.client_id):
        _check_split(session, row, server, used_at)
        return _opened(session, row, ours)
    return None


def _check_split(
    session: Session, row: Server, server: AuthorizationServer, used_at: str = ""
) -> None:
    split = split_at(server, used_at, is_typed=has_part(row, "registration_url"))
    if split is not None:
        _, called, origin = split
        raise InvalidRequest(
            f"The portal would register at {origin_of(server.registration_endpoint)}, but the"
            f" {called} is at {origin}. The portal does not send credentials from one host to"
            " another. An Admin has to register the portal there, with the redirect URI"
            f" {redirect_uri(session)}, and enter its client ID in the server’s form.",
            code="mixed_providers",
            field="client_id",
        )


def _typed(session: Session, row: Server) -> Client | None:
    credentials = opened(session, row, credentials=True).credentials
    client_id = credentials.get("client_id")
    secret = credentials.get("client_secret")
    if not isinstance(client_id, str) or not client_id:
        return None
    return Client(client_id, secret if isinstance(secret, str) else "")


def _is_reachable(public_url: str, server: AuthorizationServer) -> bool:
    """Return whether the provider can fetch the portal's document: by https, or locally."""
    parts = urlsplit(public_url)
    if parts.scheme == "https":
        return True
    return is_this_machine(parts.hostname) and is_this_machine(
        urlsplit(server.token_endpoint).hostname
    )


def _description(callback: str) -> dict[str, Any]:
    return {
        "client_name": CLIENT_NAME,
        "redirect_uris": [callback],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "web",
    }


def register_for_admin(
    session: Session, row: Server, server: AuthorizationServer, wishes: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Register the portal with an Admin's metadata; return the whole response, including secrets.

    Returns None if the portal is already a client there. A stored client is registered again only
    if the portal's redirect URI has changed. Ends the transaction.
    """
    ours = _kept(session, row, identity_of(server))
    if _typed(session, row) is not None or (
        ours is not None and ours.redirect_uri == redirect_uri(session)
    ):
        return None
    _check_split(session, row, server)
    answer: dict[str, Any] = {}
    _registered(session, row, server, (), wishes, answer)
    return answer


def _registered(
    session: Session,
    row: Server,
    server: AuthorizationServer,
    scopes: Sequence[str],
    wishes: Mapping[str, Any] | None = None,
    said: dict[str, Any] | None = None,
) -> Client:
    offered = server.token_endpoint_auth_methods
    method = next((m for m in _PREFERRED if m in offered), _PREFERRED[0])
    callback = redirect_uri(session)
    metadata = {**_description(callback), "token_endpoint_auth_method": method}
    if wanted := server.scopes_supported or tuple(scopes):
        metadata["scope"] = " ".join(wanted)
    metadata |= wishes or {}
    issuer = identity_of(server)
    server_id = row.server_id
    release(session)
    answer = runtime_of(session).oauth.register(server, metadata)
    if said is not None:
        said.update(answer)
    if held_definitions.is_temporary(row):
        secret = _secret_part(answer, str(metadata["token_endpoint_auth_method"]))
        found = {
            "issuer": issuer,
            "client_id": answer["client_id"],
            "redirect_uri": callback,
            "secret": secret,
        }
        held_definitions.remember(session, row, registration=found)
        return Client(answer["client_id"], secret["client_secret"], secret["auth_method"])
    kept = OAuthClientRegistration(
        server_id=server_id,
        issuer=issuer,
        client_id=answer["client_id"],
        redirect_uri=callback,
    )
    kept.sealed = runtime_of(session).vault.seal(
        json.dumps(_secret_part(answer, str(metadata["token_endpoint_auth_method"]))),
        bindings.of_registration(row, kept),
    )
    try:
        kept = session.merge(kept)
        session.commit()
    except IntegrityError:  # another process registered first, or the server was deleted
        session.rollback()
        winner = session.get(OAuthClientRegistration, (server_id, issuer), populate_existing=True)
        if winner is None:
            raise InvalidRequest("The server was deleted in the meantime.") from None
        kept = winner
    client = _opened(session, row, kept)
    assert client is not None, "it was sealed or found a moment ago"
    return client


def _kept(session: Session, row: Server, issuer: str) -> OAuthClientRegistration | None:
    """Return the registration at an issuer; for a definition under test, from its record."""
    if not held_definitions.is_temporary(row):
        return session.get(OAuthClientRegistration, (row.server_id, issuer))
    found = held_definitions.recall(session, row, "registration")
    return _as_row(session, row, found) if found and found["issuer"] == issuer else None


def registration_of(session: Session, row: Server) -> dict[str, Any] | None:
    """Return a stored server's registration, unsealed, for a definition under test."""
    query = select(OAuthClientRegistration).where(
        OAuthClientRegistration.server_id == row.server_id
    )
    ours = session.scalar(query.order_by(OAuthClientRegistration.registered_at.desc()).limit(1))
    text = (
        runtime_of(session).vault.open(ours.sealed, bindings.of_registration(row, ours))
        if ours is not None
        else None
    )
    if ours is None or text is None:
        return None
    names = ("issuer", "client_id", "redirect_uri")
    return {**{name: getattr(ours, name) for name in names}, "secret": json.loads(text)}


def keep_registration(session: Session, row: Server, found: Mapping[str, Any]) -> None:
    """Store the registration of a definition under test, for the server created from it."""
    session.merge(_as_row(session, row, found))
    session.flush()


def _as_row(session: Session, row: Server, found: Mapping[str, Any]) -> OAuthClientRegistration:
    names = ("issuer", "client_id", "redirect_uri")
    kept = OAuthClientRegistration(server_id=row.server_id, **{name: found[name] for name in names})
    kept.sealed = runtime_of(session).vault.seal(
        json.dumps(found["secret"]), bindings.of_registration(row, kept)
    )
    return kept


def _secret_part(answer: Mapping[str, Any], asked: str) -> dict[str, Any]:
    secret = answer.get("client_secret")
    ends = answer.get("client_secret_expires_at")
    method = answer.get("token_endpoint_auth_method", asked)
    return {
        "client_secret": secret if isinstance(secret, str) else "",
        "auth_method": method if method in _PREFERRED else asked,
        "expires_at": ends if isinstance(ends, int) and not isinstance(ends, bool) else 0,
    }


def _opened(session: Session, row: Server, kept: OAuthClientRegistration) -> Client | None:
    """Return a registered client; None if its secret is unreadable or expired."""
    text = runtime_of(session).vault.open(kept.sealed, bindings.of_registration(row, kept))
    if text is None:
        return None
    secret = json.loads(text)
    if secret["expires_at"] and secret["expires_at"] <= datetime.now(UTC).timestamp():
        return None
    return Client(kept.client_id, secret["client_secret"], secret["auth_method"])
