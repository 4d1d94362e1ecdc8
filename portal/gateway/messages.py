"""One JSON-RPC message of a client: what it asks for, compared with what its headers say."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from portal.gateway.spans import NotJson, Obj, Span, quoted, read_text, replaced

MODERN = "2026-07-28"
"""From this revision on there are no sessions, and each request carries its own envelope."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
HEADER_MISMATCH = -32020
ROUTING_HEADERS = ("mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id")

_NAMED_BY = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
    "tasks/result": "taskId",
}
KNOWN_METHODS = frozenset(
    {
        *_NAMED_BY,
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
        "ping",
        "prompts/list",
        "resources/list",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "subscriptions/listen",
        "tasks/list",
        "tools/list",
    }
)
"""Those that the log names; what a client makes up is one word there."""

_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
# What a decision is taken on: written twice, or in other letters, it may mean something else to the
# server than to us.
_DECIDING = frozenset({"jsonrpc", "id", "method", "params"})
_DECIDING_PARAMS = frozenset({"name", "uri", "taskId", "_meta"})
_ENCODED = re.compile(r"=\?base64\?(?P<payload>.*)\?=\Z")


class BadMessage(Exception):
    """A message that is not passed on: a JSON-RPC error, and the id of what it answers."""

    def __init__(self, code: int, message: str, id_text: str = "null") -> None:
        super().__init__(message)
        self.code, self.message, self.id_text = code, message, id_text


@dataclass(frozen=True)
class Message:
    """A message: its text, and what of it decides. `id_text` is the id as it was written, None
    where nothing is to be answered."""

    body: bytes
    text: str
    method: str
    name: str
    id_text: str | None
    is_modern: bool
    name_span: Span | None = None

    @property
    def is_call(self) -> bool:
        """Whether a tool is called."""
        return self.method == "tools/call"

    def renamed(self, name: str) -> bytes:
        """The body with another name in the place of the one that is asked for."""
        if self.name_span is None or name == self.name:
            return self.body
        return replaced(self.text, [(self.name_span, quoted(name))]).encode()


def read_message(body: bytes, headers: Mapping[str, str]) -> Message:
    """The message in `body`. Raises `BadMessage` for what is no single JSON-RPC message, for one
    that can be read in two ways, and where a header says something else than the body."""
    try:
        text, root = read_text(body, ("params",))
    except NotJson:
        raise BadMessage(PARSE_ERROR, "The body is not JSON in UTF-8.") from None
    if not isinstance(root.value, Obj):
        said = "Send one JSON-RPC message at a time; batches are not taken here."
        raise BadMessage(INVALID_REQUEST, said)
    _refuse_twofold(root.value, _DECIDING)
    id_text = next((text[span.start : span.end] for span in root.value.spans("id")), None)
    method = root.value.get("method")
    if method is not None and not isinstance(method, str):
        raise BadMessage(INVALID_REQUEST, "The method has to be a text.")
    params = root.value.get("params")
    name_span = None
    version = headers.get("mcp-protocol-version", "")
    if isinstance(params, Obj):
        _refuse_twofold(params, _DECIDING_PARAMS)
        meta = params.get("_meta")
        said_version = meta.get(_VERSION_KEY) if isinstance(meta, dict) else None
        if version and isinstance(said_version, str) and said_version != version:
            said = "MCP-Protocol-Version names another version than the message."
            raise BadMessage(HEADER_MISMATCH, said, id_text or "null")
        version = said_version if isinstance(said_version, str) else version
        name_span = next(params.spans(_NAMED_BY.get(method or "", "")), None)
    name = name_span.value if name_span is not None else ""
    if method == "tools/call" and not (isinstance(name, str) and name):
        raise BadMessage(INVALID_PARAMS, "Say which tool to call.", id_text or "null")
    message = Message(
        body,
        text,
        method or "",
        name if isinstance(name, str) else "",
        id_text if method else None,
        version >= MODERN,
        name_span,
    )
    _compare(message, headers)
    return message


def _refuse_twofold(found: Obj, deciding: frozenset[str]) -> None:
    folded = {name.casefold() for name in deciding}
    names = [name for name, _ in found.members if name.casefold() in folded]
    if len(set(names)) < len(names) or not deciding.issuperset(names):
        said = "A member of the message is there twice, or in other letters."
        raise BadMessage(INVALID_REQUEST, said)


def _compare(message: Message, headers: Mapping[str, str]) -> None:
    """Refuse a message whose headers name something else than it does: who reads only the one and
    who reads only the other would take different decisions."""
    if not message.method:
        return
    told_twice = [("mcp-method", message.method)]
    if message.method in _NAMED_BY:
        told_twice.append(("mcp-name", message.name))
    for header, value in told_twice:
        told = headers.get(header)
        if told is not None and _decoded(told) != value:
            said = f"{header.title()} names something else than the message."
            raise BadMessage(HEADER_MISMATCH, said, message.id_text or "null")


def _decoded(value: str) -> str | None:
    found = _ENCODED.match(value)
    if found is None:
        return value
    try:
        return base64.b64decode(found["payload"], validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return None


def encoded_name(name: str) -> str:
    """A name as a header carries it."""
    if name.isascii() and name.isprintable() and name == name.strip() and not _ENCODED.match(name):
        return name
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="
