"""Parsing of authorization server metadata (RFC 8414; OpenID Connect Discovery)."""

from collections.abc import Mapping
from typing import Any

from portal.domain.discovery import is_secure, same_issuer
from portal.domain.oauth import AuthorizationServer


def fault_of_metadata(document: Mapping[str, Any], issuer: str) -> tuple[str, str]:
    """Return the error in the metadata of `issuer` and its remedy, or two empty texts."""
    said = document.get("issuer")
    if not isinstance(said, str) or not same_issuer(said, issuer):
        return (
            "The metadata contain a different issuer than requested.",
            "Set `issuer` to the exact URL (RFC 8414, section 3.3).",
        )
    for name in ("authorization_endpoint", "token_endpoint"):
        if not isinstance(document.get(name), str):
            return f"{name} is missing.", f"Add {name} to the metadata."
    for name in (
        "authorization_endpoint",
        "token_endpoint",
        "registration_endpoint",
        "revocation_endpoint",
    ):
        address = document.get(name)
        if isinstance(address, str) and not (
            is_secure(address) and address.startswith(("https:", issuer[:5]))
        ):
            return f"{name} is not https.", "Serve all endpoints over https."
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        return (
            "It does not support PKCE with S256.",
            "Enable PKCE with S256. MCP clients require it.",
        )
    return "", ""


def authorization_server_of(document: Mapping[str, Any]) -> AuthorizationServer:
    """Return the server of the metadata. Fields of a wrong type are ignored."""

    def text(name: str) -> str:
        value = document.get(name)
        return value if isinstance(value, str) else ""

    methods = document.get("code_challenge_methods_supported")
    return AuthorizationServer(
        issuer=text("issuer"),
        authorization_endpoint=text("authorization_endpoint"),
        token_endpoint=text("token_endpoint"),
        registration_endpoint=text("registration_endpoint"),
        revocation_endpoint=text("revocation_endpoint"),
        scopes_supported=tuple(words_of(document.get("scopes_supported"))),
        token_endpoint_auth_methods=tuple(
            words_of(document.get("token_endpoint_auth_methods_supported"))
        ),
        pkce=tuple(words_of(methods)) if isinstance(methods, list) else None,
        sends_iss=document.get("authorization_response_iss_parameter_supported") is True,
        takes_metadata_documents=document.get("client_id_metadata_document_supported") is True,
    )


def words_of(value: object) -> list[str]:
    """Return the non-empty strings of a JSON list, or none for other values."""
    return (
        [word for word in value if isinstance(word, str) and word]
        if isinstance(value, list)
        else []
    )
