"""Forward requests for pages and the API to the web processes, over a Unix socket.

Only the front has access to the socket, so the web processes trust the client's address that it
adds to each request.
"""

import logging
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

log = logging.getLogger("portal.front")

PEER = "x-portal-peer"
"""The header with the client's address. One from outside is never forwarded."""

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
"""Headers for one connection (RFC 9110, section 7.6.1)."""

_NOT_SENT = _HOP_BY_HOP | {b"expect", PEER.encode()}
_NOT_RETURNED = _HOP_BY_HOP | {b"date", b"server"}
_COMPRESSED = ("text/html", "application/json", "text/csv", "application/x-yaml")
_LEAST_BYTES = 1_000  # smaller bodies fit in one packet anyway
_LEVEL = 5
_GZIP = 31  # zlib's number for its largest window, in a gzip stream
_IDLE = 10  # seconds; less than the web processes keep idle connections
_AT_ONCE = 200

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Pages:
    """An ASGI application that forwards requests to the Unix socket at `socket`."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        except UnicodeDecodeError:
            await _say(send, HTTPStatus.BAD_REQUEST, "The headers are not text in UTF-8.")
        except (aiohttp.ClientError, OSError) as error:
            log.warning("the web processes did not respond (%s)", type(error).__name__)
            said = (
                "The portal could not complete its response. If you sent a change, check whether it"
                " was saved before you try again."
            )
            await _say(send, HTTPStatus.SERVICE_UNAVAILABLE, said)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, headers = scope["method"], scope["headers"]
        sent = [
            (name.decode(), value.decode())
            for name, value in headers
            if name not in _NOT_SENT and b"_" not in name
        ]
        sent.append((PEER, scope["client"][0] if scope.get("client") else ""))
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
        target = scope["raw_path"]
        if scope["query_string"] and b"?" not in target:
            target += b"?" + scope["query_string"]
        body = _Body(receive) if has_body else None
        try:
            response = await self._opened().request(
                method,
                URL(f"http://pages{target.decode('latin-1')}", encoded=True),
                headers=sent,
                data=body,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError):
            if body is not None and body.is_given_up:
                return
            raise
        is_whole = False
        try:
            await _pass_back(response, scope, send)
            is_whole = body is None or body.is_sent
        finally:
            response.release() if is_whole else response.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(
                    self._socket, limit=_AT_ONCE, keepalive_timeout=_IDLE
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session


class _Body(Payload):
    """The body of a request, which is forwarded as it arrives.

    The head is sent at once, so that a body that is too large can be refused before it arrives.
    """

    def __init__(self, receive: Receive) -> None:
        super().__init__(None, content_type="application/octet-stream")
        self._receive = receive
        self.is_sent = False
        self.is_given_up = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse: the body is not kept."""
        raise TypeError("a forwarded body is not kept")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body to `writer`."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Write the body to `writer`; uvicorn has checked its length."""
        writer.send_headers()
        while not self.is_sent:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.is_given_up = True
                raise ConnectionResetError("the client disconnected")
            if message.get("body"):
                await writer.write(message["body"])
            self.is_sent = not message.get("more_body", False)


async def _pass_back(response: aiohttp.ClientResponse, scope: Scope, send: Send) -> None:
    headers = [
        (name.lower(), value)
        for name, value in response.raw_headers
        if name.lower() not in _NOT_RETURNED
    ]
    squeeze = _compressor(response, scope, headers)
    status = response.status
    await send({"type": "http.response.start", "status": status, "headers": headers})
    async for piece in response.content.iter_any():
        out = piece if squeeze is None else squeeze.compress(piece)
        if out:
            await send({"type": "http.response.body", "body": out, "more_body": True})
    rest = b"" if squeeze is None else squeeze.flush()
    await send({"type": "http.response.body", "body": rest, "more_body": False})


def _compressor(response: aiohttp.ClientResponse, scope: Scope, headers: Headers) -> Any:
    """Return a compressor for the body and adapt the headers, or None to send the body as it is.

    Requests without support for gzip get the same `Vary`, for caches.
    """
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _COMPRESSED or "content-encoding" in response.headers:
        return None
    headers.append((b"vary", b"Accept-Encoding"))
    length = response.headers.get("content-length")
    is_small = length is not None and int(length) < _LEAST_BYTES
    has_no_body = scope["method"] == "HEAD" or response.status in (204, 304)
    if is_small or has_no_body or not _takes_gzip(scope):
        return None
    headers[:] = [(name, value) for name, value in headers if name != b"content-length"]
    headers.append((b"content-encoding", b"gzip"))
    return zlib.compressobj(_LEVEL, wbits=_GZIP)


def _takes_gzip(scope: Scope) -> bool:
    """Return whether the request accepts gzip (RFC 9110, section 12.5.3)."""
    for name, value in scope["headers"]:
        if name != b"accept-encoding":
            continue
        for part in value.lower().split(b","):
            coding, _, weight = part.partition(b";")
            if coding.strip() == b"gzip":
                return weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


async def _say(send: Send, status: HTTPStatus, text: str) -> None:
    """Send a plain response, unless another one has begun: uvicorn then closes the connection."""
    body = f"{text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"5"))
    with suppress(RuntimeError):
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
