"""A small MCP server that returns what it receives, for the demo, tests and benchmarks.

    python examples/echo_server.py --port 8931 [--transport streamable-http|sse|stdio]
        [--require-header NAME]

It listens on 127.0.0.1 only: Streamable HTTP at /mcp, SSE at /sse. With --require-header, it
returns 401 for requests without that header, like a server that requires sign-in.
"""

import argparse
import asyncio
from typing import Annotated, Any, Literal

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import ToolAnnotations
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
NOTES = [
    {
        "title": "Quarterly report",
        "tag": "work",
        "text": "Numbers are due on Friday; ask Ada for the template.",
    },
    {"title": "Team offsite", "tag": "work", "text": "Book the train, bring the projector."},
    {"title": "Garden", "tag": "home", "text": "Plant the apple tree before the first frost."},
    {"title": "Bread", "tag": "home", "text": "500 g flour, 350 g water, 10 g salt, patience."},
    {"title": "Reading list", "tag": "home", "text": "The report on soil, and the one on trees."},
]

server = MCPServer(
    "echo",
    title="Echo",
    version="1.0.0",
    instructions="Shows the headers that an MCP server receives, and has safe tools to try.",
    log_level="WARNING",
)


@server.tool(title="Show headers", annotations=READ_ONLY)
def show_headers(ctx: Context) -> dict[str, str]:
    """Return the HTTP headers of this request by lowercase name; empty over stdio."""
    return dict(ctx.headers or {})


@server.tool(title="Who am I", annotations=READ_ONLY)
def whoami(ctx: Context) -> dict[str, Any]:
    """Return the scheme of the Authorization header and the names of all headers."""
    headers = dict(ctx.headers or {})
    scheme = headers.get("authorization", "").partition(" ")[0]
    return {"scheme": scheme or None, "header_names": sorted(headers)}


@server.tool(title="Add", annotations=READ_ONLY)
def add(
    a: Annotated[int, Field(description="The first number")],
    b: Annotated[int, Field(description="The second number")],
) -> int:
    """Add two whole numbers."""
    return a + b


@server.tool(title="Search notes", annotations=READ_ONLY)
def search_notes(
    query: Annotated[
        str, Field(description="A word to search for in titles and texts", min_length=1)
    ],
    limit: Annotated[int, Field(description="Maximum number of notes", ge=1, le=50)] = 5,
    tag: Annotated[
        Literal["work", "home"] | None, Field(description="Only notes with this tag")
    ] = None,
) -> list[dict[str, str]]:
    """Search the sample notes, ignoring case."""
    word = query.casefold()
    found = [note for note in NOTES if word in f"{note['title']} {note['text']}".casefold()]
    return [note for note in found if tag in (None, note["tag"])][:limit]


@server.tool(title="Slow", annotations=READ_ONLY)
async def slow(
    seconds: Annotated[float, Field(description="Duration in seconds", ge=0, le=60)],
) -> str:
    """Respond after the given number of seconds, to test timeouts."""
    await asyncio.sleep(seconds)
    return f"Took {seconds:g} s."


def requiring(app: ASGIApp, header: str) -> ASGIApp:
    """Return `app` with a required `header` (RFC 6750, section 3: 401 with a Bearer challenge)."""
    wanted = header.lower().encode()

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or any(name == wanted for name, _ in scope["headers"]):
            await app(scope, receive, send)
            return
        headers = [
            (b"www-authenticate", b'Bearer realm="echo"'),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": "unauthorized"}'})

    return checked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=8931)
    parser.add_argument(
        "--transport", choices=["streamable-http", "sse", "stdio"], default="streamable-http"
    )
    parser.add_argument(
        "--require-header", metavar="NAME", help="return 401 if this header is missing"
    )
    options = parser.parse_args()
    if options.transport == "stdio":
        server.run("stdio")
        return
    app: ASGIApp = server.sse_app() if options.transport == "sse" else server.streamable_http_app()
    if options.require_header:
        app = requiring(app, options.require_header)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
