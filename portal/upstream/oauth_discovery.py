"""From an MCP server to its authorization server, as MCP clients find the way: 401, RFC 9728, then RFC 8414 or OIDC.

Everything that comes is hostile until checked: issuers are compared, endpoints have to be https, and the guarded
client judges each address anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from portal.domain.discovery import Step, Verdict, Walk, covers, is_secure, same_issuer, shown_address
from portal.domain.oauth import AuthorizationServer, Discovery, canonical_resource
from portal.domain.upstream import OutboundPolicy, Target
from portal.upstream.checks import checked_url
from portal.upstream.faults import fault_of_network
from portal.upstream.guard import guarded_client

TIMEOUT = 10.0
MAX_DOCUMENT = 64 * 1024
_SHOWN = 4_000
_INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "mcp-portal", "version": "1"},
    },
}  # fmt: skip


async def walk(policy: OutboundPolicy, url: str) -> Walk:
    """Ask the MCP server at `url` for its authorization, without any credential. Raises nothing for what it answers."""
    path = _Path(policy, url)
    async with guarded_client(policy, timeout=TIMEOUT, max_bytes=MAX_DOCUMENT) as http:
        path.http = http
        found = await _walked(path)
    return Walk(tuple(path.steps), found)


async def read_issuer(policy: OutboundPolicy, issuer: str) -> Walk:
    """The metadata of the authorization server that calls itself `issuer`."""
    path = _Path(policy, issuer)
    async with guarded_client(policy, timeout=TIMEOUT, max_bytes=MAX_DOCUMENT) as http:
        path.http = http
        server = await _authorization_server(path, issuer)
    return Walk(tuple(path.steps), Discovery(server, "") if server else None)


@dataclass
class _Answer:
    """An answer as far as it is looked at: `document` is its JSON object, `fault` why none came."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    document: dict[str, Any] | None = None
    fault: str = ""


@dataclass
class _Path:
    """The way so far."""

    policy: OutboundPolicy
    url: str
    steps: list[Step] = field(default_factory=list)
    http: httpx2.AsyncClient | None = None

    async def ask(self, address: str, message: Mapping[str, Any] | None = None) -> _Answer:
        """GET a document, or POST an MCP message."""
        assert self.http is not None
        accept = "application/json" if message is None else "application/json, text/event-stream"
        try:
            where = checked_url(address)
            # A server that takes the message may never end its answer: the head tells all that is asked.
            content = None if message is None else json.dumps(dict(message))
            headers = {"Accept": accept, **({"Content-Type": "application/json"} if content else {})}
            request = self.http.stream("POST" if content else "GET", where, headers=headers, content=content)
            async with request as response:
                text = b"" if message is not None and response.status_code < 400 else await response.aread()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as fault:
            return _Answer(fault=fault_of_network(Target("http", url=address), fault, None, TIMEOUT).message)
        return _Answer(response.status_code, response.headers, _object(text))

    def note(self, title: str, verdict: Verdict, said: str, **more: Any) -> None:
        """Write a step down; `address` becomes the request line, `document` the answer that is shown."""
        address, document, answer = more.pop("address", ""), more.pop("document", None), more.pop("seen", None)
        if answer is not None:
            more |= {"status": answer.status}
        request = f"{more.pop('method', 'GET')} {self.shown(address)}" if address else ""
        shown = json.dumps(document, indent=2, ensure_ascii=True)[:_SHOWN] if document else more.pop("answer", "")
        self.steps.append(Step(title, verdict, said, request=request, answer=self.hidden(shown), **more))

    def shown(self, address: str) -> str:
        """An address as a page may show it."""
        try:
            return shown_address(address, urlsplit(self.url).path)
        except ValueError:
            return "an address that cannot be read"

    def hidden(self, text: str) -> str:
        """Upstream's text without the path and query of the server's own address."""
        parts = urlsplit(self.url)
        for secret in (parts.query, parts.path.rstrip("/")):
            text = text.replace(secret, "/…" if secret.startswith("/") else "…") if len(secret) > 1 else text
        return text


async def _walked(path: _Path) -> Discovery | None:
    challenge = await _challenge(path)
    if challenge is None:
        return None
    resource = await _resource(path, challenge.get("resource_metadata", ""))
    if resource is None:
        return None
    issuers = [issuer for issuer in resource.get("authorization_servers") or () if isinstance(issuer, str)]
    parts = urlsplit(path.url)
    for issuer in issuers[:3] or [f"{parts.scheme}://{parts.netloc}"]:
        server = await _authorization_server(path, issuer)
        if server is not None:
            scopes = challenge.get("scope", "").split() or _words(resource.get("scopes_supported"))
            name = resource.get("resource")
            return Discovery(server, name if isinstance(name, str) else canonical_resource(path.url), tuple(scopes))
    return None


async def _challenge(path: _Path) -> dict[str, str] | None:
    title = "Ask the MCP server without a token"
    seen = await path.ask(path.url, _INITIALIZE)
    common: dict[str, Any] = {"address": path.url, "method": "POST", "seen": seen}
    if seen.status is None:
        path.note(title, Verdict.FAIL, seen.fault, remedy="Check the server's URL, and that it runs.", **common)
        return None
    header = seen.headers.get("www-authenticate", "")
    if seen.status not in (401, 403):
        said = f"It answered {seen.status} where 401 was to be expected: clients will not know that they must sign in."
        remedy = "Let the server answer 401 with WWW-Authenticate: Bearer resource_metadata=… (RFC 9728, 5.1)."
        path.note(title, Verdict.WARN, said, remedy=remedy, **common)
        return {}
    found = {name: _parameter(header, name) for name in ("resource_metadata", "scope")}
    if found["resource_metadata"]:
        path.note(title, Verdict.OK, "It asks for a token and says where its metadata are.", answer=header, **common)
    else:
        said = "It asks for a token, but does not say where its metadata are."
        remedy = "Add resource_metadata=… to WWW-Authenticate (RFC 9728, 5.1); the well-known addresses are tried now."
        path.note(title, Verdict.WARN, said, answer=header, remedy=remedy, **common)
    return {name: value for name, value in found.items() if value}


async def _resource(path: _Path, told: str) -> dict[str, Any] | None:
    """The resource metadata; {} where there are none (servers of before 2025-06-18), None where they are not usable."""
    from mcp.client.auth.utils import build_protected_resource_metadata_discovery_urls

    title = "Read the resource's metadata (RFC 9728)"
    for address in build_protected_resource_metadata_discovery_urls(told or None, path.url):
        if not is_secure(address):
            path.note(title, Verdict.FAIL, "The address of the metadata is not https.", address=address)
            return None
        seen = await path.ask(address)
        if seen.status != 200 or seen.document is None:
            said = seen.fault or f"Nothing there (HTTP {seen.status})."
            path.note(title, Verdict.WARN, said, address=address, seen=seen)
            continue
        common = {"address": address, "seen": seen, "document": seen.document}
        resource = seen.document.get("resource")
        if not isinstance(resource, str) or not _covers(resource, path.url):
            said = "They are about another resource than this server's URL, so clients must not use them."
            remedy = "Let `resource` be exactly the URL that clients call (RFC 9728, 3.3)."
            path.note(title, Verdict.FAIL, said, remedy=remedy, **common)
            return None
        path.note(title, Verdict.OK, "They name the authorization server.", **common)
        return seen.document
    said = "There are none. The server's own host is tried as authorization server, as clients of before mid-2025 do."
    path.note(title, Verdict.WARN, said, remedy="Serve /.well-known/oauth-protected-resource (RFC 9728).")
    return {}


async def _authorization_server(path: _Path, issuer: str) -> AuthorizationServer | None:
    from mcp.client.auth.utils import build_oauth_authorization_server_metadata_discovery_urls

    title = "Read the authorization server's metadata (RFC 8414, OpenID Connect Discovery)"
    if not is_secure(issuer):
        said, remedy = "Its address is not https.", "Serve the authorization server over https."
        path.note(title, Verdict.FAIL, said, address=issuer, remedy=remedy)
        return None
    for address in build_oauth_authorization_server_metadata_discovery_urls(issuer, path.url):
        seen = await path.ask(address)
        if seen.status != 200 or seen.document is None:
            path.note(
                title, Verdict.WARN, seen.fault or f"Nothing there (HTTP {seen.status}).", address=address, seen=seen
            )
            continue
        said, remedy = _fault_of_metadata(seen.document, issuer)
        verdict = Verdict.FAIL if said else Verdict.OK
        said = said or "They are complete and of the right issuer."
        path.note(title, verdict, said, address=address, seen=seen, document=seen.document, remedy=remedy)
        return None if verdict is Verdict.FAIL else _server_of(seen.document)
    said = "No metadata were found, so nobody can tell where to sign in."
    remedy = "Type the authorization and the token URL in the server's form, or let the provider serve its metadata."
    path.note(title, Verdict.FAIL, said, remedy=remedy)
    return None


def _fault_of_metadata(document: Mapping[str, Any], issuer: str) -> tuple[str, str]:
    said = document.get("issuer")
    if not isinstance(said, str) or not same_issuer(said, issuer):
        return (
            "They name another issuer than the one that was asked for.",
            "Let `issuer` be the very URL (RFC 8414, 3.3).",
        )
    for name in ("authorization_endpoint", "token_endpoint"):
        if not isinstance(document.get(name), str):
            return f"{name} is missing.", f"Add {name} to the metadata."
    for name in ("authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint"):
        address = document.get(name)
        if isinstance(address, str) and not is_secure(address):
            return f"{name} is not https.", "Serve every endpoint over https."
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        return "It does not offer PKCE with S256.", "Switch PKCE S256 on; MCP clients refuse to go on without it."
    return "", ""


def _server_of(document: Mapping[str, Any]) -> AuthorizationServer:
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
        scopes_supported=tuple(_words(document.get("scopes_supported"))),
        token_endpoint_auth_methods=tuple(_words(document.get("token_endpoint_auth_methods_supported"))),
        pkce=tuple(_words(methods)) if isinstance(methods, list) else None,
        sends_iss=document.get("authorization_response_iss_parameter_supported") is True,
        takes_metadata_documents=document.get("client_id_metadata_document_supported") is True,
    )


def _parameter(header: str, name: str) -> str:
    """A parameter of a WWW-Authenticate header, as the SDK reads it."""
    from mcp.client.auth.utils import extract_field_from_www_auth

    return extract_field_from_www_auth(httpx2.Response(401, headers={"WWW-Authenticate": header}), name) or ""


def _covers(resource: str, url: str) -> bool:
    try:
        return covers(resource, url)
    except ValueError:
        return False


def _words(value: object) -> list[str]:
    return [word for word in value if isinstance(word, str) and word] if isinstance(value, list) else []


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
