"""The one HTTP client for all that the portal asks of other machines.

It resolves a name once, requires every address to be allowed and connects to one that was judged,
so neither odd spellings, redirects nor a name that changes its mind (DNS rebinding) lead anywhere
else.
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
from portal.upstream.checks import check_url, checked_headers

CONNECT_TIMEOUT = 5.0
MAX_REDIRECTS = 3
MAX_ADDRESSES = 4
_HEAD_PIECE = 4 * 1024  # bytes that are parsed at once, before the event loop gets its turn

_OWN_HEADERS = {"User-Agent": "mcp-portal", "Accept-Encoding": ACCEPT_ENCODING}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD = frozenset({307, 308})
# Both write whole addresses into the log at INFO, and an address may hold a key.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Blocked(httpcore2.ConnectError):
    """The outbound policy refuses an address that the name stands for."""


class NameNotFound(httpcore2.ConnectError):
    """The name has no address."""


class RedirectRefused(httpx2.RequestError):
    """A redirect to another origin, or one that changes the method."""


class Witness(Protocol):
    """Who wants to know what really happened on the wire, however a library above wraps it."""

    def answered(self, request: httpx2.Request, response: httpx2.Response) -> None:
        """A response's head has come."""

    def failed(self, request: httpx2.Request, fault: Exception) -> None:
        """A request found no answer, or its answer broke off."""


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections to allowed addresses only; TLS above it still checks the certificate of the
    name."""

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
            # A dead address must leave time for the next one: each gets its share of what remains.
            share = (
                None
                if timeout is None
                else max(0.05, (timeout - (time.monotonic() - began)) / left)
            )
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
        raise Blocked("sockets of this machine are not for HTTP")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    async def _judged(self, host: str, port: int, timeout: float | None) -> list[str]:
        addresses = await self._resolve(host, port, timeout)
        if not all(self._policy.allows(address) for address in addresses):
            metrics.security("address_blocked")
            raise Blocked(f"{host} stands for an address that is not allowed")
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
    """A connection on which the head of an answer, with all that comes before it, is small and read
    in small pieces.

    A flood of interim answers (1xx) or of headers would else be parsed in one go, for as long as it
    lasts.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner
        self._left: int | None = MAX_HEAD_BYTES

    def is_read(self) -> None:
        """The head is complete; what comes now is the body."""
        self._left = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left is None:
            return await self._inner.read(max_bytes, timeout)
        data = await self._inner.read(min(max_bytes, _HEAD_PIECE), timeout)
        self._left -= len(data)
        if self._left < 0:
            raise ResponseTooLarge(
                f"sent more than the portal takes: the limit is {in_words(MAX_HEAD_BYTES)} before"
                " the body begins. It has to send fewer headers and interim answers."
            )
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._left = MAX_HEAD_BYTES  # of the answer to this
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
    """A response's decoded bytes within limits, with whoever wants to know told where it breaks
    off."""

    def __init__(
        self,
        response: httpx2.Response,
        request: httpx2.Request,
        body: LimitedBody,
        witness: Witness | None,
    ) -> None:
        self._response, self._request, self._body, self._witness = response, request, body, witness

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
    """httpx2's transport over a guarded backend, with refused redirects and limited heads, bodies
    and times."""

    def __init__(
        self, policy: OutboundPolicy, *, limits: BodyLimits, timeout: float, witness: Witness | None
    ) -> None:
        self._inner = httpx2.AsyncHTTPTransport(verify=shared_ssl_context(), trust_env=False)
        # httpx2 has no public parameter for it; tests/upstream/test_guard.py fails if this stops
        # being the door.
        self._inner._pool._network_backend = GuardedBackend(policy)
        self._limits, self._timeout, self._witness = limits, timeout, witness

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # Redirects take over the extensions of the request before them: together they have one
        # time.
        now = asyncio.get_running_loop().time()
        deadline: float = request.extensions.setdefault("portal_deadline", now + self._timeout)
        try:
            check_url(request.url)
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
                f"sent more than the portal takes: the limit is {MAX_HEADERS} headers. It has to"
                " send fewer."
            )
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _refuse_foreign_redirect(request: httpx2.Request, response: httpx2.Response) -> None:
    """Headers, body and allowance belong to one origin: nothing of them goes to another (RFC 9110,
    15.4)."""
    if response.status_code not in _REDIRECTS or "location" not in response.headers:
        return
    here = request.url
    try:
        there = here.join(response.headers["location"])
    except (httpx2.InvalidURL, ValueError):
        there = None
    same = there is not None and (there.scheme, there.host, there.port) == (
        here.scheme,
        here.host,
        here.port,
    )
    if there is None or not same or there.userinfo:
        await response.aclose()
        raise RedirectRefused("a redirect to another origin")
    if response.status_code not in _KEEPS_METHOD and request.method not in ("GET", "HEAD"):
        await response.aclose()
        raise RedirectRefused("a redirect that changes the method")


@cache
def shared_ssl_context() -> ssl.SSLContext:
    """The one TLS context of the process: making one takes 40 ms.

    It trusts the system's authorities, or those that the operator names in SSL_CERT_FILE or
    SSL_CERT_DIR.
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
    """A new client that reaches only what `policy` allows; close it (`async with`) after one piece
    of work.

    `timeout` (seconds) is for a whole exchange, from the request over its redirects to the last
    byte of the answer; connecting gets at most 5 s of it. `max_bytes` limits each response body, as
    it is received and as it is unpacked, and `max_values` the JSON values in it, for callers that
    leave parsing to a library. Answers are asked for in gzip or as they are, and what comes in
    another encoding is refused. Redirects are followed within the origin, at most 3, each judged
    anew; any other raises RedirectRefused, followed or not. `auth` signs what is sent. Raises
    InvalidHeader. Requests raise httpx2.ConnectError with Blocked or NameNotFound as a cause (ask
    `causes_of`), BadAddress, ResponseTooLarge, BadEncoding, Unfinished and httpx2's own faults.
    Proxy variables and netrc of the environment are not read, cookies not kept beyond the client.
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
    # Last wins, whatever the case: two User-Agent headers would be a malformed request.
    return {
        name.lower().encode("ascii"): value.encode("latin-1") for name, value in headers.items()
    }


def causes_of(fault: BaseException) -> list[BaseException]:
    """`fault`, what it was raised from, and the members of groups on the way; the outermost
    first."""
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
