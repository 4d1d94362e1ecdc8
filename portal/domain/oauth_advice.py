"""Advice on a discovery result, for the portal as a client and for well-known MCP clients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from portal.domain.discovery import DiscoveryStep, StepResult, Walk
from portal.domain.oauth import AuthorizationServer, canonical_resource

_WAYS = ("client_secret_post", "client_secret_basic", "none")
REGISTER_BY_HAND = (
    "Register an app at the provider with the callback URL below, and enter its client ID and"
    " secret in the server form."
)


@dataclass(frozen=True)
class Registered:
    """The portal's client registration: stored client ID and secret, and its metadata document."""

    client_id: bool
    client_secret: bool
    document_url: str
    is_reachable: bool
    """Whether an authorization server can fetch the portal's document, which needs https."""


def judge_abilities(
    server: AuthorizationServer, registered: Registered
) -> tuple[DiscoveryStep, ...]:
    """Check the features that the portal needs of an authorization server, without requests."""
    return (
        _registration(server, registered),
        _pkce(server),
        _authentication(server, registered),
        _issuer(server),
        _revocation(server),
    )


def judge_resource(walk: Walk, url: str) -> DiscoveryStep:
    """Check that the resource identifier equals the server's URL (RFC 8707, RFC 9728)."""
    title = "Compare the resource identifier"
    named = walk.documents.get("resource", {}).get("resource")
    if not isinstance(named, str):
        return DiscoveryStep(
            title,
            StepResult.OK,
            "The metadata do not contain it. The server's URL is sent as `resource` (RFC 8707).",
        )
    if named == url or canonical_resource(named) == canonical_resource(url):
        return DiscoveryStep(title, StepResult.OK, "It equals the server's URL.")
    said = "It covers the server's URL but does not equal it. Some clients compare both and stop."
    return DiscoveryStep(
        title,
        StepResult.WARN,
        said,
        remedy="Set `resource` to the exact URL that clients call (RFC 9728, section 3.3).",
    )


def judge_clients(walk: Walk, url: str) -> tuple[DiscoveryStep, ...]:
    """Check for well-known MCP clients whether users can sign in directly at the server."""
    return tuple(_judged(name, needs, walk, url) for name, needs in _CLIENTS.items())


def _registration(server: AuthorizationServer, registered: Registered) -> DiscoveryStep:
    title = "Register as a client"
    if registered.client_id:
        return DiscoveryStep(title, StepResult.OK, "The client ID stored with this server is used.")
    if server.takes_metadata_documents and registered.is_reachable:
        return DiscoveryStep(
            title,
            StepResult.OK,
            f"It supports metadata documents. The portal's is {registered.document_url}.",
        )
    if server.registration_endpoint:
        return DiscoveryStep(
            title,
            StepResult.OK,
            "The portal registers itself when the first user connects (RFC 7591).",
        )
    if server.takes_metadata_documents:
        said = (
            "It supports metadata documents, but cannot read the portal's, since the portal's"
            " public URL is not https."
        )
        return DiscoveryStep(
            title,
            StepResult.FAIL,
            said,
            remedy=f"Serve the portal over https. Alternatively: {REGISTER_BY_HAND}",
        )
    said = "It does not support registration, and no client ID is stored for this server."
    return DiscoveryStep(title, StepResult.FAIL, said, remedy=REGISTER_BY_HAND)


def _pkce(server: AuthorizationServer) -> DiscoveryStep:
    title = "Check PKCE (RFC 7636)"
    if server.pkce is None:
        said = (
            "The metadata do not mention PKCE. The portal uses it anyway, but MCP clients may"
            " refuse to continue."
        )
        return DiscoveryStep(
            title,
            StepResult.WARN,
            said,
            remedy='Add "code_challenge_methods_supported": ["S256"] to the metadata.',
        )
    return DiscoveryStep(title, StepResult.OK, "PKCE with S256 is supported.")


def _authentication(server: AuthorizationServer, registered: Registered) -> DiscoveryStep:
    title = "Authenticate at the token endpoint"
    methods = server.token_endpoint_auth_methods
    if methods and not set(_WAYS) & set(methods):
        said = "It requires a client authentication method that the portal does not support."
        remedy = f"Allow one of {', '.join(_WAYS)} for the portal's client."
        return DiscoveryStep(
            title, StepResult.FAIL, said, answer=", ".join(methods)[:500], remedy=remedy
        )
    if methods and registered.client_id and not registered.client_secret and "none" not in methods:
        said = (
            "A client ID is stored without a secret, but the server does not list public clients."
        )
        return DiscoveryStep(
            title,
            StepResult.WARN,
            said,
            answer=", ".join(methods)[:500],
            remedy="Also store the client secret.",
        )
    said = (
        "It supports a method of the portal."
        if methods
        else "It lists no methods. The secret is sent in the form."
    )
    return DiscoveryStep(title, StepResult.OK, said, answer=", ".join(methods)[:500])


def _issuer(server: AuthorizationServer) -> DiscoveryStep:
    title = "Check the issuer of responses (RFC 9207)"
    if server.sends_iss:
        return DiscoveryStep(
            title, StepResult.OK, "Its responses contain the issuer, which is checked."
        )
    return DiscoveryStep(
        title,
        StepResult.OK,
        "Its responses need not contain the issuer. If they do, it is checked.",
    )


def _revocation(server: AuthorizationServer) -> DiscoveryStep:
    title = "Check token revocation (RFC 7009)"
    if server.revocation_endpoint:
        return DiscoveryStep(title, StepResult.OK, "Disconnecting revokes the token.")
    said = (
        "It has no revocation endpoint. After disconnecting, the token is valid until it expires."
    )
    return DiscoveryStep(
        title,
        StepResult.WARN,
        said,
        remedy="Add a revocation_endpoint, or use short-lived tokens.",
    )


def _says_where(walk: Walk, _url: str) -> bool:
    return bool(walk.documents.get("challenge", {}).get("resource_metadata"))


def _has_resource_metadata(walk: Walk, _url: str) -> bool:
    return bool(walk.documents.get("resource"))


def _takes_strangers(walk: Walk, _url: str) -> bool:
    server = _server(walk)
    return (
        bool(server.get("registration_endpoint"))
        or server.get("client_id_metadata_document_supported") is True
    )


def _offers_s256(walk: Walk, _url: str) -> bool:
    methods = _server(walk).get("code_challenge_methods_supported")
    return isinstance(methods, list) and "S256" in methods


def _says_scopes(walk: Walk, _url: str) -> bool:
    documents = walk.documents
    return bool(
        documents.get("challenge", {}).get("scope")
        or documents.get("resource", {}).get("scopes_supported")
        or _server(walk).get("scopes_supported")
    )


def _names_it_exactly(walk: Walk, url: str) -> bool:
    return (
        not _has_resource_metadata(walk, url) or judge_resource(walk, url).verdict is StepResult.OK
    )


def _has_no_nulls(walk: Walk, _url: str) -> bool:
    return None not in _server(walk).values()


def _server(walk: Walk) -> Mapping[str, Any]:
    return walk.documents.get("server", {})


_Need = tuple[Callable[[Walk, str], bool], str, str]
_POINTER: _Need = (
    _says_where,
    "resource_metadata in the 401's WWW-Authenticate",
    "Add resource_metadata=… to the 401's WWW-Authenticate (RFC 9728, section 5.1).",
)
_METADATA: _Need = (
    _has_resource_metadata,
    "resource metadata",
    "Serve /.well-known/oauth-protected-resource (RFC 9728).",
)
_STRANGERS: _Need = (
    _takes_strangers,
    "dynamic registration or metadata documents",
    (
        "Add registration_endpoint or client_id_metadata_document_supported, or give users a client"
        " ID for this client."
    ),
)
_S256: _Need = (
    _offers_s256,
    "S256 in code_challenge_methods_supported",
    'Add "code_challenge_methods_supported": ["S256"] to the metadata.',
)
_SCOPES: _Need = (
    _says_scopes,
    "scopes (scopes_supported, or scope in the challenge)",
    "List scopes_supported in the resource's metadata.",
)
_EXACT: _Need = (
    _names_it_exactly,
    "a `resource` that equals the URL",
    "Set `resource` to the exact URL.",
)
_NO_NULLS: _Need = (
    _has_no_nulls,
    "metadata without null values",
    "Remove null values from the authorization server's metadata.",
)

_CLIENTS: Mapping[str, tuple[_Need, ...]] = {
    "Claude Code": (_POINTER, _STRANGERS, _S256, _EXACT, _NO_NULLS),
    "Cursor": (_METADATA, _STRANGERS, _S256, _SCOPES),
    "VS Code": (_POINTER, _METADATA, _STRANGERS, _S256, _EXACT),
    "MCP SDKs, Inspector, mcp-remote": (_STRANGERS, _S256, _NO_NULLS),
}


def _judged(name: str, needs: tuple[_Need, ...], walk: Walk, url: str) -> DiscoveryStep:
    missing = [need for need in needs if not need[0](walk, url)]
    if not missing:
        return DiscoveryStep(name, StepResult.OK, "All requirements are met.")
    said = f"Missing: {'; '.join(what for _, what, _ in missing)}."
    return DiscoveryStep(
        name, StepResult.WARN, said, remedy=" ".join(remedy for _, _, remedy in missing)
    )
