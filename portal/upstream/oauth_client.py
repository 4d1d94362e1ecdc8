"""The OAuth client for authorization servers: tokens, registration and revocation.

RFC 6749 (token endpoint), RFC 7636 (PKCE), RFC 8707 (resource), RFC 7591 (registration), RFC 7009
(revocation) and RFC 8693 (exchange). Responses are small JSON documents and untrusted.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from portal.domain.discovery import DiscoveryStep, Walk
from portal.domain.errors import UpstreamFailure
from portal.domain.oauth import AuthorizationServer, Client, Discovery
from portal.domain.upstream import HealthReason, OutboundPolicy, Target
from portal.telemetry.outgoing import outgoing
from portal.upstream import oauth_discovery
from portal.upstream.checks import checked_url
from portal.upstream.faults import fault_of_network
from portal.upstream.guard import guarded_client
from portal.upstream.json_answers import json_object
from portal.upstream.loop import run

TIMEOUT = 10.0
MAX_ANSWER = 64 * 1024
_OVERTIME = 2.0
_WALK = 30.0
_ERROR_CODE = re.compile(r"[a-z]+(?:[_-][a-z]+){0,7}\Z")


class OAuthRefused(UpstreamFailure):
    """An authorization server refused a request; `error` is its code (RFC 6749, section 5.2)."""

    code = "oauth_refused"

    def __init__(self, host: str, error: str, status: int) -> None:
        super().__init__(f"{host} refused the request ({error}).", reason=HealthReason.HTTP_STATUS)
        self.error = error
        self.status = status


class OAuthClient:
    """Client for authorization servers. It has no state and is thread-safe.

    Methods raise `UpstreamFailure` or `UpstreamTimeout` without a valid response, and
    `OAuthRefused` for an OAuth error.
    """

    def __init__(self, policy: OutboundPolicy) -> None:
        self._policy = policy

    def walk(self, url: str) -> Walk:
        """Return the discovery of the MCP server at `url`. Raises only `UpstreamTimeout`."""
        with outgoing("discovery", Target("http", url=url).label):
            return run(oauth_discovery.walk(self._policy, url), _WALK)

    def discover(self, url: str) -> Discovery:
        """Return the authorization server of the MCP server at `url`. Raises `UpstreamFailure`."""
        return _found(self.walk(url))

    def read_issuer(self, issuer: str) -> AuthorizationServer:
        """Return the metadata of an authorization server by issuer. Raises `UpstreamFailure`."""
        with outgoing("discovery", Target("http", url=issuer).label):
            return _found(run(oauth_discovery.read_issuer(self._policy, issuer), _WALK)).server

    def read_own(self, titles: Mapping[str, str]) -> list[tuple[DiscoveryStep, dict[str, Any]]]:
        """Fetch the portal's own documents: a step and the document for each title and URL.

        Private addresses are allowed, since the URLs are below the operator's public URL and users
        cannot change them.
        """
        return run(
            oauth_discovery.read_documents(OutboundPolicy(True), titles),
            oauth_discovery.SHORT_TIME + _OVERTIME,
        )

    def ask_for_token(
        self,
        server: AuthorizationServer,
        client: Client,
        form: Mapping[str, str],
        *,
        timeout: float = TIMEOUT,
    ) -> dict[str, Any]:
        """POST `form` with its grant_type to the token endpoint, authenticated as `client`."""
        headers, more = _authentication(server, client)
        kind = "refresh" if form.get("grant_type") == "refresh_token" else "token"
        return self._post(
            kind, server.token_endpoint, form={**form, **more}, headers=headers, timeout=timeout
        )

    def register(self, server: AuthorizationServer, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Register the portal as a client (RFC 7591), and return the response, with secrets."""
        answer = self._post("register", server.registration_endpoint, document=metadata)
        if not isinstance(answer.get("client_id"), str) or not answer["client_id"]:
            raise UpstreamFailure(
                "The registration response has no client ID.", reason=HealthReason.NOT_MCP
            )
        return answer

    def revoke(self, server: AuthorizationServer, client: Client, token: str, *, hint: str) -> None:
        """Revoke a token (RFC 7009); `hint` is access_token or refresh_token."""
        headers, more = _authentication(server, client)
        # An empty parameter counts as omitted (RFC 6749, section 3.1), but servers with the
        # official SDK require it.
        form = {"token": token, "token_type_hint": hint, "client_secret": "", **more}
        self._post(
            "revoke", server.revocation_endpoint, form=form, headers=headers, may_be_empty=True
        )

    def _post(
        self,
        kind: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        document: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        may_be_empty: bool = False,
    ) -> dict[str, Any]:
        work = self._apost(
            url, form, document, {"Accept": "application/json", **(headers or {})}, timeout
        )
        with outgoing(kind, Target("http", url=url).label):
            status, text, host = run(work, timeout + _OVERTIME)
            answer = json_object(text)
            if status >= 300 or (answer and answer.get("error") and "access_token" not in answer):
                error = (answer or {}).get("error")
                raise OAuthRefused(host, _word(error) or f"HTTP {status}", status)
            if answer is None and not may_be_empty:
                said = f"{host} did not return JSON (HTTP {status})."
                raise UpstreamFailure(said, reason=HealthReason.NOT_MCP)
            return answer or {}

    async def _apost(
        self,
        url: str,
        form: Mapping[str, str] | None,
        document: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> tuple[int, bytes, str]:
        target = Target("http", url=url)
        try:
            async with guarded_client(
                self._policy,
                headers=headers,
                timeout=timeout,
                max_bytes=MAX_ANSWER,
                follow_redirects=False,
            ) as http:
                if document is not None:
                    response = await http.post(checked_url(url), json=dict(document))
                else:
                    response = await http.post(checked_url(url), data=dict(form or {}))
                return response.status_code, response.content, target.label
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as fault:
            raise fault_of_network(target, fault, None, timeout).as_failure() from None


def _found(walk: Walk) -> Discovery:
    if walk.found is None:
        fault = walk.fault
        said = f"{fault.title}: {fault.said}" if fault else "No authorization server was found."
        raise UpstreamFailure(said, reason=HealthReason.HTTP_STATUS)
    return walk.found


def _authentication(
    server: AuthorizationServer, client: Client
) -> tuple[dict[str, str], dict[str, str]]:
    """Return headers and form fields for client authentication (RFC 6749, section 2.3.1)."""
    method = client.auth_method or _chosen(
        server.token_endpoint_auth_methods, bool(client.client_secret)
    )
    if method == "client_secret_basic":
        pair = f"{quote(client.client_id, safe='')}:{quote(client.client_secret, safe='')}"
        # The ID is also in the form, where servers with the official SDK expect it.
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}, {
            "client_id": client.client_id
        }
    secret = (
        {"client_secret": client.client_secret} if client.client_secret and method != "none" else {}
    )
    return {}, {"client_id": client.client_id, **secret}


def _chosen(supported: tuple[str, ...], has_secret: bool) -> str:
    if not has_secret:
        return "none"
    # The default in RFC 8414 is client_secret_basic, but in practice all servers support the form.
    only_basic = "client_secret_basic" in supported and "client_secret_post" not in supported
    return "client_secret_basic" if only_basic else "client_secret_post"


def _word(error: object) -> str:
    """Return an error code if it is safe to show: lowercase words, like all registered codes."""
    return error if isinstance(error, str) and len(error) <= 64 and _ERROR_CODE.match(error) else ""
