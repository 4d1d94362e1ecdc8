"""A gateway that stops ends what does not end by itself, with words that a client understands."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from tests.conftest import Write
from tests.gateway.conftest import Running
from tests.support.factories import make_server
from tests.support.peers import TRUST
from tests.support.upstream.held import FIRST, held
from tests.support.upstream.raw import Handler, RawServer, hang, raw_server

Upstream = Callable[[Handler], RawServer]
SOON = 0.2
CALL = {"name": "any"}
SAID = "The portal restarted before the server responded."


@pytest.fixture
def upstream(write: Write) -> Iterator[Upstream]:
    """`upstream(hang)` makes a server `odd` that answers so."""
    with ExitStack() as stack:

        def answering(handler: Handler) -> RawServer:
            server = stack.enter_context(raw_server(handler))
            with write() as session:
                make_server(session, "odd", url=server.url(), allow_all_keys=True)
            return server

        yield answering


def hanging(asked: threading.Event) -> Handler:
    def answer(connection: Any, request: Any, server: RawServer) -> None:
        asked.set()
        hang(connection, request, server)

    return answer


@pytest.mark.parametrize(
    ("rpc", "said"),
    [
        (
            "tools/call",
            lambda told: told["result"]["isError"] and told["result"]["content"][0]["text"],
        ),
        ("tools/list", lambda told: told["error"]["message"]),
    ],
)
def test_a_request_without_an_answer_is_told_why(
    gateway: Running, upstream: Upstream, rpc: str, said: Callable[[Any], str]
) -> None:
    asked = threading.Event()
    upstream(hanging(asked))
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(gateway.post, "odd", "mel", rpc, CALL)
        assert asked.wait(20)
        gateway.stop(SOON)
        answer = calling.result(20)
    assert answer.status_code == 200
    assert answer.json()["id"] == 1
    assert SAID in said(answer.json())


def test_a_notification_is_told_to_come_again(gateway: Running, upstream: Upstream) -> None:
    asked = threading.Event()
    upstream(hanging(asked))
    message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(gateway.ask, "POST", "/odd/mcp", "mel", json=message)
        assert asked.wait(20)
        gateway.stop(SOON)
        answer = sending.result(20)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def streamed(gateway: Running, method: str, **options: Any) -> bytes:
    """What comes of a stream after its first event, when the gateway stops."""
    headers = gateway.headers("mel")
    with httpx2.stream(
        method, gateway.at("odd"), headers=headers, timeout=30, verify=TRUST, **options
    ) as answer:
        pieces = answer.iter_bytes()
        first = next(pieces)
        gateway.stop(SOON if method == "POST" else 60)
        return (first + b"".join(pieces)).removeprefix(FIRST)


def test_the_events_of_a_call_end_with_a_result(gateway: Running, upstream: Upstream) -> None:
    upstream(held(threading.Event()))
    message = {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": CALL}
    rest = streamed(gateway, "POST", json=message)
    assert rest.startswith(b"event: message\ndata: ")
    assert rest.endswith(b"\n\n")
    told = json.loads(rest.removeprefix(b"event: message\ndata: "))
    assert told["id"] == "a"
    assert SAID in told["result"]["content"][0]["text"]


def test_half_an_event_gets_no_second_half(gateway: Running, upstream: Upstream) -> None:
    upstream(held(threading.Event(), first=b"data: {"))
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}
    assert streamed(gateway, "POST", json=message) == b"data: {"


def test_streams_that_stay_open_end_at_once(gateway: Running, upstream: Upstream) -> None:
    upstream(held(threading.Event()))
    assert streamed(gateway, "GET") == b""


def test_subscriptions_end_at_once(gateway: Running, upstream: Upstream) -> None:
    upstream(held(threading.Event()))
    message = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": {}}
    with httpx2.stream(
        "POST",
        gateway.at("odd"),
        headers=gateway.headers("mel"),
        json=message,
        timeout=30,
        verify=TRUST,
    ) as answer:
        pieces = answer.iter_bytes()
        assert next(pieces) == FIRST
        gateway.stop(60)
        assert b"The portal restarted" in b"".join(pieces)
