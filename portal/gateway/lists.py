"""Lists of tools for one caller: filtered and renamed, and otherwise unchanged."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from portal.domain.errors import UpstreamFailure
from portal.domain.upstream import HealthReason
from portal.gateway.spans import Arr, NotJson, Obj, Span, quoted, read_text, replaced
from portal.services.gateway.route import OpenRoute, ToolNames

MOST_BYTES = 10 * 1024 * 1024
"""Size limit of a message that must be complete before it is forwarded."""

_PRIVATE = quoted("private")
_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n")


def shapes_lists(route: OpenRoute) -> bool:
    """Return whether lists of tools must be changed for this route."""
    return _narrows(route) or bool(route.names.shown or route.names.described)


def shaped(body: bytes, route: OpenRoute) -> bytes:
    """Return a message with the tools that the caller may see; other messages are unchanged.

    Raises `UpstreamFailure` if the message is not readable and the caller may not see all tools.
    """
    try:
        text, root = read_text(body, ("result", "tools"))
    except NotJson:
        return _unread(body, route)
    if not isinstance(root.value, Obj):
        return _unread(body, route)
    edits = [
        edit
        for result in root.value.spans("result")
        if isinstance(result.value, Obj)
        for edit in _edits(text, result.value, route)
    ]
    return replaced(text, edits).encode() if edits else body


def shaped_tools(tools: Sequence[Mapping[str, Any]], route: OpenRoute) -> list[Mapping[str, Any]]:
    """Return the tools that the caller may see, with their names and descriptions from the
    catalog. `tools` are all tools of the server."""
    names = route.names.without({tool["name"] for tool in tools})
    return [
        {**tool, **_instead(tool["name"], names)}
        for tool in tools
        if route.limits.allow(tool["name"])
    ]


def _unread(body: bytes, route: OpenRoute) -> bytes:
    if _narrows(route):
        said = "The server sent an invalid list of tools."
        raise UpstreamFailure(said, reason=HealthReason.NOT_MCP)
    return body


def _narrows(route: OpenRoute) -> bool:
    return route.limits.allow_list is not None or route.limits.permitted is not None


def _edits(text: str, result: Obj, route: OpenRoute) -> Iterator[tuple[Span, str]]:
    lists = [span for span in result.spans("tools") if isinstance(span.value, Arr)]
    for span in lists:
        names = route.names.without({_name_of(tool) for tool in span.value.items})
        kept = [
            _tool(text, tool, names)
            for tool in span.value.items
            if not _narrows(route) or route.limits.allow(_name_of(tool))
        ]
        yield span, f"[{','.join(kept)}]"
    if lists and _narrows(route):
        for scope in result.spans("cacheScope"):
            yield scope, _PRIVATE


def _name_of(tool: Span) -> str:
    name = tool.value.get("name") if isinstance(tool.value, Obj) else None
    return name if isinstance(name, str) else ""


def _instead(name: str, names: ToolNames) -> dict[str, str]:
    """Return the name and description of a tool from the catalog, if it has them."""
    instead = {"name": names.shown.get(name), "description": names.described.get(name)}
    return {key: value for key, value in instead.items() if value}


def _tool(text: str, tool: Span, names: ToolNames) -> str:
    """Return the text of one tool, with its name and description from the catalog."""
    wanted = _instead(_name_of(tool), names)
    if not wanted or not isinstance(tool.value, Obj):
        return text[tool.start : tool.end]
    edits = [
        (Span(span.start - tool.start, span.end - tool.start, None), quoted(value))
        for key, value in wanted.items()
        for span in tool.value.spans(key)
    ]
    written = replaced(text[tool.start : tool.end], edits)
    added = [
        f",{quoted(key)}:{quoted(value)}"
        for key, value in wanted.items()
        if not any(tool.value.spans(key))
    ]
    return written[:-1] + "".join(added) + "}"


class ShapedEvents:
    """An event stream with filtered lists; comments, IDs and other events are unchanged.

    Text after the last complete event is omitted, because clients ignore an incomplete event.
    """

    def __init__(self, route: OpenRoute) -> None:
        self._route = route
        self._begun = b""

    def feed(self, piece: bytes) -> bytes:
        """Return the events that are complete with `piece`.

        Raises `UpstreamFailure` if an event is too long.
        """
        *events, self._begun = _cut(self._begun + piece)
        if len(self._begun) > MOST_BYTES:
            said = "The server sent an event that is too long."
            raise UpstreamFailure(said, reason=HealthReason.NOT_MCP)
        return b"".join(self._event(event) for event in events)

    def _event(self, event: bytes) -> bytes:
        if b"tools" not in event:
            return event
        lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        data = [line.removeprefix(b"data:") for line in lines if line.startswith(b"data:")]
        message = b"\n".join(line.removeprefix(b" ") for line in data)
        instead = shaped(message, self._route)
        if instead == message:
            return event
        others = [line for line in lines if line and not line.startswith(b"data:")]
        written = [b"data: " + line for line in instead.split(b"\n")]
        return b"\n".join([*others, *written]) + b"\n\n"


def _cut(text: bytes) -> list[bytes]:
    """Split `text` into complete events, each with its final empty line, and the rest."""
    found = []
    start = at = 0
    while (end := _end_of_event(text, at)) is not None:
        found.append(text[start:end])
        start = at = end
    return [*found, text[start:]]


def _end_of_event(text: bytes, start: int) -> int | None:
    found = ((text.find(mark, start), len(mark)) for mark in _BLANK_LINES)
    return min((at + length for at, length in found if at >= 0), default=None)
