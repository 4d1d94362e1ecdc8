"""Real MCP clients that do OAuth: the official Python SDK's, and npm's mcp-remote. A function plays
their browser.

Each call runs in a thread of its own with its own event loop, so it works beside Playwright's.
"""

import asyncio
import contextlib
import os
import queue
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.types import CallToolResult, TextContent
from pydantic import AnyUrl

from tests.support.peers import NODE_MODULES, bare_environment, unavailable

CLIENT_REDIRECT = "http://127.0.0.1:3030/callback"
MCP_REMOTE = NODE_MODULES / "mcp-remote" / "dist" / "proxy.js"
SECONDS = 30
Browse = Callable[[str], str]
Result = TypeVar("Result")


@dataclass
class ClientMemory:
    """What a client keeps between two runs (the SDK's `TokenStorage`)."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None
    expired: bool = False

    def expire(self) -> None:
        """Let the next call take its access token for expired, so that it refreshes first."""
        self.expired = True

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens, self.expired = tokens, False

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@dataclass(frozen=True)
class Outcome:
    """What came of a call: the tool's text, what the client keeps, its requests as (method, path,
    status), and the names of the tools, if they were listed."""

    text: str
    is_error: bool
    protocol_version: str
    memory: ClientMemory
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    tools: frozenset[str] = frozenset()

    @property
    def tokens(self) -> OAuthToken:
        """The tokens that the client holds now."""
        assert self.memory.tokens is not None
        return self.memory.tokens

    @property
    def client(self) -> OAuthClientInformationFull:
        """The client that it registered, or found."""
        assert self.memory.client is not None
        return self.memory.client


class _Watched(httpx2.AsyncHTTPTransport):
    """The SDK's own transport, with a list of what went over it."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str, int]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await super().handle_async_request(request)
        self.requests.append((request.method, request.url.path, answer.status_code))
        return answer


def _in_thread(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    async def limited() -> Result:
        async with asyncio.timeout(SECONDS):
            return await work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(limited())).result()


def _text(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def call_with_sdk(
    url: str,
    browse: Browse,
    *,
    tool: str = "whoami",
    arguments: Mapping[str, Any] | None = None,
    scope: str | None = None,
    memory: ClientMemory | None = None,
    redirect_uri: str = CLIENT_REDIRECT,
    client_metadata_url: str | None = None,
    mode: str = "auto",
    lists: bool = False,
) -> Outcome:
    """Call a tool at `url` as the Python SDK's OAuth client; `browse(authorize_url)` returns the
    final redirect.

    With `lists`, the client lists the tools first. `mode` is the SDK's: `auto`, `legacy` or a
    protocol version. Raises what the SDK raises.
    """
    kept = memory or ClientMemory()
    landed: dict[str, str] = {}

    async def redirected(authorize_url: str) -> None:
        final = await asyncio.to_thread(browse, authorize_url)
        landed.update(
            {name: values[-1] for name, values in parse_qs(urlsplit(final).query).items()}
        )

    async def called_back() -> AuthorizationCodeResult:
        assert "code" in landed, f"the browser came back without a code: {landed}"
        return AuthorizationCodeResult(
            code=landed["code"], state=landed.get("state"), iss=landed.get("iss")
        )

    async def work() -> Outcome:
        metadata = OAuthClientMetadata(
            client_name="SDK client", redirect_uris=[AnyUrl(redirect_uri)], scope=scope
        )
        auth = OAuthClientProvider(
            url, metadata, kept, redirected, called_back, client_metadata_url
        )
        if kept.expired:
            auth.context.token_expiry_time = time.time() - 1
        transport = _Watched()
        async with (
            httpx2.AsyncClient(auth=auth, transport=transport, timeout=SECONDS) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            listed = (await client.list_tools()).tools if lists else []
            result = await client.call_tool(tool, dict(arguments or {}))
            assert isinstance(result, CallToolResult)
            return Outcome(
                _text(result),
                result.is_error,
                client.protocol_version,
                kept,
                transport.requests,
                frozenset(listed_tool.name for listed_tool in listed),
            )

    return _in_thread(work)


@contextlib.contextmanager
def _each_line(react: Callable[[str], None]) -> Iterator[tuple[TextIO, list[str]]]:
    """Yield a file to write to, and the lines so far; `react` sees each line in a thread of its
    own."""
    reading, writing = os.pipe()
    lines: list[str] = []

    def pump() -> None:
        with os.fdopen(reading, errors="replace") as source:
            for line in source:
                lines.append(line)
                react(line)

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    with os.fdopen(writing, "w") as sink:
        yield sink, lines
    thread.join(SECONDS)


def call_with_mcp_remote(
    url: str,
    browse: Callable[[str], object],
    *,
    tool: str = "whoami",
    arguments: Mapping[str, Any] | None = None,
) -> str:
    """Call a tool at `url` through npm's mcp-remote over stdio, as desktop clients do; return the
    tool's text.

    `browse(authorize_url)` must open the final redirect as well: mcp-remote listens there itself.
    Raises AssertionError with what mcp-remote said when anything fails.
    """
    node = shutil.which("node")
    if node is None or not MCP_REMOTE.exists():
        unavailable("The MCP client mcp-remote", "run `make peers`")
    failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def react(line: str) -> None:
        found = re.search(r"https?://\S+[?&]response_type=code\S*", line)
        if found:
            try:
                browse(found[0])
            except (AssertionError, httpx2.HTTPError) as error:
                failures.put(error)

    async def work(folder: str, errors: TextIO) -> str:
        environment = bare_environment(MCP_REMOTE_CONFIG_DIR=folder, HOME=folder)
        parameters = StdioServerParameters(
            command=node, args=[str(MCP_REMOTE), url, "--allow-http"], env=environment, cwd=folder
        )
        async with Client(stdio_client(parameters, errlog=errors), mode="legacy") as client:
            result = await client.call_tool(tool, dict(arguments or {}))
            assert isinstance(result, CallToolResult)
            return _text(result)

    with (
        tempfile.TemporaryDirectory(prefix="portal-peer-") as folder,
        _each_line(react) as (errors, lines),
    ):
        try:
            return _in_thread(lambda: work(folder, errors))
        except Exception as error:
            cause = error if failures.empty() else failures.get()
            raise AssertionError(f"mcp-remote failed: {cause!r}\n{''.join(lines)}") from error
