"""The client for MCP servers and OpenAPI services: health checks, tool lists and tool calls."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from portal.domain.errors import UpstreamFailure, UpstreamTimeout
from portal.domain.openapi.document import Document
from portal.domain.upstream import (
    HealthReason,
    HealthStatus,
    OutboundPolicy,
    ProbeResult,
    Target,
    ToolDefinition,
    ToolOutcome,
)
from portal.telemetry.outgoing import outgoing
from portal.upstream import openapi_client, probing
from portal.upstream.conversation import Conversations, Work
from portal.upstream.faults import Fault, timed_out
from portal.upstream.loop import run
from portal.upstream.sandbox import Sandbox
from portal.upstream.stdio import DEFAULT_COMMANDS
from portal.upstream.tools import call, listed

T = TypeVar("T")

PROBE_TIMEOUT = 5.0
# Additional time in seconds to load the SDK once, and to end an unresponsive command.
OVERTIME = 8.0


class UpstreamClient:
    """Client for MCP over Streamable HTTP, SSE and stdio, and for OpenAPI services over HTTP.

    stdio targets need `stdio_enabled` and run in `sandbox`; `stdio_commands` are allowed in
    addition to the defaults. An operation takes at most its target's `timeout` in seconds, a health
    check by default at most 5 s. The client keeps no connections and is thread-safe.
    """

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        stdio_enabled: bool = False,
        stdio_commands: frozenset[str] = frozenset(),
        sandbox: Sandbox | None = None,
    ) -> None:
        self._policy = policy
        self._conversations = Conversations(
            policy,
            stdio_enabled=stdio_enabled,
            stdio_commands=DEFAULT_COMMANDS | stdio_commands,
            sandbox=sandbox or Sandbox(),
        )

    def probe(
        self, target: Target, *, with_tools: bool = False, timeout: float | None = None
    ) -> ProbeResult:
        """Check the health of `target` and, with `with_tools`, list its tools.

        Does not raise errors of the upstream. `timeout` in seconds replaces the default of 5 s, up
        to the target's own timeout.
        """
        limit = _probe_limit(target, timeout)
        try:
            return run(
                self.aprobe(target, with_tools=with_tools, timeout=timeout), limit + OVERTIME
            )
        except UpstreamTimeout:
            return timed_out(target, limit).as_result(int(limit * 1000))

    async def aprobe(
        self, target: Target, *, with_tools: bool = False, timeout: float | None = None
    ) -> ProbeResult:
        """Check the health of `target` as `probe` does, for asynchronous code."""
        limit = _probe_limit(target, timeout)
        if openapi_client.is_described(target):
            return await _timed(
                target, partial(probing.probe_document, self._policy, target, limit, with_tools)
            )
        await _load_sdk()
        return await _timed(
            target, partial(probing.probe_server, self._conversations, target, limit, with_tools)
        )

    def list_tools(self, target: Target) -> tuple[ToolDefinition, ...]:
        """Return the tools of `target`, at most 2,000. Raises `UpstreamFailure`."""
        return run(self.alist_tools(target), target.timeout + OVERTIME)

    async def alist_tools(self, target: Target) -> tuple[ToolDefinition, ...]:
        """Return the tools as `list_tools` does, for asynchronous code."""
        return await _in_our_words(self._listed(target, target.timeout))

    async def _listed(self, target: Target, timeout: float) -> tuple[ToolDefinition, ...]:
        with outgoing("tools", target.label):
            if openapi_client.is_described(target):
                return await openapi_client.listed(self._policy, target, timeout)
            await _load_sdk()
            return await self._conversations.hold(target, listed, timeout)

    async def ahold(self, kind: str, target: Target, work: Work[T]) -> T:
        """Run `work` in a session with `target`, which is no OpenAPI service.

        `kind` is one of `outgoing`. Raises `UpstreamFailure`.
        """
        await _load_sdk()
        with outgoing(kind, target.label):
            return await _in_our_words(self._conversations.hold(target, work, target.timeout))

    def describe(self, spec_url: str, *, timeout: float) -> Document:
        """Return the OpenAPI document at `spec_url`, within `timeout` seconds.

        Raises `UpstreamFailure`.
        """
        target = Target("http", spec_url=spec_url, timeout=timeout)
        with outgoing("document", target.label):
            return run(
                _in_our_words(openapi_client.read(self._policy, target, timeout)),
                timeout + OVERTIME,
            )

    def call_tool(self, target: Target, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        """Call a tool. Raises `UpstreamFailure` (`sign_in_needed` for a 401) or `UpstreamTimeout`.

        A failed or unknown tool is an outcome with `is_error`, not an exception.
        """
        return run(self.acall_tool(target, name, arguments), target.timeout + OVERTIME)

    async def acall_tool(self, target: Target, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        """Call a tool as `call_tool` does, for asynchronous code."""
        if not openapi_client.is_described(target):
            await _load_sdk()
        began = time.monotonic()
        with outgoing("call", target.label):
            if openapi_client.is_described(target):
                wire = await _in_our_words(
                    openapi_client.call(self._policy, target, name, arguments)
                )
            else:
                work = partial(call, name=name, arguments=arguments)
                wire = await _in_our_words(self._conversations.hold(target, work, target.timeout))
        return ToolOutcome(wire, wire.get("isError") is True, _since(began))

    def probe_many(
        self,
        targets: Sequence[Target],
        *,
        deadline: float,
        concurrency: int = 16,
        with_tools: bool = False,
    ) -> list[ProbeResult]:
        """Check the health of many targets, at most `concurrency` at a time, in order.

        All checks end within `deadline` seconds. A check that could not start in time is `unknown`
        (`never_checked`). An unresponsive upstream delays other checks only for its own timeout.
        """

        async def one(target: Target, left: float) -> ProbeResult:
            return await self.aprobe(
                target, with_tools=with_tools, timeout=min(left, _probe_limit(target, None))
            )

        missed = ProbeResult(
            HealthStatus.UNKNOWN, HealthReason.NEVER_CHECKED, "Not checked before the timeout."
        )
        return run(_side_by_side(targets, one, missed, deadline, concurrency), deadline + OVERTIME)

    def list_tools_many(
        self, targets: Sequence[Target], *, deadline: float, concurrency: int = 16
    ) -> list[tuple[ToolDefinition, ...] | UpstreamFailure]:
        """List the tools of many targets as `probe_many` does, with a failure in place of tools."""

        async def one(target: Target, left: float) -> tuple[ToolDefinition, ...] | UpstreamFailure:
            try:
                return await self._listed(target, min(left, target.timeout))
            except Fault as fault:
                return fault.as_failure()

        missed = UpstreamTimeout("The tools were not listed before the timeout.")
        return run(_side_by_side(targets, one, missed, deadline, concurrency), deadline + OVERTIME)


def _probe_limit(target: Target, timeout: float | None) -> float:
    return min(target.timeout, PROBE_TIMEOUT if timeout is None else timeout)


async def _side_by_side(
    targets: Sequence[Target],
    one: Callable[[Target, float], Awaitable[T]],
    missed: T,
    deadline: float,
    concurrency: int,
) -> list[T]:
    await _load_sdk()
    end = time.monotonic() + deadline
    slots = asyncio.Semaphore(max(1, concurrency))

    async def wait_and_ask(target: Target) -> T:
        async with slots:
            left = end - time.monotonic()
            return await one(target, left) if left > 0 else missed

    return list(await asyncio.gather(*(wait_and_ask(target) for target in targets)))


async def _timed(target: Target, look: Callable[[], Awaitable[ProbeResult]]) -> ProbeResult:
    began = time.monotonic()
    try:
        with outgoing("probe", target.label):
            return await look()
    except Fault as fault:
        return fault.as_result(_since(began))


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


async def _in_our_words(conversation: Coroutine[Any, Any, T]) -> T:
    try:
        return await conversation
    except Fault as fault:
        raise fault.as_failure() from None


_sdk_loaded = threading.Event()


def _import_sdk() -> None:
    import mcp.client.sse  # noqa: F401

    _sdk_loaded.set()


async def _load_sdk() -> None:
    """Import the SDK in a thread (1.2 s, once), so that it does not count toward a timeout."""
    if not _sdk_loaded.is_set():
        await asyncio.to_thread(_import_sdk)
