"""Streams of events that stop in the middle until the test lets them go on."""

import socket
import threading

from tests.support.upstream.raw import Handler, RawServer, Seen

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Mcp-Session-Id: upstream-session\r\n\r\n"
)
FIRST = b"event: message\ndata: {}\n\n"
LAST = b'event: message\ndata: {"jsonrpc":"2.0","id":1,"result":{"content":[]}}\n\n'


def held(goes_on: threading.Event, *, first: bytes = FIRST) -> Handler:
    """A handler that sends `first` at once, and `LAST` with the end when `goes_on` is set."""

    def answer(connection: socket.socket, request: Seen, server: RawServer) -> None:
        connection.sendall(HEAD + (_chunk(first) if first else b""))
        while not goes_on.wait(0.05):
            if server.stop.is_set():
                return
        connection.sendall(_chunk(LAST) + _chunk(b""))

    return answer


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
