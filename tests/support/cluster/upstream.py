"""An upstream that counts who asks it, and answers when it is told to."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, request

from tests.support.oauth.serving import serving

_TOOL = {"name": "say", "description": "Says it.", "inputSchema": {"type": "object"}}


class Upstream:
    """MCP servers at `url(name)`, as many as one likes; `asked[name, method]` counts messages.

    While `answers` is not set they wait. `together` is the most servers that waited at one time.
    """

    def __init__(self) -> None:
        self.base = ""
        self.asked: Counter[tuple[str, str]] = Counter()
        self.answers = threading.Event()
        self.answers.set()
        self.status = 200
        self.together = 0
        self.changed = threading.Condition()
        self._waiting = 0

    def url(self, name: str) -> str:
        """The address of the server of that name."""
        return f"{self.base}/{name}/mcp"

    def until(self, is_so: Callable[[], bool], seconds: float = 60) -> bool:
        """Wait until a question about this upstream is answered yes."""
        with self.changed:
            return self.changed.wait_for(is_so, seconds)

    def take(self, name: str) -> tuple[Any, int]:
        """Answer one message, when the time has come."""
        message = request.get_json(silent=True) or {}
        with self.changed:
            self.asked[name, message.get("method", "")] += 1
            self._waiting += 1
            self.together = max(self.together, self._waiting)
            status = self.status
            self.changed.notify_all()
        self.answers.wait(30)
        with self.changed:
            self._waiting -= 1
        if status != 200:
            return "", status
        return _answer(message)


def _answer(message: dict[str, Any]) -> tuple[Any, int]:
    if "id" not in message:
        return "", 202
    results: dict[str, Any] = {
        "initialize": {
            "protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
            "serverInfo": {"name": "counting", "version": "1"},
        },
        "tools/list": {"tools": [_TOOL]},
        "tools/call": {"content": [{"type": "text", "text": "said"}]},
    }  # fmt: skip
    found = results.get(message.get("method", ""))
    if found is None:
        error = {"code": -32601, "message": "Method not found"}
        return {"jsonrpc": "2.0", "id": message["id"], "error": error}, 200
    return {"jsonrpc": "2.0", "id": message["id"], "result": found}, 200


@contextmanager
def upstreams() -> Iterator[Upstream]:
    """Serve on loopback until the end of the block."""
    made = Upstream()
    app = Flask(__name__, static_folder=None)

    @app.post("/<name>/mcp")
    def post(name: str) -> tuple[Any, int]:
        return made.take(name)

    with serving(app, threading.Event()) as made.base:
        yield made
        made.answers.set()
