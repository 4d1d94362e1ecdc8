"""What a discovery means for those who will use it: for the portal's own Connect, and for
well-known MCP clients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from portal.domain.discovery import Step, Verdict, Walk
from portal.domain.oauth import AuthorizationServer, canonical_resource

_WAYS = ("client_secret_post", "client_secret_basic", "none")
REGISTER_BY_HAND = (
    "Register an app at the provider with the callback below, and put its client id and secret into"
    " the server's form."
)


@dataclass(frozen=True)
class Registered:
    """How the portal is, or may become, a client: an id stored with the server, a secret, its own
    document."""

    client_id: bool
    client_secret: bool
    document_url: str
    is_reachable: bool
    """Whether an authorization server can fetch the portal's document: it stands at an https
    address."""


def judge_abilities(server: AuthorizationServer, registered: Registered) -> tuple[Step, ...]:
    """What the portal needs of an authorization server, step by step; nothing is asked for it."""
    return (
        _registration(server, registered),
        _pkce(server),
        _authentication(server, registered),
        _issuer(server),
        _revocation(server),
    )


def judge_resource(walk: Walk, url: str) -> Step:
    """Whether the resource has exactly the name that clients give it (RFC 8707, RFC 9728)."""
    title = "Compare the resource's name"
    named = walk.documents.get("resource", {}).get("resource")
    if not isinstance(named, str):
        return Step(
            title,
            Verdict.OK,
            "No metadata name it; the server's URL is sent as `resource` (RFC 8707).",
        )
    if named == url or canonical_resource(named) == canonical_resource(url):
        return Step(title, Verdict.OK, "It is exactly the server's URL.")
    said = (
        "It covers the server's URL, but is not exactly it: some clients compare the two and stop."
    )
    return Step(
        title,
        Verdict.WARN,
        said,
        remedy="Let `resource` be exactly the URL that clients call (RFC 9728, 3.3).",
    )


def judge_clients(walk: Walk, url: str) -> tuple[Step, ...]:
    """For each well-known MCP client, whether a person can sign in with it at the server itself."""
    return tuple(_judged(name, needs, walk, url) for name, needs in _CLIENTS.items())


def _registration(server: AuthorizationServer, registered: Registered) -> Step:
    title = "Find a way to be its client"
    if registered.client_id:
        return Step(title, Verdict.OK, "The client id stored with this server is used.")
    if server.takes_metadata_documents and registered.is_reachable:
        return Step(
            title,
            Verdict.OK,
            f"It reads metadata documents: the portal's is {registered.document_url}.",
        )
    if server.registration_endpoint:
        return Step(
            title, Verdict.OK, "The portal registers itself at the first Connect (RFC 7591)."
        )
    if server.takes_metadata_documents:
        said = (
            "It reads metadata documents, but the portal's public URL is not https, so it cannot"
            " read the portal's."
        )
        return Step(
            title, Verdict.FAIL, said, remedy=f"Serve the portal over https. Or: {REGISTER_BY_HAND}"
        )
    said = "It takes no clients that it does not know, and no client id is stored with this server."
    return Step(title, Verdict.FAIL, said, remedy=REGISTER_BY_HAND)


def _pkce(server: AuthorizationServer) -> Step:
    title = "Protect the code (PKCE, RFC 7636)"
    if server.pkce is None:
        said = (
            "The metadata do not speak of PKCE. The portal uses it all the same; MCP clients may"
            " refuse to go on."
        )
        return Step(
            title,
            Verdict.WARN,
            said,
            remedy='Add "code_challenge_methods_supported": ["S256"] to the metadata.',
        )
    return Step(title, Verdict.OK, "PKCE with S256 is offered.")


def _authentication(server: AuthorizationServer, registered: Registered) -> Step:
    title = "Prove at the token endpoint who asks"
    methods = server.token_endpoint_auth_methods
    if methods and not set(_WAYS) & set(methods):
        said = "It wants a way of client authentication that the portal cannot do."
        remedy = f"Allow one of {', '.join(_WAYS)} for the portal's client."
        return Step(title, Verdict.FAIL, said, answer=", ".join(methods)[:500], remedy=remedy)
    if methods and registered.client_id and not registered.client_secret and "none" not in methods:
        said = (
            "A client id is stored without a secret, but the server lists no clients without one."
        )
        return Step(
            title,
            Verdict.WARN,
            said,
            answer=", ".join(methods)[:500],
            remedy="Store the client secret, too.",
        )
    said = (
        "One of its ways is one of the portal's."
        if methods
        else "It does not say how; the secret goes into the form."
    )
    return Step(title, Verdict.OK, said, answer=", ".join(methods)[:500])


def _issuer(server: AuthorizationServer) -> Step:
    title = "Know who answered (RFC 9207)"
    if server.sends_iss:
        return Step(title, Verdict.OK, "Its answers name the issuer, which is compared.")
    return Step(
        title,
        Verdict.OK,
        "Its answers do not promise to name the issuer; an issuer that comes is compared.",
    )


def _revocation(server: AuthorizationServer) -> Step:
    title = "End a connection (RFC 7009)"
    if server.revocation_endpoint:
        return Step(title, Verdict.OK, "Disconnect revokes the token there.")
    said = (
        "It has no revocation endpoint: after Disconnect the token lives on there until it expires."
    )
    return Step(
        title,
        Verdict.WARN,
        said,
        remedy="Offer a revocation_endpoint, or let tokens be short-lived.",
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
    return not _has_resource_metadata(walk, url) or judge_resource(walk, url).verdict is Verdict.OK


def _has_no_nulls(walk: Walk, _url: str) -> bool:
    return None not in _server(walk).values()


def _server(walk: Walk) -> Mapping[str, Any]:
    return walk.documents.get("server", {})


_Need = tuple[Callable[[Walk, str], bool], str, str]
_POINTER: _Need = (
    _says_where,
    "resource_metadata in the 401's WWW-Authenticate",
    "Add resource_metadata=… to the 401's WWW-Authenticate (RFC 9728, 5.1).",
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
        "Offer registration_endpoint or client_id_metadata_document_supported; or give people a"
        " client id for this client."
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
    "a `resource` that is exactly the URL",
    "Let `resource` be exactly the URL.",
)
_NO_NULLS: _Need = (
    _has_no_nulls,
    "metadata without null values",
    "Leave out what is null in the authorization server's metadata.",
)

_CLIENTS: Mapping[str, tuple[_Need, ...]] = {
    "Claude Code": (_POINTER, _STRANGERS, _S256, _EXACT, _NO_NULLS),
    "Cursor": (_METADATA, _STRANGERS, _S256, _SCOPES),
    "VS Code": (_POINTER, _METADATA, _STRANGERS, _S256, _EXACT),
    "MCP SDKs, Inspector, mcp-remote": (_STRANGERS, _S256, _NO_NULLS),
}


def _judged(name: str, needs: tuple[_Need, ...], walk: Walk, url: str) -> Step:
    missing = [need for need in needs if not need[0](walk, url)]
    if not missing:
        return Step(name, Verdict.OK, "It finds all that it needs.")
    said = f"It would miss: {'; '.join(what for _, what, _ in missing)}."
    return Step(name, Verdict.WARN, said, remedy=" ".join(remedy for _, _, remedy in missing))
