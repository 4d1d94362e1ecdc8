"""MCP for servers to which messages cannot be forwarded: the gateway responds itself.

It has no sessions: each request is independent, in all protocol versions.
"""

import json
from collections.abc import Mapping
from typing import Any

from portal.gateway import errors
from portal.gateway.errors import Reply
from portal.gateway.lists import shaped_tools
from portal.gateway.messages import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MODERN,
    VERSION_KEY,
    Message,
)
from portal.gateway.requests import Asked
from portal.services.gateway.route import OpenRoute
from portal.upstream.answering import FORWARDED, OPENINGS, Answered, Question

LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")
"""The revisions with `initialize`, newest first."""

_OLDEST = "2024-11-05"  # a client may send it before the version is negotiated
_CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
_SERVER_INFO_KEY = "io.modelcontextprotocol/serverInfo"
_UNSUPPORTED_VERSION = -32022
_RESOURCE_NOT_FOUND = -32002
_URL_NEEDED = -32042
_INTERNAL_ERROR = -32603
_STATUS_OF_CODE = {METHOD_NOT_FOUND: 404, INVALID_PARAMS: 400, INVALID_REQUEST: 400}
_TOOLS = frozenset({"tools/call", "tools/list"})
_METHODS = {
    False: FORWARDED | _TOOLS | {"initialize", "ping"},
    True: FORWARDED | _TOOLS | {"server/discover"},
}
"""The supported methods; modern: True."""

_CACHED = frozenset(
    {
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "server/discover",
        "tools/list",
    }
)
"""Methods with results that clients may cache."""


def early_reply(asked: Asked, message: Message) -> Reply | None:
    """Return the reply to a request that the server is not asked about, or None."""
    if asked.method != "POST":
        return errors.no_such_method("POST")
    if message.id_text is None:
        return _reply_to_note(message)
    fault = _wrong_envelope(asked, message) if message.is_modern else _wrong_version(asked, message)
    if fault is not None:
        return fault
    if message.method not in _METHODS[message.is_modern]:
        return _method_not_found(message)
    if message.method == "ping":
        return errors.result(message, {}, "ok")
    return None


def question_of(message: Message, route: OpenRoute) -> Question:
    """Return what the server is asked."""
    params = _params(message)
    if not message.is_call:
        return Question(message.method, params)
    published = str(params.get("name"))

    def choose(real: Any) -> str | None:
        # A published name never hides the tool that really has this name.
        own = published if published in real else message.name
        return own if route.limits.allow(own) else None

    is_own = published == message.name
    return Question(message.method, {**params, "name": message.name}, None if is_own else choose)


def reply_of(message: Message, answered: Answered, route: OpenRoute) -> Reply:
    """Return the reply with the server's result or error."""
    if answered.error is not None:
        return _error(message, answered.error)
    if answered.result is None:
        return errors.tool_refused(message)
    result = dict(answered.result)
    if message.method in OPENINGS:
        result = _opening(message, result, route)
    if message.method == "tools/list":
        result["tools"] = shaped_tools(result["tools"], route)
    if message.is_modern:
        result.setdefault("resultType", "complete")
        if message.method in _CACHED:
            result.setdefault("ttlMs", 0)
            result["cacheScope"] = "private"  # others may see something else
    is_error = message.is_call and result.get("isError") is True
    return errors.result(message, result, "tool_error" if is_error else "ok")


def _reply_to_note(message: Message) -> Reply:
    """Return the reply to a notification, or to a response although nothing was requested."""
    if not message.method and message.is_modern:
        return errors.protocol_error(message, 400, INVALID_REQUEST, "Send a request.")
    return Reply(202, outcome="ok")


def _wrong_version(asked: Asked, message: Message) -> Reply | None:
    version = asked.headers.get("mcp-protocol-version")
    if version is None or version in (*LEGACY, _OLDEST) or message.method == "initialize":
        return None
    return errors.protocol_error(message, 400, INVALID_REQUEST, "Unsupported protocol version.")


def _wrong_envelope(asked: Asked, message: Message) -> Reply | None:
    """Return the reply to a modern request without the required parts, or None."""
    meta = _params(message).get("_meta")
    needed = (VERSION_KEY, _CAPABILITIES_KEY)
    missing = [key for key in needed if not isinstance(meta, dict) or key not in meta]
    if missing or not isinstance(meta, dict):
        said = f"params._meta lacks {', '.join(missing)}."
        return errors.protocol_error(message, 400, INVALID_PARAMS, said)
    headers = ["mcp-protocol-version", "mcp-method"] + ["mcp-name"] * message.is_named
    absent = next((name for name in headers if name not in asked.headers), None)
    if absent is not None:
        said = f"The header {absent.title()} is missing."
        return errors.protocol_error(message, 400, HEADER_MISMATCH, said)
    version = meta[VERSION_KEY]
    if version == MODERN:
        return None
    facts = {"supported": [MODERN, *LEGACY], "requested": version}
    said = "Unsupported protocol version"
    return errors.protocol_error(message, 400, _UNSUPPORTED_VERSION, said, facts)


def _method_not_found(message: Message) -> Reply:
    status = 404 if message.is_modern else 200
    return errors.protocol_error(message, status, METHOD_NOT_FOUND, "Method not found")


def _opening(message: Message, told: Mapping[str, Any], route: OpenRoute) -> dict[str, Any]:
    """Return the result of `initialize` or `server/discover`."""
    server = told.get("serverInfo") or {"name": route.name, "version": ""}
    result: dict[str, Any] = {"capabilities": told["capabilities"]}
    if "instructions" in told:
        result["instructions"] = told["instructions"]
    if message.is_modern:
        supported = {"supportedVersions": [MODERN, *LEGACY], "_meta": {_SERVER_INFO_KEY: server}}
        return result | supported
    wanted = _params(message).get("protocolVersion")
    version = wanted if wanted in LEGACY else LEGACY[0]
    return {"protocolVersion": version, "serverInfo": server, **result}


def _error(message: Message, error: Mapping[str, Any]) -> Reply:
    """Return the reply with a JSON-RPC error of the server."""
    code = error["code"]
    if message.is_modern:
        # These codes belong to older revisions.
        code = {_RESOURCE_NOT_FOUND: INVALID_PARAMS, _URL_NEEDED: _INTERNAL_ERROR}.get(code, code)
    status = _STATUS_OF_CODE.get(code, 200) if message.is_modern else 200
    outcome = "tool_error" if message.is_call else "ok"
    return errors.protocol_error(
        message, status, code, error["message"], error.get("data"), outcome=outcome
    )


def _params(message: Message) -> Mapping[str, Any]:
    found = json.loads(message.text).get("params")
    return found if isinstance(found, dict) else {}
