"""Client for services with an OpenAPI document. Operations are tools, and a call is one request.

A document sets paths and parameters, but not where secrets are sent. Credentials are bound to one
origin: that of the base URL or, without one, of the document.
"""

import asyncio
from dataclasses import replace
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import anyio
import httpx2

from portal.domain.openapi.document import Document, Operation, absolute_server
from portal.domain.openapi.limits import DocumentError
from portal.domain.openapi.requests import ArgumentError, Request, build_request
from portal.domain.servers import origin_of
from portal.domain.upstream import HealthReason, OutboundPolicy, Target, ToolDefinition
from portal.upstream.checks import InvalidHeader, checked_url
from portal.upstream.conversation import cleaned
from portal.upstream.documents import MAX_DOCUMENT_BYTES, parse_openapi
from portal.upstream.faults import Answer, Fault, fault_of_answer, fault_of_network, timed_out
from portal.upstream.guard import guarded_client
from portal.upstream.json_text import read_json
from portal.upstream.sigv4 import AwsAuth

MAX_RESPONSE_BYTES = 2 * 1024 * 1024
MAX_ERROR_TEXT = 2_000  # characters of an error response of a service
_EXPECTED = "an OpenAPI document"
_ACCEPT = {"Accept": "application/json, application/yaml, text/yaml, */*;q=0.5"}
_MASK = "••••••••"
_SHORTEST_SECRET = 8


def is_described(target: Target) -> bool:
    """Return whether `target` is used through its OpenAPI document instead of MCP."""
    return bool(target.spec_url) and target.transport != "stdio"


async def fetch_document(policy: OutboundPolicy, target: Target, timeout: float) -> bytes:
    """Return the text of the document. Raises `Fault`.

    The target's headers are for the API. They are sent only if the document requires
    authentication and is at the origin that they are bound to.
    """
    response = await _get(policy, target, timeout, {})
    may_sign = bool(target.headers) and origin_of(target.spec_url) == bound_origin(target)
    if response.status_code in (401, 403) and may_sign:
        response = await _get(policy, target, timeout, _signed(target, {}))
    if response.status_code != HTTPStatus.OK:
        raise fault_of_answer(_at(target, target.spec_url), Answer.of(response), _EXPECTED)
    return response.content


async def read(policy: OutboundPolicy, target: Target, timeout: float) -> Document:
    """Return the parsed document, within `timeout` seconds. Raises `Fault`."""
    with anyio.move_on_after(timeout):
        text = await fetch_document(policy, target, timeout)
        try:
            return await asyncio.to_thread(_document_of, text)
        except DocumentError as error:
            raise Fault(HealthReason.NOT_MCP, error.message) from None
    raise timed_out(_at(target, target.spec_url), timeout)


async def listed(
    policy: OutboundPolicy, target: Target, timeout: float
) -> tuple[ToolDefinition, ...]:
    """Return the operations of the document as tools. Raises `Fault`."""
    return (await read(policy, target, timeout)).tools


async def call(
    policy: OutboundPolicy, target: Target, name: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Call an operation, and return MCP's CallToolResult with `isError` for 400 and above.

    Raises `Fault`.
    """
    with anyio.move_on_after(target.timeout):
        operation = (await read(policy, target, target.timeout)).operation(name)
        if operation is None:
            return _failed(f"The document has no operation {name[:64]}.")
        base = _base_of(target, operation)
        try:
            request = build_request(operation, base, arguments)
        except ArgumentError as error:
            return _failed(error.message)
        return await _sent(policy, target, request)
    raise timed_out(target, target.timeout)


def bound_origin(target: Target) -> str | None:
    """Return the only origin to which the target's headers are sent."""
    return origin_of(target.url or target.spec_url)


def _base_of(target: Target, operation: Operation) -> str:
    """Return the base URL of the target, else of the operation. Raises `Fault`."""
    if target.url:
        return target.url
    base = absolute_server(operation.server, target.spec_url)
    if base is None:
        message = f"The document of {target.label} has no valid server URL. Set the base URL."
        raise Fault(HealthReason.BLOCKED, message)
    if (target.headers or target.signing) and origin_of(base) != bound_origin(target):
        raise Fault(
            HealthReason.BLOCKED,
            f"The document of {target.label} sets the server {_at(target, base).label}, to which"
            " credentials are not sent. An Admin can allow this by setting the base URL.",
        )
    return base


async def _sent(policy: OutboundPolicy, target: Target, request: Request) -> dict[str, Any]:
    there = _at(target, request.url)
    try:
        headers = _signed(target, request.headers)
        async with guarded_client(
            policy,
            headers=headers,
            timeout=target.timeout,
            max_bytes=MAX_RESPONSE_BYTES,
            auth=AwsAuth(target.signing) if target.signing else None,
        ) as http:
            response = await http.request(
                request.method, checked_url(request.url), content=request.body
            )
    except InvalidHeader as fault:
        return _failed(str(fault))
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as fault:
        raise fault_of_network(there, fault, None, target.timeout) from None
    text = _without_secrets(response.text, target)
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        said = f": {text[:MAX_ERROR_TEXT]}" if text.strip() else "."
        return _failed(f"HTTP {response.status_code}{_phrase(response.status_code)}{said}")
    return await asyncio.to_thread(_result, response, text)


def _result(response: httpx2.Response, text: str) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "content": [{"type": "text", "text": text.replace("\0", "\ufffd")}],
        "isError": False,
    }
    if Answer.of(response).is_json:
        try:
            structured = cleaned(read_json(text.encode()))
        except (ValueError, RecursionError):
            return wire
        if isinstance(structured, dict):
            wire["structuredContent"] = structured
    return wire


def _failed(message: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": message.replace("\0", "\ufffd")}], "isError": True}


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _signed(target: Target, headers: Any) -> dict[str, str]:
    """Return `headers` with those of the target, which arguments cannot replace."""
    ours = {name.lower() for name in target.headers}
    return {name: value for name, value in headers.items() if name.lower() not in ours} | dict(
        target.headers
    )


def _without_secrets(text: str, target: Target) -> str:
    """Return the text of a service without the credentials that were sent to it."""
    values = {
        part for value in target.headers.values() for part in (value, value.partition(" ")[2])
    }
    for value in sorted((v.strip() for v in values), key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, _MASK)
    return text


def _at(target: Target, url: str) -> Target:
    """Return the target with `url`, for messages about this URL."""
    return replace(target, url=url)


async def _get(
    policy: OutboundPolicy, target: Target, timeout: float, headers: dict[str, str]
) -> httpx2.Response:
    there = _at(target, target.spec_url)
    try:
        async with guarded_client(
            policy, headers=_ACCEPT | headers, timeout=timeout, max_bytes=MAX_DOCUMENT_BYTES
        ) as http:
            return await http.get(checked_url(target.spec_url))
    except InvalidHeader as fault:
        raise Fault(HealthReason.BLOCKED, str(fault)) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as fault:
        raise fault_of_network(there, fault, None, timeout) from None


@lru_cache(maxsize=4)
def _document_of(text: bytes) -> Document:
    """Return the parsed document, cached by its full text."""
    return parse_openapi(text)
