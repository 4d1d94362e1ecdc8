"""What the portal says to authorization servers as their client: tokens, registration, revocation.

RFC 6749 (token endpoint), RFC 7636 (PKCE), RFC 8707 (resource), RFC 7591 (registration), RFC 7009 (revocation) and
RFC 8693 (exchange). Every answer is small, JSON, and hostile until read.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from portal.domain.discovery import Walk
from portal.domain.errors import UpstreamFailure
from portal.domain.oauth import AuthorizationServer, Client, Discovery
from portal.domain.upstream import HealthReason, OutboundPolicy, Target
from portal.upstream import oauth_discovery
from portal.upstream.checks import checked_url
from portal.upstream.faults import fault_of_network
from portal.upstream.guard import guarded_client
from portal.upstream.loop import run

TIMEOUT = 10.0
MAX_ANSWER = 64 * 1024  # R-OAUTH-53
_OVERTIME = 2.0
_WALK = 30.0
_ERROR_CODE = 64


class OAuthRefused(UpstreamFailure):
    """An authorization server said no; `error` is its word (RFC 6749, 5.2), and nothing else of its text."""

    code = "oauth_refused"

    def __init__(self, host: str, error: str, status: int) -> None:
        super().__init__(f"{host} refused ({error}).", reason=HealthReason.HTTP_STATUS)
        self.error = error
        self.status = status


class OAuthClient:
    """Speaks to authorization servers through the guarded client. Holds nothing; may be shared by threads.

    Every method raises `UpstreamFailure` (or `UpstreamTimeout`) where no answer came or it was rubbish, and
    `OAuthRefused` where it was an OAuth error.
    """

    def __init__(self, policy: OutboundPolicy) -> None:
        self._policy = policy

    def walk(self, url: str) -> Walk:
        """How the MCP server at `url` leads to its authorization server; raises `UpstreamTimeout` only."""
        return run(oauth_discovery.walk(self._policy, url), _WALK)

    def discover(self, url: str) -> Discovery:
        """The authorization of the MCP server at `url`. Raises `UpstreamFailure` with what is wrong."""
        return _found(self.walk(url))

    def read_issuer(self, issuer: str) -> AuthorizationServer:
        """The metadata of an authorization server by its issuer. Raises `UpstreamFailure` with what is wrong."""
        return _found(run(oauth_discovery.read_issuer(self._policy, issuer), _WALK)).server

    def ask_for_token(
        self, server: AuthorizationServer, client: Client, form: Mapping[str, str], *, timeout: float = TIMEOUT
    ) -> dict[str, Any]:
        """POST `form` (grant_type and what belongs to it) to the token endpoint, authenticated as `client`."""
        headers, more = _authentication(server, client)
        return self._post(server.token_endpoint, form={**form, **more}, headers=headers, timeout=timeout)

    def register(self, server: AuthorizationServer, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Register the portal as a client (RFC 7591); the whole answer, which holds secrets."""
        answer = self._post(server.registration_endpoint, document=metadata)
        if not isinstance(answer.get("client_id"), str) or not answer["client_id"]:
            raise UpstreamFailure("The registration gave no client id.", reason=HealthReason.NOT_MCP)
        return answer

    def revoke(self, server: AuthorizationServer, client: Client, token: str, *, hint: str) -> None:
        """Revoke a token (RFC 7009); `hint` is access_token or refresh_token."""
        headers, more = _authentication(server, client)
        # An empty parameter counts as omitted (RFC 6749, 3.1); servers on the official SDK want it to be there.
        form = {"token": token, "token_type_hint": hint, "client_secret": "", **more}
        self._post(server.revocation_endpoint, form=form, headers=headers, may_be_empty=True)

    def _post(
        self,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        document: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        may_be_empty: bool = False,
    ) -> dict[str, Any]:
        work = self._apost(url, form, document, {"Accept": "application/json", **(headers or {})}, timeout)
        status, text, host = run(work, timeout + _OVERTIME)
        answer = _object(text)
        if status >= 400 or (answer and "error" in answer and "access_token" not in answer):
            error = (answer or {}).get("error")
            raise OAuthRefused(host, _word(error) or f"HTTP {status}", status)
        if answer is None and not (may_be_empty and status < 300):
            raise UpstreamFailure(f"{host} answered, but not with JSON (HTTP {status}).", reason=HealthReason.NOT_MCP)
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
                self._policy, headers=headers, timeout=timeout, max_bytes=MAX_ANSWER, follow_redirects=False
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
        raise UpstreamFailure(fault.said if fault else "Nothing was found.", reason=HealthReason.HTTP_STATUS)
    return walk.found


def _authentication(server: AuthorizationServer, client: Client) -> tuple[dict[str, str], dict[str, str]]:
    """How the client authenticates (RFC 6749, 2.3.1): headers, and what goes into the form."""
    method = client.auth_method or _chosen(server.token_endpoint_auth_methods, bool(client.client_secret))
    if method == "client_secret_basic":
        pair = f"{quote(client.client_id, safe='')}:{quote(client.client_secret, safe='')}"
        # The id stands in the form, too: servers on the official SDK look for it there.
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}, {"client_id": client.client_id}
    secret = {"client_secret": client.client_secret} if client.client_secret and method != "none" else {}
    return {}, {"client_id": client.client_id, **secret}


def _chosen(supported: tuple[str, ...], has_secret: bool) -> str:
    if not has_secret:
        return "none"
    # RFC 8414: where nothing is said it is client_secret_basic; in practice the form is what every server takes.
    return "client_secret_basic" if supported and "client_secret_post" not in supported else "client_secret_post"


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _word(error: object) -> str:
    """An error code as it may be shown: a short word of printable ASCII, nothing that could be a secret or markup."""
    if isinstance(error, str) and len(error) <= _ERROR_CODE and error.replace("_", "").replace("-", "").isalnum():
        return error if error.isascii() else ""
    return ""
