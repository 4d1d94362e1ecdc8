"""One request to a server's address, from the message to the last byte of the response.

The upstream gets only the headers of the route and those of the protocol. The client gets only the
headers of the protocol, and content types that browsers do not execute.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Protocol

from portal.domain.errors import InsufficientScope, UpstreamFailure, UpstreamTimeout
from portal.domain.upstream import HealthReason, Target
from portal.gateway import errors
from portal.gateway.answers import early_reply, question_of, reply_of
from portal.gateway.errors import Reply
from portal.gateway.identity import Found, Reception
from portal.gateway.lists import MOST_BYTES, ShapedEvents, shaped, shapes_lists
from portal.gateway.messages import (
    KNOWN_METHODS,
    BadMessage,
    Client,
    Message,
    encoded_name,
    read_message,
)
from portal.gateway.requests import Asked
from portal.gateway.sessions import Sessions
from portal.services.gateway.route import OpenRoute
from portal.upstream.answering import Answering, can_forward
from portal.upstream.faults import Answer as HeadOfAnswer
from portal.upstream.faults import Fault, fault_of_answer
from portal.upstream.relay import Answer, Head, Relay

EVENTS = "text/event-stream"
JSON = "application/json"
_PASSED_ON = ("accept", "content-type", "last-event-id", "mcp-method", "mcp-protocol-version")
_PASSED_BACK = ("allow", "mcp-protocol-version", "retry-after")
_PARAMETERS = "mcp-param-"
_SESSION = "mcp-session-id"
_LISTENS = "subscriptions/listen"
# Statuses about the request itself, not about the portal's connection to the server.
_TOLD = frozenset({400, 404, 405, 406, 409, 410, 413, 415, 422, 429})
_OUR_OWN = frozenset({401, 403, 407})
"""Statuses that a client would attribute to the gateway."""


class WayBack(Protocol):
    """Sends a response to the client."""

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of the response."""

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body."""

    async def end(self) -> None:
        """End the response."""

    async def break_off(self, message: Message | None, reply: Reply) -> None:
        """End a response that has begun with `reply` to `message` instead of the rest."""


@dataclass(frozen=True)
class Upstreams:
    """The ways to servers: messages are forwarded, or the gateway responds for them."""

    relay: Relay
    answering: Answering


class Exchange:
    """One request, its upstream and its response."""

    def __init__(
        self,
        asked: Asked,
        found: Found,
        reception: Reception,
        upstreams: Upstreams,
        sessions: Sessions,
    ) -> None:
        self._asked, self._found = asked, found
        self._reception, self._upstreams, self._sessions = reception, upstreams, sessions
        self.facts: dict[str, str] = {}
        self.message: Message | None = None
        self.client: Client | None = None

    @property
    def _route(self) -> OpenRoute:
        return self._found.route

    async def run(self, body: bytes | None, way_back: WayBack) -> Reply | None:
        """Forward the request and stream the response; return a reply if nothing was streamed."""
        try:
            message = self._message(body)
        except BadMessage as error:
            return errors.bad_message(error)
        self.facts["rpc"] = message.method if message.method in KNOWN_METHODS else "other"
        session_id = None if message.is_modern else self._asked.headers.get(_SESSION)
        opened = self._sessions.open(session_id, self._route) if session_id is not None else None
        self.message, self.client = message, opened.client if opened else message.client
        target = self._route.target
        is_forwarded = target is None or can_forward(target)
        early = None if is_forwarded else early_reply(self._asked, message)
        reply = early or self._refusal(message)
        if reply is not None:
            return reply
        if is_forwarded and session_id is not None and opened is None:
            return errors.unknown_session()
        upstream_session = opened.upstream_id if opened is not None else None
        if self._asked.method == "DELETE" and upstream_session is None:
            return errors.no_such_method("GET, POST")
        try:
            if not is_forwarded:
                return await self._answer(message)
            return await self._pass_on(message, upstream_session, way_back)
        except UpstreamFailure as failure:
            return self._failed(message, failure)

    def _message(self, body: bytes | None) -> Message:
        if body is None:
            return Message(b"", "", "", "", None, is_modern=False)
        message = read_message(body, self._asked.headers)
        own = self._route.names.own(message.name) if message.is_call else message.name
        return replace(message, body=message.renamed(own), name=own)

    def _refusal(self, message: Message) -> Reply | None:
        """Return the reply to a message that must not be forwarded, or None."""
        route = self._route
        if message.is_call and not route.limits.allow(message.name):
            return errors.tool_refused(message)
        if route.target is None and self._asked.method != "POST":
            return errors.no_such_method("POST")
        if route.missing is not None and (message.is_call or route.target is None):
            return errors.missing(message, route.missing)
        return self._failed(message, route.failure) if route.failure is not None else None

    def _failed(self, message: Message, failure: UpstreamFailure) -> Reply:
        is_late = isinstance(failure, UpstreamTimeout)
        return errors.failed(message, self._route.told(failure), is_late=is_late)

    async def _pass_on(
        self, message: Message, upstream_session: str | None, way_back: WayBack
    ) -> Reply | None:
        headers = self._upstream_headers(message, upstream_session)
        body = message.body if self._asked.method == "POST" else None
        for is_last in (False, True):
            target = self._target
            async with AsyncExitStack() as stack:
                asking = self._upstreams.relay.asking(target, self._asked.method, headers, body)
                try:
                    answer = await stack.enter_async_context(asking)
                    failure = _refused_sign_in(target, answer.head)
                    if failure is None:
                        return await self._pass_back(message, answer, upstream_session, way_back)
                except Fault as fault:
                    raise fault.as_failure() from None
            reply = await self._sign_in_again(message, failure, is_last=is_last)
            if reply is not None:
                return reply
        raise AssertionError("the second attempt returns a reply")

    async def _answer(self, message: Message) -> Reply:
        """Return the gateway's own reply, for a server to which messages cannot be forwarded."""
        question = question_of(message, self._route)
        for is_last in (False, True):
            try:
                answered = await self._upstreams.answering.answer(
                    self._route.server_id, self._target, question
                )
                return reply_of(message, answered, self._route)
            except UpstreamFailure as failure:
                if failure.reason != HealthReason.SIGN_IN_NEEDED:
                    raise
                reply = await self._sign_in_again(message, failure, is_last=is_last)
            if reply is not None:
                return reply
        raise AssertionError("the second attempt returns a reply")

    def _upstream_headers(self, message: Message, upstream_session: str | None) -> dict[str, str]:
        given = self._asked.headers
        headers = {name: given[name] for name in _PASSED_ON if name in given}
        headers |= {name: value for name, value in given.items() if name.startswith(_PARAMETERS)}
        if "mcp-name" in given:
            headers["mcp-name"] = (
                encoded_name(message.name) if message.is_call else given["mcp-name"]
            )
        if upstream_session is not None:
            headers[_SESSION] = upstream_session
        return headers

    async def _sign_in_again(
        self, message: Message, failure: UpstreamFailure, *, is_last: bool
    ) -> Reply | None:
        """Return the reply if the upstream refused the sign-in, or None to retry once with another
        token."""
        route = self._route
        wants_more = isinstance(failure, InsufficientScope)
        if not route.token or ((is_last or wants_more) and not route.is_personal):
            return self._failed(message, failure)
        if isinstance(failure, InsufficientScope):
            what = await self._reception.note_more_rights(self._found, failure.scopes)
            return errors.missing(message, what)
        if is_last:
            return errors.missing(message, await self._reception.note_refused(self._found))
        self._found = await self._reception.open(self._asked, refused=route.token)
        return self._refusal(message)

    async def _pass_back(
        self, message: Message, answer: Answer, upstream_session: str | None, way_back: WayBack
    ) -> Reply | None:
        head = answer.head
        headers = {name: head.headers[name] for name in _PASSED_BACK if name in head.headers}
        headers |= self._session_header(answer, upstream_session)
        if head.media_type not in (JSON, EVENTS) or head.status in _OUR_OWN:
            return self._without_body(message, head, headers)
        headers["content-type"] = head.media_type
        is_list = message.method == "tools/list" or self._asked.method == "GET"
        is_shaped = is_list and shapes_lists(self._route)
        if is_shaped and head.media_type == JSON:
            body = shaped(await answer.read(MOST_BYTES, self._target.timeout), self._route)
            return Reply(head.status, body, headers, outcome="ok")
        if head.media_type == EVENTS:
            headers["x-accel-buffering"] = "no"
        elif "content-length" in head.headers:
            headers["content-length"] = head.headers["content-length"]
        events = ShapedEvents(self._route) if is_shaped else None
        stays_open = self._asked.method == "GET" or message.method == _LISTENS
        await way_back.begin(head.status, headers)
        try:
            async for piece in answer.chunks(None if stays_open else self._target.timeout):
                await way_back.send(piece if events is None else events.feed(piece))
        except (Fault, UpstreamFailure) as error:
            failure = error.as_failure() if isinstance(error, Fault) else error
            await way_back.break_off(message, self._failed(message, failure))
            return None
        await way_back.end()
        self.facts["outcome"] = "ok"
        return None

    def _without_body(self, message: Message, head: Head, headers: dict[str, str]) -> Reply:
        """Return the reply for a response without an MCP body: its status, if that is enough."""
        is_empty = head.status in (202, 204) or (message.id_text is None and head.status < 300)
        if is_empty or head.status in _TOLD:
            outcome = "ok" if is_empty else "upstream_failed"
            return Reply(head.status, headers=headers, outcome=outcome)
        raise _fault(self._target, head).as_failure()

    def _session_header(self, answer: Answer, upstream_session: str | None) -> dict[str, str]:
        """Return the header with the client's session ID, either the present or a new one."""
        given = answer.head.headers.get(_SESSION)
        if given is None or given == upstream_session:
            sealed = self._asked.headers.get(_SESSION) if given is not None else None
        else:
            sealed = self._sessions.seal(given, self._route, self.client)
        return {_SESSION: sealed} if sealed is not None else {}

    @property
    def _target(self) -> Target:
        target = self._route.target
        assert target is not None
        return target


def _refused_sign_in(target: Target, head: Head) -> UpstreamFailure | None:
    """Return the failure if the upstream refused the credential, else None."""
    if head.status not in (401, 403):
        return None
    failure = _fault(target, head).as_failure()
    return failure if failure.reason == HealthReason.SIGN_IN_NEEDED else None


def _fault(target: Target, head: Head) -> Fault:
    return fault_of_answer(target, HeadOfAnswer.with_headers(head.status, head.headers), "MCP")
