"""The gateway as an ASGI application: routing, the first checks, logging and responses.

It uses no framework: request and response objects would cost more CPU time than everything else,
and could buffer streams.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from sqlalchemy.exc import SQLAlchemyError

from portal.domain import addresses, cross_origin
from portal.domain.errors import (
    Forbidden,
    InvalidRequest,
    PortalError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from portal.domain.gateway_addresses import Names, read_path
from portal.gateway import errors, probes
from portal.gateway.calls import CallLog, Recording
from portal.gateway.draining import SECONDS_FOR_CALLS, Forwarding, UnderWay
from portal.gateway.errors import Reply
from portal.gateway.identity import Found, Reception
from portal.gateway.messages import LISTENS, BadMessage, Message, read_message
from portal.gateway.probes import Probes
from portal.gateway.relay import EVENTS, Exchange, Upstreams
from portal.gateway.requests import Asked, read_request
from portal.gateway.sessions import Sessions
from portal.settings import Settings
from portal.telemetry import logs, metrics

log = logging.getLogger("portal.gateway")
access = logging.getLogger("portal.access")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MOST_BODY_BYTES = 4 * 1024 * 1024
_METHODS = ("GET", "POST", "DELETE")
_TEMPLATES = {
    Names.SERVER: "/<prefix>/mcp",
    Names.TOOLSET: "/toolset/<name>/mcp",
    Names.ALL: "/mcp",
}
_ALWAYS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_NO_DATABASE = "The portal’s database is not available. Try again in a few seconds."


@dataclass
class _Seen:
    """The facts about a request for the log."""

    id: str
    began: float
    method: str
    template: str = "unknown"
    status: int = 0
    sent: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


class Gateway:
    """The application of one process."""

    def __init__(
        self,
        settings: Settings,
        reception: Reception,
        upstreams: Upstreams,
        sessions: Sessions,
        calls: CallLog,
        probes: Probes,
    ) -> None:
        self._public_url = settings.public_url
        self._own = (settings.public_url, settings.gateway_url or settings.public_url)
        self._listed = frozenset(settings.gateway_origins)
        self._origins = self._listed.union(_origin(url) for url in self._own)
        self._reception, self._upstreams, self._sessions = reception, upstreams, sessions
        self._calls = calls
        self._probes, self._under_way = probes, UnderWay()

    def stop(self, *, seconds: float = SECONDS_FOR_CALLS) -> None:
        """Prepare the end of the process: streams end now, and calls within `seconds`."""
        self._probes.is_stopping = True
        self._under_way.stop(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._observe(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            self._calls.begin()
            await send({"type": f"{message['type']}.complete"})
        await self._upstreams.relay.aclose()
        await self._calls.aclose()
        self._reception.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _observe(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = _Seen(secrets.token_hex(6), time.perf_counter(), scope["method"])
        logs.begin_request(seen.id)
        way_back = _WayBack(send, seen)
        try:
            reply = await self._reply(scope, receive, way_back)
            if reply is not None:
                seen.facts["outcome"] = reply.outcome
                await way_back.reply(reply)
        except Unavailable as error:  # the call could not be logged
            if seen.status:
                raise
            await way_back.reply(errors.refusal(error))
        except _Incomplete:
            pass  # the server closes the connection, so the client sees an incomplete response
        except Exception as error:
            at = " < ".join(logs.code_places(error))
            log.error("unexpected %s in request %s at %s", type(error).__name__, seen.id, at)
            if seen.status:
                raise
            await way_back.reply(errors.unexpected(seen.id))
        finally:
            way_back.stop()
            _tell(seen)
            logs.end_request()

    async def _reply(self, scope: Scope, receive: Receive, way_back: "_WayBack") -> Reply | None:
        """Return the reply, or None if the response was streamed or the client disconnected."""
        path = _path(scope)
        if path in probes.PATHS:
            way_back.seen.template = path
            return await self._probes.reply(scope["method"], path)
        address = read_path(path)
        if address is None:
            return Reply(404)
        way_back.seen.template = _TEMPLATES[address.names]
        asked = None
        try:
            asked = read_request(scope, address)
            self._check(asked)
            origin = asked.headers.get("origin", "")
            if origin in self._listed:
                if asked.is_preflight:
                    return _preflight(asked, origin)
                way_back.cors = cross_origin.answer_headers(origin)
            if asked.wants_page:
                return Reply(302, headers={"location": self._page_of(asked)})
            if asked.method not in _METHODS:
                return errors.no_such_method(", ".join(_METHODS))
            found = await self._reception.open(asked)
            way_back.seen.facts |= _who(found)
            body = await _body(receive, asked.headers) if asked.method == "POST" else None
        except Unauthenticated:
            assert asked is not None
            return errors.sign_in(self._public_url, address, is_wrong=bool(asked.credential))
        except PortalError as error:
            return errors.refusal(error)
        except SQLAlchemyError as error:
            log.warning("the database did not answer (%s)", type(error).__name__)
            return errors.refusal(Unavailable(_NO_DATABASE))
        except _Gone:
            return None
        exchange = Exchange(asked, found, self._reception, self._upstreams, self._sessions)
        way_back.recording = Recording(self._calls, found, exchange, len(body or b""))
        try:
            return await self._forward(receive, exchange, body, way_back)
        except _Stopped:
            return await _end_early(asked, body, way_back)
        finally:
            way_back.seen.facts |= exchange.facts

    async def _forward(
        self, receive: Receive, exchange: Exchange, body: bytes | None, way_back: "_WayBack"
    ) -> Reply | None:
        """Return the reply of `exchange`; cancel it if the client disconnects.

        Raises `_Stopped` if the process stops meanwhile.
        """

        def stays_open() -> bool:
            return body is None or exchange.facts.get("rpc") == LISTENS

        work = asyncio.ensure_future(exchange.run(body, way_back))
        going = asyncio.ensure_future(_gone(receive))
        forwarding = Forwarding(work, stays_open)
        self._under_way.add(forwarding)
        try:
            await asyncio.wait({work, going}, return_when=asyncio.FIRST_COMPLETED)
            if forwarding.is_ended:
                raise _Stopped
            if work.done():
                return work.result()
            way_back.seen.facts["outcome"] = "cancelled"
            return None
        finally:
            self._under_way.remove(forwarding)
            going.cancel()
            if not work.done():
                work.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await work

    def _check(self, asked: Asked) -> None:
        host = asked.headers.get("host", "")
        if not any(addresses.is_our_host(host, url) for url in self._own):
            raise InvalidRequest(
                "The Host header does not match PORTAL_PUBLIC_URL or PORTAL_GATEWAY_URL."
            )
        origin = asked.headers.get("origin")
        if origin is not None and origin not in self._origins:
            raise Forbidden("Pages of this origin cannot use the gateway.")

    def _page_of(self, asked: Asked) -> str:
        """Return the URL of the Connect page, whether or not the server exists."""
        if asked.address.names is not Names.SERVER:
            return f"{self._public_url}/"
        return f"{self._public_url}/servers/{quote(asked.address.name, safe='')}/connect"


def _preflight(asked: Asked, origin: str) -> Reply:
    requested = asked.headers.get("access-control-request-headers", "")
    headers = cross_origin.preflight_headers(origin, _METHODS, requested)
    return Reply(HTTPStatus.NO_CONTENT, headers=headers, outcome="ok")


class _WayBack:
    """Sends the response, with the headers that all responses have."""

    def __init__(self, send: Send, seen: _Seen) -> None:
        self._send = send
        self.seen = seen
        self.recording: Recording | None = None
        self.cors: Mapping[str, str] = {}
        self.is_events = False
        self._tail = _EVENT_ENDS[0]

    async def reply(self, reply: Reply) -> None:
        """Send a complete response."""
        if self.recording is not None:
            await self.recording.settle(reply.outcome, len(reply.body))
        headers = dict(reply.headers)
        if reply.body:
            headers.setdefault("content-type", "application/json")
        if reply.status != HTTPStatus.NO_CONTENT:
            headers["content-length"] = str(len(reply.body))
        await self.begin(reply.status, headers)
        await self.send(reply.body, more=False)

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of the response."""
        self.seen.status = status
        self.is_events = headers.get("content-type") == EVENTS
        told = {**headers, **_ALWAYS, **self.cors, "x-request-id": self.seen.id}
        if self.recording is not None:
            self.recording.begin(told.get("content-type", ""))
            if self.recording.waits:
                told.pop("content-length", None)  # the client would not wait for the end
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send(self, piece: bytes, *, more: bool = True) -> None:
        """Send a piece of the body; without `more`, it is the last one."""
        self.seen.sent += len(piece)
        self._tail = (self._tail + piece[-4:])[-4:]
        if self.recording is not None and piece:
            self.recording.feed(piece)
            if self.recording.waits and self.recording.is_answered:
                await self.recording.settle("ok", self.seen.sent)
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    @property
    def is_between_events(self) -> bool:
        """Return whether the last event of the stream is complete, or there was none."""
        return self._tail.endswith(_EVENT_ENDS)

    async def end(self) -> None:
        """End the response."""
        if self.recording is not None:
            await self.recording.settle("ok", self.seen.sent)
        await self.send(b"", more=False)

    async def break_off(self, message: Message | None, reply: Reply) -> None:
        """End a response that has begun with `reply` to `message` instead of the rest.

        A stream of events gets it as an event, between two events, and ends. Raises `_Incomplete`
        for other responses.
        """
        self.seen.facts["outcome"] = reply.outcome
        if self.recording is not None:
            self.recording.end(reply.outcome, self.seen.sent)
        if not self.is_events:
            raise _Incomplete
        if message is not None and message.id_text is not None and self.is_between_events:
            await self.send(b"event: message\ndata: " + reply.body + b"\n\n")
        await self.end()

    def stop(self) -> None:
        """Log a request without a complete response."""
        if self.recording is not None:
            is_gone = self.seen.facts.get("outcome") == "cancelled"
            self.recording.end("cancelled" if is_gone else "upstream_failed", self.seen.sent)


class _Gone(Exception):
    """The client disconnected before its request was complete."""


class _Incomplete(Exception):
    """A response that has begun cannot be completed."""


class _Stopped(Exception):
    """The process stops, and the request cannot continue."""


async def _end_early(asked: Asked, body: bytes | None, way_back: _WayBack) -> Reply | None:
    """End a request because the process stops; return the reply if nothing was sent."""
    message = _message_in(asked, body)
    reply = errors.stopped(message)
    if not way_back.seen.status:
        return reply
    await way_back.break_off(message, reply)
    return None


def _message_in(asked: Asked, body: bytes | None) -> Message | None:
    try:
        return None if body is None else read_message(body, asked.headers)
    except BadMessage:
        return None


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive, headers: Mapping[str, str]) -> bytes:
    """Return the body of a message. Raises `TooLarge` and `UnsupportedMediaType`."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType("Send the message as application/json.")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("Compressed bodies are not supported.")
    pieces = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        pieces += message.get("body", b"")
        if len(pieces) > MOST_BODY_BYTES:
            raise TooLarge("A message must not exceed 4 MiB.")
        if not message.get("more_body", False):
            return bytes(pieces)


def _path(scope: Scope) -> str:
    """Return the path as it was sent, without decoding."""
    raw = scope.get("raw_path")
    return raw.partition(b"?")[0].decode("latin-1") if raw else quote(scope["path"])


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _who(found: Found) -> dict[str, Any]:
    principal = found.principal
    told = {
        "principal": "key" if principal.key_id else "person",
        "user_id": principal.user_id,
        "key_id": principal.key_id,
        "server_id": found.route.server_id,
        "address": principal.address,
    }
    return {name: value for name, value in told.items() if value is not None}


def _tell(seen: _Seen) -> None:
    """Log the request and count it, without its contents."""
    seconds = time.perf_counter() - seen.began
    method = seen.method if seen.method in (*_METHODS, "OPTIONS", "HEAD") else "OTHER"
    metrics.count("portal_http_requests_total", method, seen.template, f"{seen.status // 100}xx")
    metrics.observe("portal_http_request_seconds", seconds, seen.template)
    told = {
        "method": method,
        "route": seen.template,
        "status": seen.status,
        "ms": round(seconds * 1000, 1),
        "bytes": seen.sent,
        "principal": "nobody",
        **seen.facts,
    }
    is_quiet = seen.template in probes.PATHS and seen.status < HTTPStatus.INTERNAL_SERVER_ERROR
    access.log(logging.DEBUG if is_quiet else logging.INFO, "request", extra=told)
