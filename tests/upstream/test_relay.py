"""What the gateway passes on reaches only what the policy allows, with our headers and none of the
caller's."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from portal.domain.upstream import HealthReason, OutboundPolicy, Target
from portal.upstream.faults import Fault
from portal.upstream.relay import Relay
from tests.support.upstream.raw import always, raw_server, reply

HERE = OutboundPolicy(("127.0.0.0/8", "::1/128"))


def ask(
    policy: OutboundPolicy,
    url: str,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> tuple[int, bytes]:
    async def asking() -> tuple[int, bytes]:
        relay = Relay(policy)
        target = Target("http", url=url, **{"timeout": 5.0, **fields})
        try:
            async with relay.asking(target, method, headers or {}, b"{}") as answer:
                return answer.head.status, await answer.read(1_000_000, 5.0)
        finally:
            await relay.aclose()

    return asyncio.run(asking())


def refused(policy: OutboundPolicy, url: str, **options: Any) -> HealthReason:
    with pytest.raises(Fault) as caught:
        ask(policy, url, **options)
    return caught.value.reason


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"]
)
def test_no_spelling_of_an_address_leads_past_the_policy(host: str) -> None:
    with raw_server(always(200)) as server:
        assert refused(OutboundPolicy(), server.url(host=host)) is HealthReason.BLOCKED
        assert server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_the_policy_allows_is_reached(host: str) -> None:
    with raw_server(always(200)) as server:
        assert ask(HERE, server.url(host=host))[0] == 200


def test_an_address_is_judged_where_its_socket_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp asks no resolver about a host that is an address: this guard alone stands there."""
    monkeypatch.setattr("portal.upstream.relay._Resolver.resolve", None)
    with raw_server(always(200)) as server:
        assert refused(OutboundPolicy(), server.url()) is HealthReason.BLOCKED
        assert server.connections == 0


def test_a_name_is_refused_where_one_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(_loop: object, _host: str, port: int, **_options: object) -> list[Any]:
        found = ("127.0.0.1", "10.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    with raw_server(always(200)) as server:
        assert refused(HERE, server.url(host="two.example")) is HealthReason.BLOCKED
        assert server.connections == 0


def test_a_redirect_is_followed_within_the_origin_alone() -> None:
    with raw_server(always(200)) as other:

        def answer(connection: Any, request: Any, server: Any) -> None:
            there = {
                "/mcp": "/mcp/",
                "/away": other.url(),
                "/lost": f"http://user@127.0.0.1:{server.port}/",
                "/get": "/mcp/",
            }.get(request.path)
            status = 302 if request.path == "/get" else 307
            connection.sendall(reply(status, Location=there) if there else reply(200, b"here"))

        with raw_server(answer) as server:
            assert ask(HERE, server.url("/mcp")) == (200, b"here")
            assert [seen.method for seen in server.seen] == ["POST", "POST"]
            for path in ("/away", "/lost", "/get"):
                assert refused(HERE, server.url(path)) is HealthReason.HTTP_STATUS
        assert other.connections == 0


def test_the_targets_headers_go_before_those_of_the_request() -> None:
    with raw_server(always(200)) as server:
        sent = {"Authorization": "Bearer callers", "X-One": "1"}
        with_own = Target("http", url=server.url(), headers={"authorization": "Bearer ours"})

        async def asking() -> None:
            relay = Relay(HERE)
            async with relay.asking(with_own, "POST", sent, b"{}"):
                pass
            await relay.aclose()

        asyncio.run(asking())
    assert server.seen[-1].headers["authorization"] == "Bearer ours"
    assert server.seen[-1].headers["x-one"] == "1"
    assert server.seen[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("url", ["http://u:p@127.0.0.1/", "file:///etc/passwd", "http://a\\@b/"])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    assert refused(HERE, url) is HealthReason.BLOCKED


def test_a_body_that_is_cut_or_encoded_is_a_fault() -> None:
    with raw_server(
        lambda connection, _request, _server: (
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
            connection.shutdown(socket.SHUT_RDWR),
        )
    ) as server:
        assert refused(HERE, server.url()) is HealthReason.REFUSED
    with raw_server(always(200, b"x", Content_Encoding="gzip")) as server:
        assert refused(HERE, server.url()) is HealthReason.NOT_MCP
