"""One JSON-RPC message of a client, compared with the headers of its request."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from portal.gateway.spans import NotJson, Obj, Span, quoted, read_text, replaced

MODERN = "2026-07-28"
"""The first revision without sessions, in which each request has its own envelope."""

LISTENS = "subscriptions/listen"
"""The method whose response stays open."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
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
        LISTENS,
        "tasks/list",
        "tools/list",
    }
)
"""Methods that appear in the log; all others are logged as one word."""

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_CLIENT_KEY = "io.modelcontextprotocol/clientInfo"
_LONGEST_NAME = 80
_LONGEST_VERSION = 40
# Members that decisions depend on. If one is repeated or in another case, the server could read it
# differently than the gateway.
_DECIDING = frozenset({"jsonrpc", "id", "method", "params"})
_DECIDING_PARAMS = frozenset({"name", "uri", "taskId", "_meta"})
_ENCODED = re.compile(r"=\?base64\?(?P<payload>.*)\?=\Z")


class BadMessage(Exception):
    """A message that is not forwarded: a JSON-RPC error, and the ID of the request."""

    def __init__(self, code: int, message: str, id_text: str = "null") -> None:
        super().__init__(message)
        self.code, self.message, self.id_text = code, message, id_text


@dataclass(frozen=True)
class Client:
    """The name and version of a client, as it says itself."""

    name: str
    version: str | None = None


@dataclass(frozen=True)
class Message:
    """A message: its text, and the parts that decisions depend on. `id_text` is the ID as it was
    sent, or None if the message has no response."""

    body: bytes
    text: str
    method: str
    name: str
    id_text: str | None
    is_modern: bool
    name_span: Span | None = None
    client: Client | None = None

    @property
    def is_call(self) -> bool:
        """Return whether this is a tool call."""
        return self.method == "tools/call"

    @property
    def is_named(self) -> bool:
        """Return whether a modern client also sends the name in a header."""
        return self.name_span is not None

    def renamed(self, name: str) -> bytes:
        """Return the body with another name in place of the requested one."""
        if self.name_span is None or name == self.name:
            return self.body
        return replaced(self.text, [(self.name_span, quoted(name))]).encode()


def read_message(body: bytes, headers: Mapping[str, str]) -> Message:
    """Return the message in `body`.

    Raises `BadMessage` if it is not a single JSON-RPC message, is ambiguous, or differs from the
    headers.
    """
    try:
        text, root = read_text(body, ("params",))
    except NotJson:
        raise BadMessage(PARSE_ERROR, "The body is not JSON in UTF-8.") from None
    if not isinstance(root.value, Obj):
        said = "Send one JSON-RPC message at a time. Batches are not supported."
        raise BadMessage(INVALID_REQUEST, said)
    _refuse_twofold(root.value, _DECIDING)
    id_text = next((text[span.start : span.end] for span in root.value.spans("id")), None)
    method = root.value.get("method")
    if method is not None and not isinstance(method, str):
        raise BadMessage(INVALID_REQUEST, "The method must be a string.")
    params = root.value.get("params")
    name_span = None
    client = None
    version = headers.get("mcp-protocol-version", "")
    if isinstance(params, Obj):
        _refuse_twofold(params, _DECIDING_PARAMS)
        meta = params.get("_meta")
        said_version = meta.get(VERSION_KEY) if isinstance(meta, dict) else None
        if version and isinstance(said_version, str) and said_version != version:
            said = "MCP-Protocol-Version does not match the version in the message."
            raise BadMessage(HEADER_MISMATCH, said, id_text or "null")
        version = said_version if isinstance(said_version, str) else version
        told = meta.get(_CLIENT_KEY) if isinstance(meta, dict) else None
        client = client_in(params.get("clientInfo") if method == "initialize" else told)
        name_span = next(params.spans(_NAMED_BY.get(method or "", "")), None)
    name = name_span.value if name_span is not None else ""
    if method == "tools/call" and not (isinstance(name, str) and name):
        raise BadMessage(INVALID_PARAMS, "The name of the tool is missing.", id_text or "null")
    message = Message(
        body,
        text,
        method or "",
        name if isinstance(name, str) else "",
        id_text if method else None,
        version >= MODERN,
        name_span,
        client,
    )
    _compare(message, headers)
    return message


def client_in(told: object) -> Client | None:
    """Return the client in a `clientInfo`, or None if it contains no name."""
    if not isinstance(told, dict):
        return None
    name = shown(told.get("name"), _LONGEST_NAME)
    return Client(name, shown(told.get("version"), _LONGEST_VERSION)) if name else None


def shown(text: object, longest: int) -> str | None:
    """Return a text of a client with printable characters only, cut to a length, or None."""
    if not isinstance(text, str):
        return None
    printable = (letter if letter.isprintable() else " " for letter in text[: 2 * longest])
    return "".join(printable).strip()[:longest] or None


def _refuse_twofold(found: Obj, deciding: frozenset[str]) -> None:
    folded = {name.casefold() for name in deciding}
    names = [name for name, _ in found.members if name.casefold() in folded]
    if len(set(names)) < len(names) or not deciding.issuperset(names):
        said = "A member of the message is repeated, or in another case."
        raise BadMessage(INVALID_REQUEST, said)


def _compare(message: Message, headers: Mapping[str, str]) -> None:
    """Raise `BadMessage` if a header does not match the message.

    Otherwise software that reads only one of them would decide differently.
    """
    if not message.method:
        return
    told_twice = [("mcp-method", message.method)]
    if message.method in _NAMED_BY:
        told_twice.append(("mcp-name", message.name))
    for header, value in told_twice:
        told = headers.get(header)
        if told is not None and _decoded(told) != value:
            said = f"{header.title()} does not match the message."
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
    """Return a name encoded for a header."""
    if name.isascii() and name.isprintable() and name == name.strip() and not _ENCODED.match(name):
        return name
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="
