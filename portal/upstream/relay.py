"""Forward requests of MCP clients to an upstream, and stream its response without decoding it.

This uses aiohttp, which needs a quarter of the CPU time of httpx2, with its own address guard.
All addresses of a name are checked when it is resolved, and each address again when its socket is
created: aiohttp does not ask the resolver about a host that is an IP address.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from portal.domain.upstream import HealthReason, OutboundPolicy, Target
from portal.telemetry import metrics
from portal.upstream.bodies import MAX_HEAD_BYTES, in_words
from portal.upstream.checks import BadAddress, InvalidHeader, checked_headers, checked_url
from portal.upstream.faults import Fault, timed_out
from portal.upstream.guard import CONNECT_TIMEOUT, MAX_ADDRESSES, MAX_REDIRECTS, shared_ssl_context

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD = frozenset({307, 308})
_NOT_OURS = frozenset({"Accept", "Accept-Encoding", "Content-Type", "User-Agent"})
_OWN_HEADERS = {"user-agent": "mcp-portal", "accept-encoding": "identity"}


class AddressRefused(OSError):
    """The outbound policy does not allow an address."""


class NameUnknown(OSError):
    """The name has no address."""


@dataclass(frozen=True)
class Head:
    """The status and headers of an upstream's response; headers by lower-case name."""

    status: int
    headers: Mapping[str, str]

    @property
    def media_type(self) -> str:
        """Return the content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass
class Answer:
    """An upstream's response: its head, and its body as a stream."""

    head: Head
    _target: Target
    _response: aiohttp.ClientResponse = field(repr=False)

    async def chunks(self, seconds: float | None) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, with at most `seconds` between two pieces.

        Raises `Fault` if the connection breaks.
        """
        content = self._response.content
        try:
            while True:
                async with asyncio.timeout(seconds):
                    piece = await content.readany()
                if not piece:
                    return
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise fault_of(self._target, error, seconds or 0.0) from None

    async def read(self, most: int, seconds: float) -> bytes:
        """Return the whole body. Raises `Fault` if it is incomplete, late, or longer than `most`
        bytes."""
        pieces = bytearray()
        async for piece in self.chunks(seconds):
            pieces += piece
            if len(pieces) > most:
                said = (
                    f"{self._target.label} sent a response larger than the limit of the portal,"
                    f" {in_words(most)}."
                )
                raise Fault(HealthReason.NOT_MCP, said)
        return bytes(pieces)


class Relay:
    """The connections of this process to upstreams. Use it in one event loop only."""

    def __init__(self, policy: OutboundPolicy) -> None:
        self._policy = policy
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def asking(
        self, target: Target, method: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[Answer]:
        """Send one request to `target` and yield the response after its head has arrived.

        The target's own headers override `headers`. The head must arrive within the target's
        time-out. Redirects are followed only within the origin, and only if they keep the method.
        Leaving the context ends the exchange. Raises `Fault`.
        """
        try:
            sent = {**_lower(headers), **_OWN_HEADERS, **_lower(checked_headers(target.headers))}
            url = URL(str(checked_url(target.url)), encoded=True)
        except (InvalidHeader, BadAddress) as error:
            raise _refused(target, error) from None
        try:
            async with asyncio.timeout(target.timeout):
                response = await self._sent(target, method, url, sent, body)
        except (aiohttp.ClientError, OSError) as error:
            raise fault_of(target, error, target.timeout) from None
        try:
            yield Answer(_head(target, response), target, response)
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _sent(
        self, target: Target, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._opened().request(
                method, url, headers=headers, data=body, allow_redirects=False
            )
            if response.status not in _REDIRECTS or "location" not in response.headers:
                return response
            response.close()
            there = _joined(url, response.headers["location"])
            if there is None or there.origin() != url.origin():
                said = (
                    f"{target.label} redirects to another origin, which the portal does not follow."
                )
                raise Fault(HealthReason.HTTP_STATUS, said)
            if response.status not in _KEEPS_METHOD and method != "GET":
                said = f"{target.label} sends a redirect that drops the request body."
                raise Fault(HealthReason.HTTP_STATUS, said)
            url = there
        raise Fault(HealthReason.HTTP_STATUS, f"{target.label} redirects too often.")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_Resolver(self._policy),
                socket_factory=_guarded_sockets(self._policy),
                use_dns_cache=False,
                limit=0,
                ssl=shared_ssl_context(),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_NOT_OURS,
                auto_decompress=False,
                trust_env=False,
                max_line_size=MAX_HEAD_BYTES,
                max_field_size=MAX_HEAD_BYTES,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            )
        return self._session


class _Resolver(AbstractResolver):
    """Resolve a name only if all its addresses are allowed."""

    def __init__(self, policy: OutboundPolicy) -> None:
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM, family=family
                )
        except TimeoutError:
            raise
        except (OSError, UnicodeError) as error:
            raise NameUnknown(f"{host} was not found") from error
        for info in found:
            _judge(self._policy, str(info[4][0]))
        addresses = dict.fromkeys((str(info[4][0]), int(info[4][1]), info[0]) for info in found)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=to_port,
                family=of_family,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address, to_port, of_family in list(addresses)[:MAX_ADDRESSES]
        ]

    async def close(self) -> None:
        """Do nothing: the resolver has no resources."""


def _guarded_sockets(policy: OutboundPolicy) -> Any:
    def made(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        _judge(policy, str(address[0]))
        return socket.socket(family, kind, protocol)

    return made


def _judge(policy: OutboundPolicy, address: str) -> None:
    if not policy.allows(address):
        metrics.security("address_blocked")
        raise AddressRefused("an address that is not allowed")


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _joined(here: URL, location: str) -> URL | None:
    try:
        there = here.join(URL(location, encoded=True))
        return there if there.user is None and there.password is None and there.host else None
    except ValueError:
        return None


def _head(target: Target, response: aiohttp.ClientResponse) -> Head:
    headers = _lower(response.headers)
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        said = (
            f"{target.label} sent a response with a Content-Encoding that the portal did not"
            " accept. It must respond without Content-Encoding."
        )
        raise Fault(HealthReason.NOT_MCP, said)
    return Head(response.status, headers)


def _refused(target: Target, error: Exception) -> Fault:
    if isinstance(error, InvalidHeader):
        return Fault(HealthReason.BLOCKED, str(error))
    said = f"The address of {target.label} is not a plain http or https address."
    return Fault(HealthReason.BLOCKED, said)


def fault_of(target: Target, error: BaseException, timeout: float) -> Fault:
    """Return the fault for a failed request or an incomplete response."""
    name = target.label
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, AddressRefused):
            said = f"The address of {name} is not allowed by the outbound policy."
            return Fault(HealthReason.BLOCKED, said)
        if isinstance(cause, NameUnknown):
            return Fault(HealthReason.DNS, f"The name {name} was not found.")
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f" ({cause.verify_message})" if cause.verify_message else ""
            return Fault(HealthReason.TLS, f"TLS: the certificate of {name} is not valid{why}.")
        if isinstance(cause, ssl.SSLError | aiohttp.ClientSSLError):
            said = f"TLS: no secure connection to {name} is possible."
            return Fault(HealthReason.TLS, said)
        if isinstance(cause, aiohttp.ConnectionTimeoutError):
            return timed_out(target, min(timeout, CONNECT_TIMEOUT))
        if isinstance(cause, TimeoutError):
            return timed_out(target, timeout)
        if isinstance(cause, ConnectionRefusedError):
            return Fault(HealthReason.REFUSED, f"{name} refused the connection.")
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            return Fault(HealthReason.DNS, f"The name {name} was not found.")
        if isinstance(cause, aiohttp.ClientConnectorError):
            return Fault(HealthReason.REFUSED, f"{name} could not be reached.")
        if isinstance(cause, aiohttp.InvalidURL):
            return _refused(target, cause)
        if isinstance(cause, aiohttp.ClientResponseError):
            return Fault(HealthReason.NOT_MCP, f"{name} did not respond with HTTP.")
    return Fault(HealthReason.REFUSED, f"{name} closed the connection.")


def _causes(error: BaseException) -> list[BaseException]:
    """Return `error` and its causes, the innermost first."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or current in found:
            continue
        found.append(current)
        waiting += [current.__cause__, current.__context__, getattr(current, "os_error", None)]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
    return found[::-1]
