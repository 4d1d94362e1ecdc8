"""A real MCP server in this process whose tools change while it runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from mcp.server.mcpserver import MCPServer

from tests.support.peers import accepts, free_port


class Offering:
    """`offer("add", "Adds.")` offers a tool, or another of that name; `withdraw("add")` takes it
    away."""

    def __init__(self) -> None:
        self.server = MCPServer("offering", log_level="WARNING")
        self.port = free_port()
        self.offered: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def offer(
        self, name: str, description: str = "Says what it is given.", *, loud: bool = False
    ) -> None:
        self.withdraw(name)

        def say(text: str) -> str:
            return text

        def shout(text: str, twice: bool) -> str:
            return text.upper() * (2 if twice else 1)

        self.server.add_tool(shout if loud else say, name=name, description=description)
        self.offered.add(name)

    def withdraw(self, name: str) -> None:
        if name in self.offered:
            self.offered.remove(name)
            self.server.remove_tool(name)

    def withdraw_all(self) -> None:
        for name in tuple(self.offered):
            self.withdraw(name)


@contextmanager
def offering() -> Iterator[Offering]:
    """Serve on loopback until the end of the block."""
    made = Offering()
    app = made.server.streamable_http_app(stateless_http=True, json_response=True)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=made.port, log_level="warning")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not accepts(made.port):
        thread.join(0.02)  # the pause between two looks
        assert thread.is_alive()
    yield made
    server.should_exit = True
    thread.join(10)
