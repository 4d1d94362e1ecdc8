"""Probing: healthy, unhealthy or unknown, with a precise reason and a message that gives nothing
away (HLT-06).

FET-09 asks that a probe that fails is an answer, never an exception; the health words of
spec/1-system.md decide that a server which was tried and failed is `unhealthy`.
"""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from portal.domain.upstream import HealthStatus, OutboundPolicy, ProbeResult, Target
from portal.upstream.mcp_client import UpstreamClient
from tests.support.peers import free_port
from tests.support.upstream.certificates import self_signed, serving
from tests.support.upstream.raw import (
    PROMPT,
    RawServer,
    Seen,
    always,
    hang,
    older,
    raw_server,
    reply,
    speaking,
    tool_page,
)


def http(url: str, **more: Any) -> Target:
    return Target("http", url, **more)


def told(result: ProbeResult) -> tuple[str, str, str]:
    return result.status, result.reason, result.message


@pytest.mark.parametrize(
    ("fixture", "transport", "version", "name"),
    [
        ("echo_server", "http", "2026-07-28", "echo"),
        ("echo_sse", "sse", "2026-07-28", "echo"),
        ("everything_server", "http", "2025-11-25", "mcp-servers/everything"),
        ("everything_sse", "sse", "2025-11-25", "mcp-servers/everything"),
    ],
)
def test_servers_of_both_generations_are_healthy(
    fixture: str,
    transport: Any,
    version: str,
    name: str,
    client: UpstreamClient,
    request: pytest.FixtureRequest,
) -> None:
    result = client.probe(Target(transport, request.getfixturevalue(fixture)), with_tools=True)
    assert told(result) == ("healthy", "ok", f"127.0.0.1 responded with MCP {version}.")
    assert (result.protocol_version, result.server_name) == (version, name)
    assert result.server_version
    assert result.tools
    assert result.latency_ms >= 0
    assert not result.challenge


def test_tools_are_not_asked_for_unless_wanted(client: UpstreamClient) -> None:
    with raw_server(speaking(lambda method, params: tool_page("one"))) as server:
        result = client.probe(http(server.url()))
        assert (result.status, result.tools) == (HealthStatus.HEALTHY, None)
        assert server.methods() == ["server/discover"]


def test_a_server_that_does_not_list_its_tools_is_healthy_all_the_same(
    client: UpstreamClient,
) -> None:
    with raw_server(
        speaking(lambda method, params: {"error": {"code": -32603, "message": "SECRET"}})
    ) as server:
        result = client.probe(http(server.url()), with_tools=True)
    assert (result.status, result.tools) == (HealthStatus.HEALTHY, None)


@pytest.mark.parametrize("fixture", ["locked_echo", "locked_sse"])
def test_a_401_asks_for_sign_in(
    fixture: str, client: UpstreamClient, request: pytest.FixtureRequest
) -> None:
    target = Target("sse" if fixture == "locked_sse" else "http", request.getfixturevalue(fixture))
    result = client.probe(target)
    assert told(result) == (
        "unknown",
        "sign_in_needed",
        "127.0.0.1 requires sign-in (HTTP 401, Bearer).",
    )
    assert result.challenge


@pytest.mark.parametrize("fixture", ["locked_echo", "locked_sse"])
def test_the_headers_of_the_target_open_it(
    fixture: str, client: UpstreamClient, request: pytest.FixtureRequest
) -> None:
    transport: Any = "sse" if fixture == "locked_sse" else "http"
    target = Target(
        transport, request.getfixturevalue(fixture), headers={"Authorization": "Bearer SECRET"}
    )
    assert client.probe(target).status == HealthStatus.HEALTHY


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            always(401),
            ("unknown", "sign_in_needed", "127.0.0.1 requires sign-in (HTTP 401)."),
        ),
        (
            always(403, WWW_Authenticate="Bearer error=insufficient_scope"),
            ("unknown", "sign_in_needed", "127.0.0.1 requires sign-in (HTTP 403, Bearer)."),
        ),
        (always(403, b"SECRET"), ("unhealthy", "http_status", "127.0.0.1 returned HTTP 403.")),
        (always(429, b"SECRET"), ("unhealthy", "http_status", "127.0.0.1 returned HTTP 429.")),
        (always(503, b"SECRET"), ("unhealthy", "http_status", "127.0.0.1 returned HTTP 503.")),
        (
            always(404, b"<h1>SECRET</h1>", "text/html; charset=SECRET"),
            (
                "unhealthy",
                "not_mcp",
                "127.0.0.1 did not return a valid MCP response (HTTP 404, text/html).",
            ),
        ),
        (
            always(200, b"<h1>SECRET</h1>"),
            (
                "unhealthy",
                "not_mcp",
                "127.0.0.1 did not return a valid MCP response (HTTP 200, text/html).",
            ),
        ),
        (
            always(200, b'{"SECRET": 1}', "application/json"),
            (
                "unhealthy",
                "not_mcp",
                "127.0.0.1 did not return a valid MCP response (HTTP 200, application/json).",
            ),
        ),
        (
            always(200, b"{not json", "application/json"),
            (
                "unhealthy",
                "not_mcp",
                "127.0.0.1 did not return a valid MCP response (HTTP 200, application/json).",
            ),
        ),
        (
            always(200, b"[" * 100_000, "application/json"),
            (
                "unhealthy",
                "not_mcp",
                "127.0.0.1 did not return a valid MCP response (HTTP 200, application/json).",
            ),
        ),
        (
            always(200, b"data: SECRET\n\n", "text/event-stream"),
            (
                "unhealthy",
                "not_mcp",
                "127.0.0.1 did not return a valid MCP response (HTTP 200, text/event-stream).",
            ),
        ),
        (
            always(302, Location="http://169.254.169.254/SECRET"),
            (
                "unhealthy",
                "http_status",
                "127.0.0.1 redirects to another address, which is not allowed.",
            ),
        ),
        (
            always(307, Location="/mcp"),
            (
                "unhealthy",
                "http_status",
                "127.0.0.1 returned too many or invalid redirects (HTTP 307).",
            ),
        ),
        (
            lambda connection, request, server: connection.sendall(b"SSH-2.0-SECRET\r\n\r\n"),
            ("unhealthy", "not_mcp", "127.0.0.1 did not return an HTTP response on port {port}."),
        ),
        (
            lambda connection, request, server: connection.shutdown(socket.SHUT_RDWR),
            ("unhealthy", "not_mcp", "127.0.0.1 did not return an HTTP response on port {port}."),
        ),
        (
            always(200, b"not gzip", "application/json", Content_Encoding="gzip"),
            (
                "unhealthy",
                "not_mcp",
                (
                    "127.0.0.1 sent a body that cannot be decoded: it is not valid gzip. The server"
                    " must send valid gzip, or no Content-Encoding."
                ),
            ),
        ),
    ],
)
def test_an_answer_that_is_no_mcp_is_named(
    answer: Any, expected: tuple[str, str, str], client: UpstreamClient
) -> None:
    with raw_server(answer) as server:
        result = client.probe(http(server.url("/SECRET?key=SECRET")))
    status, reason, message = expected
    assert told(result) == (status, reason, message.format(port=server.port))


def test_an_sse_address_that_streams_nothing_is_named(client: UpstreamClient) -> None:
    with raw_server(always(200, b"<h1>hello</h1>")) as server:
        result = client.probe(Target("sse", server.url()))
    assert told(result) == (
        "unhealthy",
        "not_mcp",
        "127.0.0.1 did not return an MCP event stream (HTTP 200, text/html).",
    )


def test_a_refused_post_ends_an_sse_conversation_at_once(client: UpstreamClient) -> None:
    """The SDK swallows that refusal and would wait for the whole time limit."""

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        if request.method == "POST":
            connection.sendall(reply(401, WWW_Authenticate="Bearer"))
            return
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: endpoint\ndata:"
            b" /post\n\n"
        )
        server.stop.wait(60)

    with raw_server(handle) as server:
        began = time.monotonic()
        result = client.probe(Target("sse", server.url(), timeout=60), timeout=60)
    assert result.reason == "sign_in_needed"
    assert time.monotonic() - began < PROMPT


def test_a_closed_port_is_refused(client: UpstreamClient) -> None:
    port = free_port()
    result = client.probe(http(f"http://127.0.0.1:{port}/mcp"))
    assert told(result) == (
        "unhealthy",
        "refused",
        f"127.0.0.1 refused the connection on port {port}.",
    )


def test_an_unknown_name_is_told(client: UpstreamClient) -> None:
    result = client.probe(http("http://mcp.invalid/mcp"))
    assert told(result) == ("unhealthy", "dns", "The host mcp.invalid was not found.")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://user:SECRET@127.0.0.1/", "http://[bad", "http://a b/", ""]
)
def test_an_address_that_is_none_is_an_answer_too(url: str, client: UpstreamClient) -> None:
    result = client.probe(http(url))
    assert result.status == HealthStatus.UNHEALTHY
    assert "SECRET" not in result.message


def test_a_forbidden_address_is_blocked_without_a_connection() -> None:
    with raw_server(always(200)) as server:
        result = UpstreamClient(OutboundPolicy()).probe(http(server.url()))
        assert server.connections == 0
    assert told(result) == (
        "unhealthy",
        "blocked",
        "The IP address of 127.0.0.1 is not allowed by the outbound policy.",
    )


def test_a_certificate_that_nobody_trusts_is_told(client: UpstreamClient, tmp_path: Path) -> None:
    with raw_server(always(200), tls=serving(self_signed(tmp_path, "localhost"))) as server:
        result = client.probe(http(server.url(scheme="https", host="localhost")))
    expected = "TLS: the certificate of localhost is not valid (self-signed certificate)."
    assert told(result) == ("unhealthy", "tls", expected)


def test_plain_http_on_the_tls_port_is_told(client: UpstreamClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        result = client.probe(http(f"https://127.0.0.1:{port}/mcp"))
    expected = (
        f"TLS: 127.0.0.1 and the portal could not establish a secure connection on port {port}."
    )
    assert told(result) == ("unhealthy", "tls", expected)


def drip(connection: socket.socket, request: Seen, server: RawServer) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    )
    while not server.stop.wait(0.05):
        connection.sendall(b" ")


def endless_events(connection: socket.socket, request: Seen, server: RawServer) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    while not server.stop.wait(0.02):
        connection.sendall(b": still here\n\n")


@pytest.mark.parametrize("handler", [hang, drip, endless_events])
def test_whoever_hangs_or_drips_is_left_after_the_time_limit(
    handler: Any, client: UpstreamClient
) -> None:
    with raw_server(handler) as server:
        began = time.monotonic()
        result = client.probe(http(server.url(), timeout=0.5))
        took = time.monotonic() - began
    assert told(result) == ("unhealthy", "timeout", "127.0.0.1 did not respond within 0.5 s.")
    assert 0.4 < took < PROMPT


def test_a_flood_is_cut_off(client: UpstreamClient) -> None:
    def flood(connection: socket.socket, request: Seen, server: RawServer) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:"
            b" 1000000000\r\n\r\n"
        )
        while not server.stop.is_set():
            connection.sendall(b" " * 1_000_000)

    with raw_server(flood) as server:
        result = client.probe(http(server.url()))
    said = "127.0.0.1 sent too much: the limit is 10 MiB. The server must send less."
    assert told(result) == ("unhealthy", "not_mcp", said)


def test_the_session_of_an_older_server_is_ended(client: UpstreamClient) -> None:
    with raw_server(older()) as server:
        result = client.probe(http(server.url()))
    assert result.protocol_version == "2025-11-25"
    assert [seen.headers["mcp-session-id"] for seen in server.seen if seen.method == "DELETE"] == [
        "s-1"
    ]


def test_the_stream_that_an_older_server_need_not_offer_is_no_matter(
    client: UpstreamClient,
) -> None:
    with raw_server(older(GET=always(401))) as server:
        assert client.probe(http(server.url()), with_tools=True).tools == ()


def test_what_a_server_calls_itself_is_made_harmless(client: UpstreamClient) -> None:
    with raw_server(older()) as server:
        result = client.probe(http(server.url()))
    assert result.server_name == "old[31m"
    assert result.server_version == "9" * 200


def test_a_server_that_will_not_end_its_session_is_healthy_and_costs_a_second(
    client: UpstreamClient,
) -> None:
    with raw_server(older(DELETE=hang)) as server:
        began = time.monotonic()
        result = client.probe(http(server.url(), timeout=60), timeout=60)
        took = time.monotonic() - began
    assert result.status == HealthStatus.HEALTHY
    assert took < PROMPT
    assert result.latency_ms < (took - 0.9) * 1000, "the second is not the server's latency"


def test_a_version_from_the_future_is_told(client: UpstreamClient) -> None:
    error = {
        "error": {
            "code": -32022,
            "message": "no",
            "data": {"supported": ["2099-01-01"], "requested": "x"},
        }
    }

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": request.json["id"], **error}).encode()
        connection.sendall(reply(400, body, "application/json"))

    with raw_server(handle) as server:
        result = client.probe(http(server.url()))
    assert told(result) == (
        "unhealthy",
        "not_mcp",
        "127.0.0.1 does not support an MCP version of the portal.",
    )


def test_a_header_that_cannot_be_sent_is_an_answer(client: UpstreamClient) -> None:
    for transport in ("http", "sse"):
        result = client.probe(
            Target(transport, "http://127.0.0.1:1/", headers={"X-Key": "SECRET\r\nX: 1"})
        )
        assert result.reason == "blocked"
        assert "SECRET" not in result.message
