"""A small HTTP/1.1 client for load: one keep-alive connection, minimal parsing, loopback only."""

import asyncio
import gzip
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

_SECONDS = 60.0


@dataclass(frozen=True)
class Request:
    """A request. `body` is sent unchanged; `form` and `json` build it."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: bytes = b""

    @classmethod
    def form(cls, path: str, headers: Mapping[str, str], **fields: str) -> "Request":
        """Build a form request as a browser does."""
        sent = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        return cls(path, sent, "POST", urlencode(fields).encode())

    @classmethod
    def json(cls, path: str, headers: Mapping[str, str], text: str) -> "Request":
        """Build a request with a JSON document."""
        return cls(path, {**headers, "Content-Type": "application/json"}, "POST", text.encode())


@dataclass(frozen=True)
class Answer:
    """A response; header names are lower-case, and the last of a repeated one is kept.

    The body is as it was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        packed = self.headers.get("content-encoding") == "gzip"
        return (gzip.decompress(self.body) if packed else self.body).decode()


class Connection:
    """Opens at the first request, and again if the server has closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reopened = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> tuple[Answer, float]:
        """Return the response, and the milliseconds until its last byte.

        A connection that was closed while idle is reopened, as browsers do. Raises `OSError`, also
        if no response arrives within a minute.
        """
        begin = time.perf_counter()
        kept = self._streams is not None
        try:
            answer = await asyncio.wait_for(self._exchange(request), _SECONDS)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            if not kept or getattr(error, "partial", b""):
                raise ConnectionError(str(error)) from error
            self.reopened += 1
            answer = await asyncio.wait_for(self._exchange(request), _SECONDS)
        return answer, (time.perf_counter() - begin) * 1000

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: Request) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        reader, writer = self._streams
        lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        if request.method != "GET":
            lines.append(f"Content-Length: {len(request.body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + request.body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:-2])
        }
        status = int(head[0].split(" ", 2)[1])
        body = b"" if status in (204, 304) else await _body(reader, headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        length = headers.get("content-length")
        return await reader.read(-1) if length is None else await reader.readexactly(int(length))
    pieces = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readline()
    return b"".join(pieces)


async def ask_once(port: int, request: Request) -> Answer:
    """Send one request on its own connection."""
    connection = Connection(port)
    try:
        return (await connection.ask(request))[0]
    finally:
        connection.close()
