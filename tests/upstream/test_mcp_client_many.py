"""Many upstreams side by side: bounded, in order, and one that hangs holds up nobody else."""

import socket
import threading
import time

from portal.domain.errors import UpstreamFailure, UpstreamTimeout
from portal.domain.upstream import Target
from portal.upstream.mcp_client import UpstreamClient
from tests.support.upstream.raw import (
    PROMPT,
    RawServer,
    Seen,
    hang,
    raw_server,
    speaking,
    tool_page,
)

ANSWERING = speaking(lambda method, params: tool_page("one"))


def test_a_hanging_server_does_not_delay_the_others(client: UpstreamClient) -> None:
    """The first one answers only when twenty others have been answered."""
    others_done = threading.Semaphore(0)

    def answer(connection: socket.socket, request: Seen, server: RawServer) -> None:
        ANSWERING(connection, request, server)
        others_done.release()

    def wait(connection: socket.socket, request: Seen, server: RawServer) -> None:
        assert all(others_done.acquire(timeout=PROMPT) for _ in range(20))
        ANSWERING(connection, request, server)

    with raw_server(wait) as waiting, raw_server(hang) as hanging, raw_server(answer) as server:
        first = Target("http", waiting.url(), timeout=60)
        last = Target("http", hanging.url(), timeout=0.5)
        targets = [first, *[Target("http", server.url(), timeout=60)] * 20, last]
        results = client.probe_many(targets, deadline=60, concurrency=4)
    assert [result.reason for result in results] == [*["ok"] * 21, "timeout"]


def test_no_more_than_the_given_number_run_at_once(client: UpstreamClient) -> None:
    running = 0
    most = 0
    lock = threading.Lock()

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        server.stop.wait(0.05)
        with lock:
            running -= 1
        ANSWERING(connection, request, server)

    with raw_server(handle) as server:
        results = client.probe_many([Target("http", server.url())] * 9, deadline=10, concurrency=3)
    assert {result.reason for result in results} == {"ok"}
    assert most == 3


def test_the_deadline_holds_and_who_had_no_turn_is_unknown(client: UpstreamClient) -> None:
    with raw_server(hang) as server:
        began = time.monotonic()
        targets = [Target("http", server.url(), timeout=60)] * 3
        results = client.probe_many(targets, deadline=0.5, concurrency=1)
        took = time.monotonic() - began
    assert [(result.status, result.reason) for result in results] == [
        ("unhealthy", "timeout"),
        ("unknown", "never_checked"),
        ("unknown", "never_checked"),
    ]
    assert took < PROMPT


def test_nothing_to_do_is_done_at_once(client: UpstreamClient) -> None:
    assert client.probe_many([], deadline=1) == []
    assert client.list_tools_many([], deadline=1) == []


def test_tool_lists_and_failures_stand_in_the_order_of_the_targets(client: UpstreamClient) -> None:
    with raw_server(hang) as hanging, raw_server(ANSWERING) as server:
        targets = [
            Target("http", hanging.url(), timeout=0.3),
            Target("http", server.url()),
            Target("http", "http://127.0.0.1:1/mcp"),
        ]
        late, tools, refused = client.list_tools_many(targets, deadline=5)
    assert isinstance(late, UpstreamTimeout)
    assert not isinstance(tools, UpstreamFailure)
    assert [tool.name for tool in tools] == ["one"]
    assert isinstance(refused, UpstreamFailure)
    assert refused.reason == "refused"


def test_threads_share_one_client(client: UpstreamClient) -> None:
    reasons: list[str] = []
    with raw_server(ANSWERING) as server:
        target = Target("http", server.url())
        threads = [
            threading.Thread(target=lambda: reasons.append(client.probe(target).reason))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert reasons == ["ok"] * 8
