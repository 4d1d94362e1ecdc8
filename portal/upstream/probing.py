"""Health checks of upstreams: MCP initialization, or fetching the OpenAPI document."""

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import yaml

from portal.domain.openapi.limits import MAX_NODES
from portal.domain.upstream import (
    HealthReason,
    HealthStatus,
    OutboundPolicy,
    ProbeResult,
    Target,
    ToolDefinition,
)
from portal.upstream import openapi_client, yaml_text
from portal.upstream.conversation import Conversations, WireWitness
from portal.upstream.faults import Fault, timed_out
from portal.upstream.json_text import read_json
from portal.upstream.tools import listed

if TYPE_CHECKING:
    from mcp import Client

MAX_DEPTH = 200
MAX_NAME = 200  # characters of a server's own name and version


async def probe_server(
    conversations: Conversations, target: Target, timeout: float, with_tools: bool
) -> ProbeResult:
    """Initialize a session with an MCP server, within `timeout` seconds. Raises `Fault`."""
    return await conversations.hold(
        target, partial(_greet, target, with_tools, time.monotonic()), timeout
    )


async def _greet(
    target: Target, with_tools: bool, began: float, client: "Client", witness: WireWitness
) -> ProbeResult:
    tools = await _tools_if_any(client, witness) if with_tools else None
    info = client.server_info
    return ProbeResult(
        HealthStatus.HEALTHY,
        HealthReason.OK,
        f"{target.label} responded with MCP {client.protocol_version}.",
        _since(began),
        protocol_version=client.protocol_version,
        server_name=_short(info.name) if info else None,
        server_version=_short(info.version) if info else None,
        tools=tools,
    )


async def _tools_if_any(
    client: "Client", witness: WireWitness
) -> tuple[ToolDefinition, ...] | None:
    """Return the tools, or None if the server refuses to list them, which does not affect health.

    An error about missing scopes is raised, since the user can grant them.
    """
    from mcp import MCPError

    try:
        return await listed(client, witness)
    except MCPError:
        if witness.answer is not None and witness.answer.wanted is not None:
            raise
        return None


async def probe_document(
    policy: OutboundPolicy, target: Target, timeout: float, with_tools: bool = False
) -> ProbeResult:
    """Fetch the OpenAPI document of `target`, within `timeout` seconds. Raises `Fault`."""
    began = time.monotonic()
    where = replace(target, url="").label
    message = f"{where} returned its OpenAPI document."
    if with_tools:
        document = await openapi_client.read(policy, target, timeout)
        return ProbeResult(
            HealthStatus.HEALTHY,
            HealthReason.OK,
            message,
            _since(began),
            server_name=_short(document.title) or None,
            server_version=_short(document.version) or None,
            tools=document.tools,
        )
    with anyio.move_on_after(timeout):
        text = await openapi_client.fetch_document(policy, target, timeout)
        if not await asyncio.to_thread(is_openapi, text):
            raise Fault(HealthReason.NOT_MCP, f"{where} did not return an OpenAPI document.")
        return ProbeResult(HealthStatus.HEALTHY, HealthReason.OK, message, _since(began))
    raise timed_out(replace(target, url=""), timeout)


def is_openapi(document: bytes) -> bool:
    """Return whether `document` is a JSON or YAML mapping with `openapi` or `swagger`.

    YAML is only read as events, so that nested aliases ("billion laughs") are not expanded.
    """
    try:
        text = document.decode("utf-8-sig")
        keys = (
            set(read_json(document, MAX_NODES))
            if text.lstrip().startswith("{")
            else _top_level_keys(text)
        )
        return bool({"openapi", "swagger"} & keys)
    except (ValueError, yaml.YAMLError):
        return False


def _top_level_keys(text: str) -> set[str]:
    keys: set[str] = set()
    depth = items = nodes = 0
    for event in yaml_text.events(text):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                return set()
            if depth == 1:
                if items % 2 == 0 and isinstance(event, yaml.ScalarEvent):
                    keys.add(event.value)
                items += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            nodes += 1
            # The time of libyaml grows with the square of the depth.
            if depth > MAX_DEPTH or nodes > MAX_NODES:
                return set()
    return keys


def _short(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:MAX_NAME]


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
