"""Discovery of an MCP server's authorization server: 401, RFC 9728, then RFC 8414 or OIDC.

Responses are untrusted: issuers are compared, endpoints must be https, and the guarded client
checks each address.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from portal.domain.discovery import (
    DiscoveryStep,
    StepResult,
    Walk,
    covers,
    is_secure,
    shown_address,
    without_secrets,
)
from portal.domain.oauth import AuthorizationServer, Discovery, canonical_resource
from portal.domain.oauth_metadata import authorization_server_of, fault_of_metadata, words_of
from portal.domain.upstream import OutboundPolicy, Target
from portal.resources import portal_version
from portal.upstream.checks import checked_url
from portal.upstream.faults import fault_of_network, timed_out
from portal.upstream.guard import guarded_client
from portal.upstream.json_answers import json_object

TIMEOUT = 10.0  # seconds for one response, including its body
MOST_TIME = 25.0  # seconds for all responses
SHORT_TIME = 5.0  # seconds for the portal's own documents
MAX_DOCUMENT = 64 * 1024
_SHOWN = 4_000
_NAME_THE_SERVER = "Add the authorization server to `authorization_servers` (RFC 9728, section 2)."
_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "mcp-portal", "version": portal_version()},
    },
}
_LIST_TOOLS = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}


async def walk(policy: OutboundPolicy, url: str) -> Walk:
    """Discover the authorization server of the MCP server at `url`, without credentials.

    Does not raise errors of the server.
    """
    path = _Path(policy, url)
    async with guarded_client(policy, timeout=TIMEOUT, max_bytes=MAX_DOCUMENT) as http:
        path.http = http
        found = await _walked(path)
    return Walk(tuple(path.steps), found, path.documents)


async def read_issuer(policy: OutboundPolicy, issuer: str) -> Walk:
    """Fetch the metadata of the authorization server with this issuer."""
    path = _Path(policy, issuer)
    async with guarded_client(policy, timeout=TIMEOUT, max_bytes=MAX_DOCUMENT) as http:
        path.http = http
        server = await _authorization_server(path, issuer)
    return Walk(tuple(path.steps), Discovery(server, "") if server else None, path.documents)


async def read_documents(
    policy: OutboundPolicy, titles: Mapping[str, str]
) -> list[tuple[DiscoveryStep, dict[str, Any]]]:
    """GET JSON documents concurrently: a step and the document, or {}, for each title and URL."""
    path = _Path(policy, "", over_at=time.monotonic() + SHORT_TIME)
    async with guarded_client(policy, timeout=SHORT_TIME, max_bytes=MAX_DOCUMENT) as http:
        path.http = http
        answers = await asyncio.gather(*(path.ask(address) for address in titles.values()))
    for (title, address), seen in zip(titles.items(), answers, strict=True):
        verdict = StepResult.OK if seen.usable else StepResult.FAIL
        path.note(
            title,
            verdict,
            "" if seen.usable else seen.why,
            address=address,
            seen=seen,
            document=seen.document,
        )
    return [(step, seen.document or {}) for step, seen in zip(path.steps, answers, strict=True)]


@dataclass
class _Answer:
    """A response: `document` is its JSON object, `fault` the reason if there is no response."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    document: dict[str, Any] | None = None
    fault: str = ""

    @property
    def usable(self) -> bool:
        """Return whether the response is the requested document."""
        return self.status == 200 and self.document is not None

    @property
    def why(self) -> str:
        """Return why there is no document."""
        if self.status == 200:
            return "The response is not a JSON object (HTTP 200)."
        return self.fault or f"Not found (HTTP {self.status})."


@dataclass
class _Path:
    """The state of a discovery."""

    policy: OutboundPolicy
    url: str
    steps: list[DiscoveryStep] = field(default_factory=list)
    documents: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    http: httpx2.AsyncClient | None = None
    over_at: float = field(default_factory=lambda: time.monotonic() + MOST_TIME)

    async def ask(
        self, address: str, message: Mapping[str, Any] | None = None, *, head_only: bool = False
    ) -> _Answer:
        """GET a document or only its head, or POST an MCP message."""
        accept = "application/json" if message is None else "application/json, text/event-stream"
        target = Target("http", url=address)
        seconds = max(0.0, min(TIMEOUT, self.over_at - time.monotonic()))
        try:
            # Limits the whole exchange, including servers that send very slowly.
            async with asyncio.timeout(seconds):
                return await self._asked(address, accept, message, head_only or message is not None)
        except TimeoutError:
            return _Answer(fault=timed_out(target, round(seconds, 1)).message)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as fault:
            return _Answer(fault=fault_of_network(target, fault, None, TIMEOUT).message)

    async def _asked(
        self, address: str, accept: str, message: Mapping[str, Any] | None, head_only: bool
    ) -> _Answer:
        assert self.http is not None
        # A server that accepts the message may never end its response. The head is sufficient.
        content = None if message is None else json.dumps(dict(message))
        headers = {"Accept": accept, **({"Content-Type": "application/json"} if content else {})}
        request = self.http.stream(
            "POST" if content else "GET", checked_url(address), headers=headers, content=content
        )
        async with request as response:
            text = b"" if head_only else await response.aread()
        return _Answer(response.status_code, response.headers, json_object(text))

    def note(self, title: str, verdict: StepResult, said: str, **more: Any) -> None:
        """Add a step; `address` is for the request line, `document` is the response to show."""
        address = more.pop("address", "")
        document = more.pop("document", None)
        answer = more.pop("seen", None)
        if answer is not None:
            more |= {"status": answer.status}
        request = f"{more.pop('method', 'GET')} {self.shown(address)}" if address else ""
        shown = (
            json.dumps(document, indent=2, ensure_ascii=True)
            if document
            else more.pop("answer", "")
        )
        shown = without_secrets(shown, self.url)[:_SHOWN]
        self.steps.append(
            DiscoveryStep(title, verdict, said, request=request, answer=shown, **more)
        )

    def shown(self, address: str) -> str:
        """Return a URL that is safe to show."""
        try:
            return without_secrets(shown_address(address, urlsplit(self.url).path), self.url)
        except ValueError:
            return "an invalid URL"


async def _walked(path: _Path) -> Discovery | None:
    challenge = await _challenge(path)
    if challenge is None:
        return None
    path.documents["challenge"] = challenge
    resource = await _resource(path, challenge.get("resource_metadata", ""))
    if resource is None:
        return None
    path.documents["resource"] = resource
    parts = urlsplit(path.url)
    for issuer in words_of(resource.get("authorization_servers"))[:3] or [
        f"{parts.scheme}://{parts.netloc}"
    ]:
        server = await _authorization_server(path, issuer)
        if server is not None:
            scopes = challenge.get("scope", "").split() or words_of(
                resource.get("scopes_supported")
            )
            name = resource.get("resource")
            return Discovery(
                server,
                name if isinstance(name, str) else canonical_resource(path.url),
                tuple(scopes),
            )
    return None


async def _challenge(path: _Path) -> dict[str, str] | None:
    title = "Ask the MCP server without a token"
    seen = await path.ask(path.url, _INITIALIZE)
    if seen.status in (404, 405):  # HTTP+SSE: its stream is opened with GET
        opened = await path.ask(path.url, head_only=True)
        seen = opened if opened.status in (401, 403) else seen
    if seen.status == 200:  # initialize may be public, but not other requests
        refused = await path.ask(path.url, _LIST_TOOLS)
        seen = refused if refused.status in (401, 403) else seen
    common: dict[str, Any] = {"address": path.url, "method": "POST", "seen": seen}
    if seen.status is None:
        path.note(
            title,
            StepResult.FAIL,
            seen.fault,
            remedy="Check the server's URL, and whether it is running.",
            **common,
        )
        return None
    header = seen.headers.get("www-authenticate", "")
    if seen.status not in (401, 403):
        said = (
            f"It returned {seen.status} instead of 401. Clients will not know that they must sign"
            " in."
        )
        remedy = (
            "Return 401 with WWW-Authenticate: Bearer resource_metadata=… (RFC 9728, section 5.1)."
        )
        path.note(title, StepResult.WARN, said, remedy=remedy, **common)
        return {}
    found = {name: _parameter(header, name) for name in ("resource_metadata", "scope")}
    if found["resource_metadata"]:
        path.note(
            title,
            StepResult.OK,
            "It requires a token and links to its metadata.",
            answer=header,
            **common,
        )
    else:
        is_bearer = "bearer" in header.lower()
        said = "It requires a token, but does not link to its metadata."
        if not is_bearer:
            said = "It does not request a bearer token (WWW-Authenticate: Bearer)."
        remedy = (
            "Add resource_metadata=… to WWW-Authenticate (RFC 9728, section 5.1). Until then, the"
            " well-known URLs are used."
        )
        path.note(title, StepResult.WARN, said, answer=header, remedy=remedy, **common)
    return {name: value for name, value in found.items() if value}


async def _resource(path: _Path, told: str) -> dict[str, Any] | None:
    """Return the resource metadata, {} if there are none, or None if they are not valid.

    Servers from before 2025-06-18 have none.
    """
    from mcp.client.auth.utils import build_protected_resource_metadata_discovery_urls

    title = "Read the resource's metadata (RFC 9728)"
    for address in build_protected_resource_metadata_discovery_urls(told or None, path.url):
        if not is_secure(address):
            remedy = "Serve the MCP server and its metadata over https."
            path.note(
                title,
                StepResult.FAIL,
                "The URL of the metadata is not https.",
                address=address,
                remedy=remedy,
            )
            return None
        seen = await path.ask(address)
        if not seen.usable or seen.document is None:
            path.note(title, StepResult.WARN, seen.why, address=address, seen=seen)
            continue
        common = {"address": address, "seen": seen, "document": seen.document}
        resource = seen.document.get("resource")
        if not isinstance(resource, str) or not covers(resource, path.url):
            said = (
                "They are for a different resource than this server's URL, so clients must not use"
                " them."
            )
            remedy = "Set `resource` to the exact URL that clients call (RFC 9728, section 3.3)."
            path.note(title, StepResult.FAIL, said, remedy=remedy, **common)
            return None
        if words_of(seen.document.get("authorization_servers")):
            path.note(title, StepResult.OK, "They contain the authorization server.", **common)
        else:
            said = "They contain no authorization server. The server's own host is used."
            remedy = _NAME_THE_SERVER
            path.note(title, StepResult.WARN, said, remedy=remedy, **common)
        return seen.document
    said = (
        "Not found. The server's own host is used as the authorization server, as in clients from"
        " before mid-2025."
    )
    path.note(
        title,
        StepResult.WARN,
        said,
        remedy="Serve /.well-known/oauth-protected-resource (RFC 9728).",
    )
    return {}


async def _authorization_server(path: _Path, issuer: str) -> AuthorizationServer | None:
    from mcp.client.auth.utils import build_oauth_authorization_server_metadata_discovery_urls

    title = "Read the authorization server's metadata (RFC 8414, OpenID Connect Discovery)"
    if not is_secure(issuer):
        said = "Its URL is not https."
        remedy = "Serve the authorization server over https."
        path.note(title, StepResult.FAIL, said, address=issuer, remedy=remedy)
        return None
    for address in build_oauth_authorization_server_metadata_discovery_urls(issuer, path.url):
        seen = await path.ask(address)
        if not seen.usable or seen.document is None:
            path.note(title, StepResult.WARN, seen.why, address=address, seen=seen)
            continue
        path.documents.setdefault("server", seen.document)
        said, remedy = fault_of_metadata(seen.document, issuer)
        verdict = StepResult.FAIL if said else StepResult.OK
        said = said or "They are complete and match the issuer."
        path.note(
            title, verdict, said, address=address, seen=seen, document=seen.document, remedy=remedy
        )
        return None if verdict is StepResult.FAIL else authorization_server_of(seen.document)
    said = "No metadata found, so the sign-in URLs are unknown."
    remedy = (
        "Enter the authorization URL and the token URL in the server's form, or add metadata at the"
        " provider."
    )
    path.note(title, StepResult.FAIL, said, remedy=remedy)
    return None


def _parameter(header: str, name: str) -> str:
    """Return a parameter of a WWW-Authenticate header as parsed by the SDK, or ""."""
    from mcp.client.auth.utils import extract_field_from_www_auth

    return (
        extract_field_from_www_auth(
            httpx2.Response(401, headers={"WWW-Authenticate": header}), name
        )
        or ""
    )
