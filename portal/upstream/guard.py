"""The HTTP client for all outgoing requests of the portal.

It resolves a host name once, requires all its addresses to be allowed, and connects to one of the
checked addresses. So unusual spellings, redirects and DNS rebinding cannot bypass the policy.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from functools import cache
from ipaddress import ip_address
from typing import Any, Protocol

import httpcore2
import httpx2

from portal.domain.upstream import OutboundPolicy
from portal.telemetry import metrics
from portal.upstream.bodies import (
    ACCEPT_ENCODING,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_MESSAGE_BYTES,
    BodyLimits,
    LimitedBody,
    ResponseTooLarge,
    headers_after_decoding,
    in_words,
)
from portal.upstream.checks import check_address, checked_headers

CONNECT_TIMEOUT = 5.0
MAX_REDIRECTS = 3
MAX_ADDRESSES = 4
_HEAD_PIECE = 4 * 1024  # bytes to parse before the event loop runs

_OWN_HEADERS = {"User-Agent": "mcp-portal", "Accept-Encoding": ACCEPT_ENCODING}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD = frozenset({307, 308})
# Both log complete URLs at INFO, and a URL may contain a key.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Blocked(httpcore2.ConnectError):
    """An address of the host is not allowed by the outbound policy."""


class NameNotFound(httpcore2.ConnectError):
    """The host name has no address."""


class RedirectRefused(httpx2.RequestError):
    """A redirect to another origin, or one that changes the method."""


class Witness(Protocol):
    """Observer of the actual HTTP requests below a library."""

    def answered(self, request: httpx2.Request, response: httpx2.Response) -> None:
        """Called when the head of a response arrived."""

    def failed(self, request: httpx2.Request, fault: Exception) -> None:
        """Called when a request failed, or its response was interrupted."""


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Network backend that connects only to allowed addresses. TLS still verifies the host name."""

    def __init__(self, policy: OutboundPolicy) -> None:
        self._policy = policy
        self._inner: httpcore2.AsyncNetworkBackend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        began = time.monotonic()
        addresses = await self._judged(host, port, timeout)
        for left in range(len(addresses), 0, -1):
            # Each address gets a share of the remaining time, so that the next one can be tried.
            share = None
            if timeout is not None:
                share = max(0.05, (timeout - (time.monotonic() - began)) / left)
            try:
                address = addresses[-left]
                return _Head(
                    await self._inner.connect_tcp(
                        address, port, share, local_address, socket_options
                    )
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if left == 1:
                    raise
        raise NameNotFound(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise Blocked("Unix sockets are not allowed")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    async def _judged(self, host: str, port: int, timeout: float | None) -> list[str]:
        addresses = await self._resolve(host, port, timeout)
        if not all(self._policy.allows(address) for address in addresses):
            metrics.security("address_blocked")
            raise Blocked(f"{host} has an address that is not allowed")
        return addresses[:MAX_ADDRESSES]

    @staticmethod
    async def _resolve(host: str, port: int, timeout: float | None) -> list[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                )
        except TimeoutError as fault:
            raise httpcore2.ConnectTimeout(f"{host} was not resolved in time") from fault
        except (OSError, UnicodeError) as fault:
            raise NameNotFound(f"{host} was not found") from fault
        return list(dict.fromkeys(str(info[4][0]) for info in found))


class _Head(httpcore2.AsyncNetworkStream):
    """A connection that limits the head of a response and reads it in small pieces.

    Otherwise a flood of interim responses (1xx) or headers would block the event loop.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner
        self._left: int | None = MAX_HEAD_BYTES

    def is_read(self) -> None:
        """Mark the head as complete: the body follows."""
        self._left = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left is None:
            return await self._inner.read(max_bytes, timeout)
        data = await self._inner.read(min(max_bytes, _HEAD_PIECE), timeout)
        self._left -= len(data)
        if self._left < 0:
            raise ResponseTooLarge(
                f"sent too much: the limit is {in_words(MAX_HEAD_BYTES)} before the body. The"
                " server must send fewer headers and interim responses."
            )
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._left = MAX_HEAD_BYTES  # for the response to this request
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return _Head(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Body(httpx2.AsyncByteStream):
    """The decoded bytes of a response within limits. Errors are reported to the witness."""

    def __init__(
        self,
        response: httpx2.Response,
        request: httpx2.Request,
        body: LimitedBody,
        witness: Witness | None,
    ) -> None:
        self._response = response
        self._request = request
        self._body = body
        self._witness = witness

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async with aclosing(self._body.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except httpx2.RequestError as fault:
            fault.request = self._request
            if self._witness:
                self._witness.failed(self._request, fault)
            raise

    async def aclose(self) -> None:
        await self._response.aclose()


class GuardedTransport(httpx2.AsyncBaseTransport):
    """httpx2 transport with a guarded backend and limits for redirects, heads, bodies and time."""

    def __init__(
        self, policy: OutboundPolicy, *, limits: BodyLimits, timeout: float, witness: Witness | None
    ) -> None:
        self._inner = httpx2.AsyncHTTPTransport(verify=shared_ssl_context(), trust_env=False)
        # httpx2 has no public parameter for the backend; tests/upstream/test_guard.py fails if this
        # attribute has no effect.
        self._inner._pool._network_backend = GuardedBackend(policy)
        self._limits = limits
        self._timeout = timeout
        self._witness = witness

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # Redirects inherit the extensions of the first request, so they share its deadline.
        now = asyncio.get_running_loop().time()
        deadline: float = request.extensions.setdefault("portal_deadline", now + self._timeout)
        try:
            check_address(request.url)
            response = await self._head(request, deadline)
            await _refuse_foreign_redirect(request, response)
        except httpx2.RequestError as fault:
            fault.request = request
            if self._witness:
                self._witness.failed(request, fault)
            raise
        if self._witness:
            self._witness.answered(request, response)
        body = _Body(
            response, request, LimitedBody(response, self._limits, deadline), self._witness
        )
        headers = headers_after_decoding(response)
        return httpx2.Response(
            response.status_code, headers=headers, stream=body, extensions=response.extensions
        )

    async def _head(self, request: httpx2.Request, deadline: float) -> httpx2.Response:
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._inner.handle_async_request(request)
        except TimeoutError:
            raise httpx2.ReadTimeout("no answer in time") from None
        if isinstance(stream := response.extensions.get("network_stream"), _Head):
            stream.is_read()
        if len(response.headers.raw) > MAX_HEADERS:
            await response.aclose()
            raise ResponseTooLarge(
                f"sent too much: the limit is {MAX_HEADERS} headers. The server must send fewer."
            )
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _refuse_foreign_redirect(request: httpx2.Request, response: httpx2.Response) -> None:
    """Raise `RedirectRefused` for a redirect to another origin (RFC 9110, section 15.4).

    Headers, body and permission apply to one origin only.
    """
    if response.status_code not in _REDIRECTS or "location" not in response.headers:
        return
    here = request.url
    try:
        there = here.join(response.headers["location"])
    except (httpx2.InvalidURL, ValueError):
        there = None
    origin = (here.scheme, here.host, here.port)
    same = there is not None and (there.scheme, there.host, there.port) == origin
    if there is None or not same or there.userinfo:
        await response.aclose()
        raise RedirectRefused("a redirect to another origin")
    if response.status_code not in _KEEPS_METHOD and request.method not in ("GET", "HEAD"):
        await response.aclose()
        raise RedirectRefused("a redirect that changes the method")


@cache
def shared_ssl_context() -> ssl.SSLContext:
    """Return the TLS context of the process, since creating one takes 40 ms.

    It trusts the certificate authorities of the system, or those in SSL_CERT_FILE or SSL_CERT_DIR.
    """
    return httpx2.create_ssl_context(verify=True, trust_env=True)


def guarded_client(
    policy: OutboundPolicy,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = 20.0,
    max_bytes: int = MAX_MESSAGE_BYTES,
    max_values: int | None = None,
    follow_redirects: bool = True,
    witness: Witness | None = None,
    auth: httpx2.Auth | None = None,
) -> httpx2.AsyncClient:
    """Return a new client that connects only to addresses allowed by `policy`.

    Close it (`async with`) after use. `timeout` in seconds applies to a whole exchange, including
    redirects and the response body; connecting takes at most 5 s of it. `max_bytes` limits each
    body, both received and decoded. `max_values` limits its JSON values, for callers whose library
    parses them. Responses may be gzip or not encoded. At most 3 redirects within the origin are
    followed, each checked again; others raise `RedirectRefused`. `auth` signs requests.

    Raises `InvalidHeader`. Requests raise `httpx2.ConnectError` with `Blocked` or `NameNotFound` as
    a cause (see `causes_of`), `BadAddress`, `ResponseTooLarge`, `BadEncoding`, `Unfinished` and
    errors of httpx2. Proxy variables and netrc of the environment are ignored. Cookies are kept
    only in the client.
    """
    limits = BodyLimits(max_bytes, max_values)
    return httpx2.AsyncClient(
        transport=GuardedTransport(policy, limits=limits, timeout=timeout, witness=witness),
        headers=_encoded({**_OWN_HEADERS, **checked_headers(headers or {})}),
        timeout=httpx2.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout)),
        auth=auth,
        follow_redirects=follow_redirects,
        max_redirects=MAX_REDIRECTS,
        trust_env=False,
    )


def _encoded(headers: dict[str, str]) -> dict[bytes, bytes]:
    # The last one wins, regardless of case, since two User-Agent headers are not valid.
    return {
        name.lower().encode("ascii"): value.encode("latin-1") for name, value in headers.items()
    }


def causes_of(fault: BaseException) -> list[BaseException]:
    """Return `fault` with its causes, contexts and members of groups, the outermost first."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [fault]
    while waiting:
        current = waiting.pop(0)
        if current is None or current in found:
            continue
        found.append(current)
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions)
        waiting.extend((current.__cause__, current.__context__))
    return found
