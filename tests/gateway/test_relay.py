"""What of an upstream's answer reaches the client, and what never does."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from tests.conftest import KEYS, Write
from tests.gateway.conftest import Running
from tests.support.factories import make_server
from tests.support.upstream.raw import RawServer, Seen, always, raw_server

Upstream = Callable[..., RawServer]


@pytest.fixture
def upstream(write: Write) -> Iterator[Upstream]:
    """`upstream(401, b"…")` makes a server `odd` that answers every request so."""
    with ExitStack() as stack:

        def answering(*answer: Any, **headers: str) -> RawServer:
            server = stack.enter_context(raw_server(always(*answer, **headers)))
            with write() as session:
                make_server(session, "odd", url=server.url(), allow_all_keys=True)
            return server

        yield answering


@pytest.fixture
def broken(write: Write) -> Iterator[Callable[[bytes], None]]:
    """`broken(b"…")` makes a server `odd` that sends this and then closes the connection."""
    with ExitStack() as stack:

        def answering(start: bytes) -> None:
            def send(connection: socket.socket, _request: Seen, _server: RawServer) -> None:
                connection.sendall(start)
                connection.shutdown(socket.SHUT_RDWR)

            server = stack.enter_context(raw_server(send))
            with write() as session:
                make_server(session, "odd", url=server.url(), allow_all_keys=True)

        yield answering


def call(gateway: Running, rpc: str = "tools/call") -> Any:
    return gateway.post("odd", "mel", rpc, {"name": "any"}, x_own="mine", cookie="a=b")


@pytest.mark.parametrize("status", [401, 403, 407])
@pytest.mark.parametrize("media_type", ["application/json", "text/html"])
def test_a_refused_sign_in_at_the_upstream_is_never_the_callers(
    gateway: Running, upstream: Upstream, status: int, media_type: str
) -> None:
    upstream(
        status,
        b'{"error":"upstream says no"}',
        media_type,
        WWW_Authenticate='Bearer resource_metadata="https://evil.example"',
        Set_Cookie="a=b",
    )
    answer = call(gateway)
    assert answer.status_code == 200
    assert answer.json()["result"]["isError"]
    listed = call(gateway, "tools/list")
    assert listed.status_code == 200
    assert listed.json()["error"]["code"] == 502
    for told in (answer, listed):
        assert "upstream says no" not in told.text
        assert not {"www-authenticate", "set-cookie"} & set(told.headers)


def test_no_page_of_an_upstream_is_passed_back(gateway: Running, upstream: Upstream) -> None:
    upstream(200, b"<script>alert(1)</script>", "text/html", Set_Cookie="a=b")
    answer = call(gateway)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "script" not in answer.text
    assert answer.json()["result"]["isError"]


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_status_about_the_request_is_passed_back(
    gateway: Running, upstream: Upstream, status: int
) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"no"}}'
    upstream(status, body, "application/json")
    answer = call(gateway)
    assert (answer.status_code, answer.content) == (status, body)


def test_nothing_of_the_callers_own_reaches_the_upstream(
    gateway: Running, upstream: Upstream
) -> None:
    server = upstream(202)
    call(gateway)
    headers = server.seen[0].headers
    assert not {"authorization", "cookie", "x-own", "x-forwarded-for"} & set(headers)
    assert not any(KEYS["mel"] in value for value in headers.values())


def test_a_header_that_the_server_lists_goes_on_unless_it_holds_the_key(
    gateway: Running, upstream: Upstream, write: Write
) -> None:
    server = upstream(202)
    with write() as session:
        make_server(
            session,
            "listing",
            url=server.url(),
            allow_all_keys=True,
            extra_headers=["X-Own", "X-Other", "X-API-Key", "Cookie"],
        )
    sent = {"x_own": "mine", "x_other": f"again {KEYS['mel']}", "cookie": "a=b"}
    gateway.post("listing", "mel", "ping", x_api_key="another", **sent)
    headers = server.seen[0].headers
    assert headers["x-own"] == "mine"
    assert not {"x-other", "cookie", "x-api-key"} & set(headers)


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NOTE = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":1}}\n\n'


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


def test_a_stream_that_breaks_between_events_ends_with_a_result_that_says_so(
    gateway: Running, broken: Callable[[bytes], None]
) -> None:
    broken(EVENTS + chunk(NOTE))
    answer = call(gateway)
    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert len(data) == 2
    told = json.loads(data[-1])
    assert told["id"] == 1
    assert told["result"]["isError"]


def test_a_stream_that_breaks_within_an_event_ends_there(
    gateway: Running, broken: Callable[[bytes], None]
) -> None:
    broken(EVENTS + chunk(NOTE) + chunk(b'data: {"jsonrpc":"2.0","id":1,"res'))
    answer = call(gateway)
    assert answer.text.count("data: ") == 2
    assert answer.text.endswith('"res')


def test_a_body_that_breaks_stays_incomplete_for_the_client(
    gateway: Running, broken: Callable[[bytes], None]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    broken(head + b'{"jsonrpc":"2.0",')
    with pytest.raises(httpx2.RemoteProtocolError):
        call(gateway)
