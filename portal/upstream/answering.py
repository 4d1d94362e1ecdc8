"""Answers to single requests of MCP clients, from servers to which messages cannot be forwarded:
HTTP+SSE, stdio, and services with an OpenAPI document.

Each request has its own session with the server, which one task opens, uses and closes. This runs
on the background loop, so that parsing does not delay streams of the gateway.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from portal.domain.errors import UpstreamTimeout
from portal.domain.upstream import HealthReason, Target
from portal.upstream.conversation import WireWitness, cleaned
from portal.upstream.faults import Fault
from portal.upstream.loop import elsewhere
from portal.upstream.mcp_client import UpstreamClient
from portal.upstream.openapi_client import is_described
from portal.upstream.tools import ask, is_an_answer, listed

if TYPE_CHECKING:
    from mcp import Client

MOST_COMMANDS = 8
"""Commands of one server that run at the same time in one process; other requests wait."""
MOST_REQUESTS = 64
"""The same for servers that are not commands."""

OPENINGS = frozenset({"initialize", "server/discover"})
FORWARDED = frozenset(
    {
        "completion/complete",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/templates/list",
    }
)
"""Requests that a session forwards unchanged, apart from tools."""

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
_CAPABILITIES = ("completions", "prompts", "resources", "tools")
_SLOT = 0.1  # seconds; the shortest time for a request after it waited
_RESERVED = "io.modelcontextprotocol/"

Choose = Callable[[Collection[str]], str | None]


@dataclass(frozen=True)
class Question:
    """A request of a client. `choose` returns which of the server's tools is called, or None for
    none; without it, it is the one in `params`."""

    method: str
    params: Mapping[str, Any] = field(repr=False)
    choose: Choose | None = None


@dataclass(frozen=True)
class Answered:
    """The server's result or JSON-RPC error, as it was sent. Without both, no tool was chosen.

    The result of an opening has `capabilities`, and `serverInfo` and `instructions` if the server
    sent them.
    """

    result: Mapping[str, Any] | None = field(default=None, repr=False)
    error: Mapping[str, Any] | None = field(default=None, repr=False)


def can_forward(target: Target) -> bool:
    """Return whether messages for `target` can be forwarded as they are."""
    return target.transport == "http" and not is_described(target)


class Answering:
    """Asks servers for answers. A server that does not respond delays only its own requests."""

    def __init__(self, mcp: UpstreamClient) -> None:
        self._mcp = mcp
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def answer(self, server_id: str, target: Target, question: Question) -> Answered:
        """Return the answer within the target's time-out, including the wait for a free place.

        Raises `UpstreamFailure`. If the caller is canceled, the session ends.
        """
        return await elsewhere(self._in_turn(server_id, target, question))

    async def _in_turn(self, server_id: str, target: Target, question: Question) -> Answered:
        loop = asyncio.get_running_loop()
        began = loop.time()
        most = MOST_COMMANDS if target.transport == "stdio" else MOST_REQUESTS
        places = self._places.setdefault(server_id, asyncio.Semaphore(most))
        try:
            async with asyncio.timeout(target.timeout):
                await places.acquire()
        except TimeoutError:
            said = (
                f"{target.label} is busy: {most} other requests did not end within"
                f" {target.timeout:g} s."
            )
            raise UpstreamTimeout(said) from None
        try:
            left = target.timeout - round(loop.time() - began, 1)
            return await self._asked(replace(target, timeout=max(left, _SLOT)), question)
        finally:
            places.release()

    async def _asked(self, target: Target, question: Question) -> Answered:
        if is_described(target):
            return await self._of_operations(target, question)
        kind = {"tools/call": "call", "tools/list": "tools"}.get(question.method, "request")
        return await self._mcp.ahold(kind, target, partial(_answer, question=question))

    async def _of_operations(self, target: Target, question: Question) -> Answered:
        """Return the answer for a service with an OpenAPI document, whose operations are tools."""
        if question.method in OPENINGS:
            return Answered({"capabilities": {"tools": {}}})
        if question.method == "tools/list":
            tools = await self._mcp.alist_tools(target)
            return Answered({"tools": [tool.wire for tool in tools]})
        if question.method != "tools/call":
            return _failed(METHOD_NOT_FOUND, "Method not found")
        arguments = question.params.get("arguments") or {}
        if not isinstance(arguments, dict):
            return _failed(INVALID_PARAMS, "The arguments must be an object.")
        name: str | None = str(question.params.get("name"))
        if question.choose is not None:
            name = question.choose({tool.name for tool in await self._mcp.alist_tools(target)})
        if name is None:
            return Answered()
        outcome = await self._mcp.acall_tool(target, name, arguments)
        return Answered(outcome.wire)


def _failed(code: int, message: str) -> Answered:
    return Answered(error={"code": code, "message": message})


async def _answer(client: "Client", witness: WireWitness, *, question: Question) -> Answered:
    """Return the answer of the server of a session."""
    from mcp import MCPError

    if question.method in OPENINGS:
        return Answered(_opening(client))
    if question.method == "tools/list":
        return Answered({"tools": [tool.wire for tool in await listed(client, witness)]})
    params = _own_meta(question.params)
    if question.choose is not None:
        name = question.choose({tool.name for tool in await listed(client, witness)})
        if name is None:
            return Answered()
        params["name"] = name
    try:
        result = await ask(client, question.method, params)
    except MCPError as error:
        if not is_an_answer(error, witness):
            raise
        told = {"code": error.code, "message": error.message, "data": error.data}
        return Answered(error=cleaned({name: v for name, v in told.items() if v is not None}))
    if result.get("resultType") == "input_required":
        said = "The server requests further input, which the gateway does not support for it."
        raise Fault(HealthReason.NOT_MCP, said)
    return Answered(result)


def _opening(client: "Client") -> dict[str, Any]:
    """Return how the server introduced itself, with the capabilities that work here."""
    given = client.server_capabilities.model_dump(by_alias=True, mode="json", exclude_none=True)
    told: dict[str, Any] = {"capabilities": {n: {} for n in _CAPABILITIES if n in given}}
    if client.server_info is not None:
        told["serverInfo"] = client.server_info.model_dump(
            by_alias=True, mode="json", exclude_none=True
        )
    if client.instructions:
        told["instructions"] = client.instructions
    opening: dict[str, Any] = cleaned(told)
    return opening


def _own_meta(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters without the parts that belong to the client's own exchange."""
    own = dict(params)
    meta = own.pop("_meta", None)
    if isinstance(meta, dict):
        kept = {
            key: value
            for key, value in meta.items()
            if key != "progressToken" and not key.startswith(_RESERVED)
        }
        own |= {"_meta": kept} if kept else {}
    return own
