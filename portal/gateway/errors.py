"""Everything that the gateway answers by itself."""

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
"""The key in `_meta` under which programs find what is missing."""

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
    """A whole answer. `outcome` is one word for the log."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: str = "refused"


def refusal(error: PortalError) -> Reply:
    """The answer to a request that is not passed on."""
    kinds = type(error).__mro__
    status = next((_STATUS[kind] for kind in kinds if kind in _STATUS), HTTPStatus.BAD_REQUEST)
    headers = {"retry-after": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return _problem(status, status, error.message, headers)


def sign_in(public_url: str, address: GatewayAddress, *, is_wrong: bool) -> Reply:
    """The challenge to whoever shows nothing, or (`is_wrong`) what opens nothing: where they learn
    how to get in (RFC 9728, 5.1). It is the same whatever the address names."""
    metadata = f"{public_url}/.well-known/oauth-protected-resource{address.path}"
    fault = 'error="invalid_token", ' if is_wrong else ""
    headers = {"www-authenticate": f'Bearer {fault}resource_metadata="{metadata}"'}
    said = "Sign in, or send an API key."
    return _problem(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNAUTHORIZED, said, headers)


def unexpected(request_id: str) -> Reply:
    """The answer where something went wrong that nobody foresaw."""
    said = f"Something went wrong. Tell an Admin the request id {request_id}."
    return _problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR, said, outcome="failed"
    )


def bad_message(error: BadMessage) -> Reply:
    """The answer to what is no message that can be passed on."""
    return _problem(HTTPStatus.BAD_REQUEST, error.code, error.message, id_text=error.id_text)


def unknown_session() -> Reply:
    """The answer to an id of a session that is not known: clients begin anew (MCP, sessions)."""
    return _problem(HTTPStatus.NOT_FOUND, SESSION_NOT_FOUND, "Session not found.")


def no_such_method(allowed: str) -> Reply:
    """The answer to another HTTP method than the address takes."""
    return Reply(HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": allowed})


def missing(message: Message, what: Missing) -> Reply:
    """What the caller is told whose values, key or sign-in are missing: for a tool call a normal
    result, which models read out, and an error of the protocol elsewhere."""
    facts = {"code": what.code, "missing": list(what.names), "setup_url": what.setup_url}
    if message.is_call:
        return _tool_error(message, what.message, "missing", {MISSING_KEY: facts})
    return _error(message, HTTPStatus.PRECONDITION_FAILED, what.message, "missing", facts)


def tool_refused(message: Message, why: str) -> Reply:
    """What the caller is told who may not call this tool."""
    return _tool_error(message, why, "refused")


def failed(message: Message, why: str, *, is_late: bool = False) -> Reply:
    """What the caller is told where the server did not answer, or not as it should."""
    outcome = "timeout" if is_late else "upstream_failed"
    if message.is_call:
        return _tool_error(message, why, outcome)
    status = HTTPStatus.GATEWAY_TIMEOUT if is_late else HTTPStatus.BAD_GATEWAY
    return _error(message, status, why, outcome)


def _tool_error(
    message: Message, text: str, outcome: str, meta: Mapping[str, object] | None = None
) -> Reply:
    result: dict[str, object] = {"content": [{"type": "text", "text": text}], "isError": True}
    if message.is_modern:
        result["resultType"] = "complete"
    if meta:
        result["_meta"] = meta
    return _answer(message, f'"result":{_json(result)}', outcome)


def _error(
    message: Message, code: int, text: str, outcome: str, data: Mapping[str, object] | None = None
) -> Reply:
    """An error of the protocol, with a code of our own: a positive number."""
    error: dict[str, object] = {"code": int(code), "message": text}
    if data:
        error["data"] = data
    if message.id_text is None:  # nothing waits for an answer
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
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
