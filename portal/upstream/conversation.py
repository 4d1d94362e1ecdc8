"""A session with one MCP server, for all transports and protocol versions.

The official SDK implements the protocol: `server/discover` of 2026-07-28 first, then `initialize`
of older revisions, and DELETE at the end of the session. It hides the cause of failures, so a
witness observes the HTTP requests, ends a session that has failed, and records the cause.
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

CLOSING_GRACE = 1.0  # seconds to end a session after its work is done
_SPOKEN = "a valid MCP response"

# The SDK logs URLs with path and query, and data of the upstream.
logging.getLogger("mcp").setLevel(logging.CRITICAL)


class WireWitness:
    """Observer of the HTTP requests of a session, which stops it when it has failed."""

    def __init__(self, target: Target, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._sse = target.transport == "sse"
        self.scope = anyio.CancelScope()
        self.answer: Answer | None = None
        self.fault: Fault | None = None

    def _aside(self, request: httpx2.Request) -> bool:
        # In Streamable HTTP, servers need not support a GET stream and DELETE of a session.
        return request.method == "DELETE" or (request.method == "GET" and not self._sse)

    def answered(self, request: httpx2.Request, response: httpx2.Response) -> None:
        if self._aside(request):
            return
        self.answer = answer = Answer.of(response)
        no_stream = (
            self._sse and request.method == "GET" and answer.media_type != "text/event-stream"
        )
        # Otherwise a 4xx may only mean that the server does not know the newest protocol version,
        # and the SDK tries the older one.
        if answer.status == 401 or (self._sse and answer.status >= 400) or no_stream:
            self._stop(
                fault_of_answer(
                    self._target, answer, "an MCP event stream" if self._sse else _SPOKEN
                )
            )

    async def watch_endpoint(self, response: httpx2.Response) -> None:
        """Stop the session if an SSE stream names an endpoint at another origin."""
        said = (
            f"{self._target.label} requires messages at a different origin, which is not allowed."
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
    """Factory of sessions within the operator's rules."""

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
        """Initialize a session, run `work` and close it, within `timeout` seconds.

        Raises only `Fault` for all errors of an upstream.
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
                cache=None,  # a session does not repeat requests
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
                raise Fault(
                    HealthReason.DISABLED, "The transport stdio is disabled on this portal."
                )
            return stdio_streams(checked_command(target, self._stdio_commands, self._sandbox))
        auth = AwsAuth(target.signing) if target.signing else None
        opened = partial(
            guarded_client,
            self._policy,
            headers=target.headers,
            timeout=timeout,
            max_values=MAX_VALUES,  # since the SDK parses responses at once
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
    """Return the known exceptions of the SDK and the network. A group wraps those of SDK tasks."""
    from mcp import MCPError

    return (
        Fault,
        UpstreamFailure,
        InvalidHeader,
        MCPError,
        ExceptionGroup,
        httpx2.HTTPError,
        httpx2.InvalidURL,
        ValueError,  # from pydantic, JSON and invalid URLs
        RuntimeError,  # the SDK's error for an unsupported protocol version
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
    """Return the fault of an upstream that did not follow the protocol."""
    from mcp import MCPError
    from mcp_types import CONNECTION_CLOSED, PARSE_ERROR

    name = target.label
    error = next((cause for cause in causes if isinstance(cause, MCPError)), None)
    code = error.code if error else 0
    if code == CONNECTION_CLOSED and target.transport == "stdio":
        return Fault(HealthReason.NOT_MCP, f"The command {name} exited before it responded.")
    if _is_version_dispute(causes):
        return Fault(HealthReason.NOT_MCP, f"{name} does not support an MCP version of the portal.")
    if error and code not in (CONNECTION_CLOSED, PARSE_ERROR):
        return Fault(HealthReason.NOT_MCP, f"{name} returned an MCP error ({code}).")
    answer = f" ({witness.answer})" if witness.answer else ""
    return Fault(HealthReason.NOT_MCP, f"{name} did not return {_SPOKEN}{answer}.")


def _is_version_dispute(causes: list[BaseException]) -> bool:
    from mcp import MCPError
    from mcp_types import UNSUPPORTED_PROTOCOL_VERSION

    # The SDK raises a plain RuntimeError for an unknown version in an `initialize` result.
    return any(
        type(cause) is RuntimeError
        or (isinstance(cause, MCPError) and cause.code == UNSUPPORTED_PROTOCOL_VERSION)
        for cause in causes
    )


def cleaned(value: Any) -> Any:
    """Return an upstream's JSON for storing and forwarding.

    NUL becomes U+FFFD, since PostgreSQL does not support it. Raises `ValueError` for NaN and
    infinities, which are not JSON.
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
