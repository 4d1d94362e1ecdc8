"""Responses of the gateway itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from portal.domain.errors import (
    Forbidden,
    PortalError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from portal.domain.gateway_addresses import GatewayAddress
from portal.gateway.messages import BadMessage, Message
from portal.services.gateway.route import Missing

MISSING_KEY = "mcp-portal/missing"
"""The key in `_meta` with the missing credentials, for programs."""

SESSION_NOT_FOUND = -32001
_STATUS = {
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True)
class Reply:
    """A complete response. `outcome` is one word for the log."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: str = "refused"


def refusal(error: PortalError) -> Reply:
    """Return the response to a request that is not forwarded."""
    kinds = type(error).__mro__
    status = next((_STATUS[kind] for kind in kinds if kind in _STATUS), HTTPStatus.BAD_REQUEST)
    headers = {"retry-after": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return _problem(status, status, error.message, headers)


def sign_in(public_url: str, address: GatewayAddress, *, is_wrong: bool) -> Reply:
    """Return the challenge for a missing or wrong (`is_wrong`) credential (RFC 9728, 5.1).

    It is the same whether or not the server exists.
    """
    metadata = f"{public_url}/.well-known/oauth-protected-resource{address.path}"
    fault = 'error="invalid_token", ' if is_wrong else ""
    headers = {"www-authenticate": f'Bearer {fault}resource_metadata="{metadata}"'}
    said = "Sign in, or send an API key."
    return _problem(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNAUTHORIZED, said, headers)


def unexpected(request_id: str) -> Reply:
    """Return the response to an unexpected error."""
    said = f"An unexpected error occurred. Tell an Admin the request ID: {request_id}."
    return _problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR, said, outcome="failed"
    )


def bad_message(error: BadMessage) -> Reply:
    """Return the response to an invalid message."""
    return _problem(HTTPStatus.BAD_REQUEST, error.code, error.message, id_text=error.id_text)


def unknown_session() -> Reply:
    """Return the response to an unknown session ID; clients then start a new session (MCP)."""
    return _problem(HTTPStatus.NOT_FOUND, SESSION_NOT_FOUND, "Session not found.")


def no_such_method(allowed: str) -> Reply:
    """Return the response to an HTTP method that is not allowed."""
    return Reply(HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": allowed})


def missing(message: Message, what: Missing) -> Reply:
    """Return the response if the caller's values, key or sign-in are missing.

    For a tool call, it is a normal result, which models can read. Otherwise it is a protocol error.
    """
    facts = {"code": what.code, "missing": list(what.names), "setup_url": what.setup_url}
    if message.is_call:
        return _tool_error(message, what.message, "missing", {MISSING_KEY: facts})
    return _error(message, HTTPStatus.PRECONDITION_FAILED, what.message, "missing", facts)


def tool_refused(message: Message) -> Reply:
    """Return the response to a caller who may not call this tool."""
    said = f"You may not call the tool {message.name[:128]} of this server."
    return _tool_error(message, said, "refused")


def failed(message: Message, why: str, *, is_late: bool = False) -> Reply:
    """Return the response if the server failed or did not respond."""
    outcome = "timeout" if is_late else "upstream_failed"
    if message.is_call:
        return _tool_error(message, why, outcome)
    status = HTTPStatus.GATEWAY_TIMEOUT if is_late else HTTPStatus.BAD_GATEWAY
    return _error(message, status, why, outcome)


def result(message: Message, value: Mapping[str, object], outcome: str) -> Reply:
    """Return the response with a result."""
    return _answer(message, f'"result":{_json(value)}', outcome)


def protocol_error(
    message: Message,
    status: int,
    code: int,
    text: str,
    data: object = None,
    *,
    outcome: str = "refused",
) -> Reply:
    """Return the response with a JSON-RPC error, with a code of MCP or of the server."""
    error: dict[str, object] = {"code": code, "message": text}
    if data is not None:
        error["data"] = data
    return Reply(status, _of(message.id_text or "null", f'"error":{_json(error)}'), outcome=outcome)


def stopped(message: Message | None) -> Reply:
    """Return the response to a request, and to its `message` if it has one, that was running when
    the process stopped."""
    if message is not None and message.id_text is not None:
        said = "The portal restarted before the server responded. The call may have had an effect."
        if message.is_call:
            return _tool_error(message, said, "stopped")
        return _error(message, HTTPStatus.SERVICE_UNAVAILABLE, said, "stopped")
    said = "The portal is restarting. Try again."
    headers = {"retry-after": "1"}
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return _problem(status, status, said, headers, outcome="stopped")


def _tool_error(
    message: Message, text: str, outcome: str, meta: Mapping[str, object] | None = None
) -> Reply:
    told: dict[str, object] = {"content": [{"type": "text", "text": text}], "isError": True}
    if message.is_modern:
        told["resultType"] = "complete"
    if meta:
        told["_meta"] = meta
    return result(message, told, outcome)


def _error(
    message: Message, code: int, text: str, outcome: str, data: Mapping[str, object] | None = None
) -> Reply:
    """Return a protocol error with a code of the portal: a positive number."""
    error: dict[str, object] = {"code": int(code), "message": text}
    if data:
        error["data"] = data
    if message.id_text is None:  # a notification has no response
        return Reply(code, _of("null", f'"error":{_json(error)}'), outcome=outcome)
    return _answer(message, f'"error":{_json(error)}', outcome)


def _answer(message: Message, member: str, outcome: str) -> Reply:
    return Reply(HTTPStatus.OK, _of(message.id_text or "null", member), outcome=outcome)


def _problem(
    status: int,
    code: int,
    text: str,
    headers: Mapping[str, str] | None = None,
    *,
    id_text: str = "null",
    outcome: str = "refused",
) -> Reply:
    error = _json({"code": int(code), "message": text})
    return Reply(status, _of(id_text, f'"error":{error}'), headers or {}, outcome)


def _of(id_text: str, member: str) -> bytes:
    return f'{{"jsonrpc":"2.0","id":{id_text},{member}}}'.encode()


def _json(value: object) -> str:
    """Return a value as JSON; text that is not Unicode (unpaired surrogates) stays escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
