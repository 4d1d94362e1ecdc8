"""The portal's own client of MCP servers and of services with an OpenAPI document: probes, tool
lists and calls."""

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
from portal.upstream.conversation import Conversations
from portal.upstream.faults import Fault, timed_out
from portal.upstream.loop import run
from portal.upstream.sandbox import Sandbox
from portal.upstream.stdio import DEFAULT_COMMANDS
from portal.upstream.tools import call, listed

T = TypeVar("T")

PROBE_TIMEOUT = 5.0
# What may come on top of a target's own time: loading the SDK once, and ending a stubborn command.
OVERTIME = 8.0


class McpClient:
    """Speaks MCP of both generations over streamable HTTP, SSE and stdio, and plain HTTP by OpenAPI
    documents.

    stdio targets are refused unless `stdio_enabled`; `stdio_commands` are allowed besides the usual
    seven. All run in `sandbox`. An operation takes no longer than its target's `timeout` (seconds);
    a probe also no longer than 5 s. Holds no connection between operations and may be shared by
    threads.
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
        """Look whether `target` answers, and with `with_tools` what it offers. Raises nothing for
        an upstream's fault.

        `timeout` (seconds) may give a slow starter more than the usual 5 s, yet never more than the
        target's own.
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
        """`probe` for asynchronous code."""
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
        """The tools of `target`, at most 2,000. Raises UpstreamFailure, or UpstreamTimeout, which
        is one."""
        return run(self.alist_tools(target), target.timeout + OVERTIME)

    async def alist_tools(self, target: Target) -> tuple[ToolDefinition, ...]:
        """`list_tools` for asynchronous code."""
        return await _in_our_words(self._listed(target, target.timeout))

    async def _listed(self, target: Target, timeout: float) -> tuple[ToolDefinition, ...]:
        with outgoing("tools", target.label):
            if openapi_client.is_described(target):
                return await openapi_client.listed(self._policy, target, timeout)
            await _load_sdk()
            return await self._conversations.hold(target, listed, timeout)

    def describe(self, spec_url: str, *, timeout: float) -> Document:
        """Fetch and read the OpenAPI document at `spec_url`, within `timeout` seconds. Raises
        UpstreamFailure."""
        target = Target("http", spec_url=spec_url, timeout=timeout)
        with outgoing("document", target.label):
            return run(
                _in_our_words(openapi_client.read(self._policy, target, timeout)),
                timeout + OVERTIME,
            )

    def call_tool(self, target: Target, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        """Call a tool. Raises UpstreamFailure (`sign_in_needed` for a 401) or UpstreamTimeout.

        A tool that fails, or that the server does not have, is an outcome with `is_error`, not an
        exception.
        """
        return run(self.acall_tool(target, name, arguments), target.timeout + OVERTIME)

    async def acall_tool(self, target: Target, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        """`call_tool` for asynchronous code."""
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
        """Probe side by side, at most `concurrency` at once; the answers come in the order of
        `targets`.

        Within `deadline` seconds: a probe has no more time than is left, and one that did not get
        its turn is `unknown` (`never_checked`). A hanging upstream holds one place, and for its own
        time only.
        """

        async def one(target: Target, left: float) -> ProbeResult:
            return await self.aprobe(
                target, with_tools=with_tools, timeout=min(left, _probe_limit(target, None))
            )

        missed = ProbeResult(
            HealthStatus.UNKNOWN, HealthReason.NEVER_CHECKED, "There was no time to check it."
        )
        return run(_side_by_side(targets, one, missed, deadline, concurrency), deadline + OVERTIME)

    def list_tools_many(
        self, targets: Sequence[Target], *, deadline: float, concurrency: int = 16
    ) -> list[tuple[ToolDefinition, ...] | UpstreamFailure]:
        """List the tools of many side by side, as `probe_many` does; a failure stands where its
        answer would."""

        async def one(target: Target, left: float) -> tuple[ToolDefinition, ...] | UpstreamFailure:
            try:
                return await self._listed(target, min(left, target.timeout))
            except Fault as fault:
                return fault.as_failure()

        missed = UpstreamTimeout("There was no time to ask for its tools.")
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
    places = asyncio.Semaphore(max(1, concurrency))

    async def wait_and_ask(target: Target) -> T:
        async with places:
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
    """Import the SDK (1.2 s, once) beside the loop, so that this counts against nobody's time
    limit."""
    if not _sdk_loaded.is_set():
        await asyncio.to_thread(_import_sdk)
