"""One conversation with one MCP server, whatever its transport and protocol generation.

The official SDK speaks (`server/discover` of 2026-07-28 first, the `initialize` handshake of older
revisions where that is not known, and DELETE of the session it opened). It hides why a conversation
failed, so a witness listens on the wire: it ends the conversation when nothing more can come of it,
and names the cause.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import httpx2

from portal.domain.errors import UpstreamFailure
from portal.domain.upstream import HealthReason, OutboundPolicy, Target
from portal.resources import portal_version
from portal.upstream.bodies import MAX_MESSAGE_BYTES
from portal.upstream.checks import InvalidHeader, checked_url
from portal.upstream.faults import Answer, Fault, fault_of_answer, fault_of_network, timed_out
from portal.upstream.guard import causes_of, guarded_client
from portal.upstream.json_text import MAX_VALUES
from portal.upstream.sandbox import Sandbox
from portal.upstream.sigv4 import AwsAuth
from portal.upstream.sse_endpoint import EndpointWatch
from portal.upstream.stdio import checked_command, stdio_streams

if TYPE_CHECKING:
    from mcp import Client

T = TypeVar("T")
Work = Callable[["Client", "WireWitness"], Awaitable[T]]

CLOSING_GRACE = 1.0  # seconds for ending a session whose work is done
_SPOKEN = "MCP"

# The SDK logs addresses with their path and query, and what an upstream sent.
logging.getLogger("mcp").setLevel(logging.CRITICAL)


class WireWitness:
    """Sees each request of a conversation and stops it when there is nothing left to wait for."""

    def __init__(self, target: Target, timeout: float) -> None:
        self._target, self._timeout = target, timeout
        self._sse = target.transport == "sse"
        self.scope = anyio.CancelScope()
        self.answer: Answer | None = None
        self.fault: Fault | None = None

    def _aside(self, request: httpx2.Request) -> bool:
        # Streamable HTTP may offer a GET stream and may end a session by DELETE; it need not answer
        # either.
        return request.method == "DELETE" or (request.method == "GET" and not self._sse)

    def answered(self, request: httpx2.Request, response: httpx2.Response) -> None:
        if self._aside(request):
            return
        self.answer = answer = Answer.of(response)
        no_stream = (
            self._sse and request.method == "GET" and answer.media_type != "text/event-stream"
        )
        # Elsewhere a 4xx may only mean that the newest handshake is unknown, and the older one is
        # tried next.
        if answer.status == 401 or (self._sse and answer.status >= 400) or no_stream:
            self._stop(
                fault_of_answer(self._target, answer, "MCP over SSE" if self._sse else _SPOKEN)
            )

    async def watch_endpoint(self, response: httpx2.Response) -> None:
        """End the conversation where an SSE stream wants messages sent to another origin than its
        own."""
        said = (
            f"{self._target.label} wants its messages sent to another origin than its own, which is"
            " not done."
        )
        if response.request.method == "GET" and response.status_code < 300:
            response.stream = EndpointWatch(
                response, lambda: self._stop(Fault(HealthReason.NOT_MCP, said))
            )

    def failed(self, request: httpx2.Request, fault: Exception) -> None:
        if not self._aside(request):
            self._stop(fault_of_network(self._target, fault, _port(request.url), self._timeout))

    def _stop(self, fault: Fault) -> None:
        self.fault = self.fault or fault
        self.scope.cancel()


def _port(url: httpx2.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


class Conversations:
    """Opens conversations as the operator's rules allow."""

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        stdio_enabled: bool,
        stdio_commands: frozenset[str],
        sandbox: Sandbox,
    ) -> None:
        self._policy = policy
        self._stdio_enabled = stdio_enabled
        self._stdio_commands = stdio_commands
        self._sandbox = sandbox

    async def hold(self, target: Target, work: Work[T], timeout: float) -> T:
        """Connect, shake hands, do `work` and take leave, all within `timeout` seconds.

        Raises Fault, and nothing else, for whatever an upstream does or fails to do.
        """
        from mcp import Client
        from mcp_types import Implementation

        witness = WireWitness(target, timeout)
        done: list[T] = []
        try:
            if target.transport == "stdio" and self._stdio_enabled:
                refusal = await asyncio.to_thread(self._sandbox.refusal)
                if refusal:
                    raise Fault(HealthReason.DISABLED, refusal)
            transport = self._transport(target, witness, timeout)
            client = Client(
                transport,
                cache=None,  # one conversation asks nothing twice
                client_info=Implementation(name="mcp-portal", version=portal_version()),
            )
            with anyio.move_on_after(timeout) as clock, witness.scope:
                async with client:
                    done.append(await work(client, witness))
                    clock.deadline = min(clock.deadline, anyio.current_time() + CLOSING_GRACE)
        except _surprises() as surprise:
            if not done:
                raise _judge(target, witness, surprise, timeout) from None
        if done:
            return done[0]
        raise witness.fault or timed_out(target, timeout)

    def _transport(
        self, target: Target, witness: WireWitness, timeout: float
    ) -> AbstractAsyncContextManager[tuple[Any, Any]]:
        if target.transport == "stdio":
            if not self._stdio_enabled:
                raise Fault(HealthReason.DISABLED, "stdio servers are switched off on this portal.")
            return stdio_streams(checked_command(target, self._stdio_commands, self._sandbox))
        auth = AwsAuth(target.signing) if target.signing else None
        opened = partial(
            guarded_client,
            self._policy,
            headers=target.headers,
            timeout=timeout,
            max_values=MAX_VALUES,  # the SDK parses what it gets, at once
            witness=witness,
            auth=auth,
        )
        if target.transport == "sse":
            from mcp.client.sse import sse_client

            def opened_for_sse(
                headers: object = None, timeout: object = None, auth: object = None
            ) -> httpx2.AsyncClient:
                client = opened()
                client.event_hooks = {"request": [], "response": [witness.watch_endpoint]}
                return client

            return sse_client(str(checked_url(target.url)), httpx_client_factory=opened_for_sse)
        return _streamable(str(checked_url(target.url)), opened)


@contextlib.asynccontextmanager
async def _streamable(
    url: str, opened: Callable[[], httpx2.AsyncClient]
) -> AsyncIterator[tuple[Any, Any]]:
    from mcp.client.streamable_http import streamable_http_client

    async with (
        opened() as http,
        streamable_http_client(
            url, http_client=http, max_sse_event_size=MAX_MESSAGE_BYTES
        ) as streams,
    ):
        yield streams


def _surprises() -> tuple[type[Exception], ...]:
    """All that the SDK and the network are known to raise. A group wraps whatever a task of the SDK
    ended with."""
    from mcp import MCPError

    return (
        Fault,
        UpstreamFailure,
        InvalidHeader,
        MCPError,
        ExceptionGroup,
        httpx2.HTTPError,
        httpx2.InvalidURL,
        ValueError,  # of pydantic, JSON, and of addresses that the URL parser refuses
        RuntimeError,  # the SDK's word for a protocol version that it does not speak
        OSError,
        anyio.BrokenResourceError,
        anyio.ClosedResourceError,
        anyio.EndOfStream,
    )


def _judge(target: Target, witness: WireWitness, surprise: BaseException, timeout: float) -> Fault:
    causes = causes_of(surprise)
    for cause in causes:
        if isinstance(cause, Fault):
            return cause
        if isinstance(cause, UpstreamFailure):
            return Fault(HealthReason(cause.reason), cause.message)
        if isinstance(cause, InvalidHeader):
            return Fault(HealthReason.BLOCKED, str(cause))
    if witness.fault:
        return witness.fault
    if witness.answer and not witness.answer.speaks_mcp and not _is_version_dispute(causes):
        return fault_of_answer(target, witness.answer, _SPOKEN)
    if network := next(
        (c for c in causes if isinstance(c, httpx2.HTTPError | httpx2.InvalidURL)), None
    ):
        return fault_of_network(target, network, None, timeout)
    if target.transport == "stdio" and any(isinstance(cause, OSError) for cause in causes):
        return Fault(HealthReason.REFUSED, f"The command {target.label} could not be started.")
    return _fault_of_speech(target, witness, causes)


def _fault_of_speech(target: Target, witness: WireWitness, causes: list[BaseException]) -> Fault:
    """The upstream spoke, but did not follow the protocol."""
    from mcp import MCPError
    from mcp_types import CONNECTION_CLOSED, PARSE_ERROR

    name = target.label
    error = next((cause for cause in causes if isinstance(cause, MCPError)), None)
    code = error.code if error else 0
    if code == CONNECTION_CLOSED and target.transport == "stdio":
        return Fault(HealthReason.NOT_MCP, f"The command {name} ended before it answered.")
    if _is_version_dispute(causes):
        return Fault(
            HealthReason.NOT_MCP, f"{name} speaks no version of MCP that the portal knows."
        )
    if error and code not in (CONNECTION_CLOSED, PARSE_ERROR):
        return Fault(HealthReason.NOT_MCP, f"{name} refused the request (MCP error {code}).")
    answer = f" ({witness.answer})" if witness.answer else ""
    return Fault(HealthReason.NOT_MCP, f"{name} answered, but not with MCP{answer}.")


def _is_version_dispute(causes: list[BaseException]) -> bool:
    from mcp import MCPError
    from mcp_types import UNSUPPORTED_PROTOCOL_VERSION

    # The SDK raises a bare RuntimeError for a version in an `initialize` result that it does not
    # know.
    return any(
        type(cause) is RuntimeError
        or (isinstance(cause, MCPError) and cause.code == UNSUPPORTED_PROTOCOL_VERSION)
        for cause in causes
    )


def cleaned(value: Any) -> Any:
    """An upstream's JSON as it may be stored and sent on. Raises ValueError for NaN and infinities,
    which are no JSON.

    NUL, which no PostgreSQL text can hold, becomes U+FFFD.
    """
    text = json.dumps(value, allow_nan=False)
    return _without_nul(value) if "\\u0000" in text else value


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value
