"""The guarded client reaches only what the policy allows, and takes only so much (spec/security.md,
2.8)."""

import asyncio
import gzip
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import pytest

from portal.domain.upstream import OutboundPolicy
from portal.upstream.bodies import BodyLimits, ResponseTooLarge
from portal.upstream.checks import BadAddress, InvalidHeader, checked_url
from portal.upstream.guard import (
    Blocked,
    GuardedBackend,
    GuardedTransport,
    NameNotFound,
    RedirectRefused,
    causes_of,
    guarded_client,
    shared_ssl_context,
)
from tests.support.upstream.certificates import self_signed, serving
from tests.support.upstream.raw import RawServer, Seen, always, raw_server, reply

HERE = OutboundPolicy(("127.0.0.0/8", "::1/128"))


def fetch(policy: OutboundPolicy, url: str, method: str = "GET", **options: Any) -> httpx2.Response:
    async def go() -> httpx2.Response:
        async with guarded_client(policy, **{"timeout": 5, **options}) as http:
            return await http.request(method, url)

    return asyncio.run(go())


def refused(policy: OutboundPolicy, url: str) -> list[type[BaseException]]:
    with pytest.raises(httpx2.ConnectError) as caught:
        fetch(policy, url)
    return [type(cause) for cause in causes_of(caught.value)]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make every name stand for the given addresses, one list for each question: DNS is not ours to
    have."""

    def stand_for(*answers: list[str]) -> list[str]:
        asked: list[str] = []

        async def getaddrinfo(_loop: object, host: str, port: int, **_options: object) -> list[Any]:
            found = answers[min(len(asked), len(answers) - 1)]
            asked.append(host)
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found
            ]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
        return asked

    return stand_for


def test_httpx2_still_opens_its_connections_through_our_backend() -> None:
    """We set a private attribute of httpx2: when a release moves it, this fails before anything is
    sent."""
    pool = GuardedTransport(HERE, limits=BodyLimits(), timeout=5, witness=None)._inner._pool
    assert isinstance(pool, httpcore2.AsyncConnectionPool)
    assert isinstance(pool._network_backend, GuardedBackend)
    with raw_server(always(200)) as server:
        assert Blocked in refused(OutboundPolicy(), server.url())
        assert server.connections == 0
        assert fetch(HERE, server.url()).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "[::1]"],
)
def test_no_spelling_of_this_machine_gets_through(host: str) -> None:
    with raw_server(always(200)) as server:
        assert Blocked in refused(OutboundPolicy(), server.url(host=host))
        assert server.connections == 0


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]"]
)
def test_metadata_is_refused_even_where_private_ranges_are_open(host: str) -> None:
    assert Blocked in refused(OutboundPolicy(allow_private=True), f"http://{host}/latest/meta-data")


def test_one_forbidden_address_among_several_refuses_the_name(
    resolver: Callable[..., list[str]],
) -> None:
    with raw_server(always(200)) as server:
        resolver(["127.0.0.1", "10.0.0.1"])
        assert Blocked in refused(HERE, server.url(host="two.example"))
        assert server.connections == 0


def test_a_name_is_resolved_once_and_the_judged_address_is_used(
    resolver: Callable[..., list[str]],
) -> None:
    """DNS rebinding: the second answer would lead elsewhere, but is never asked for."""
    with raw_server(always(200)) as server:
        asked = resolver(["127.0.0.1"], ["10.0.0.1"])
        assert fetch(HERE, server.url(host="moving.example")).status_code == 200
        assert asked == ["moving.example"]
        assert server.seen[0].headers["host"] == f"moving.example:{server.port}"


def test_the_next_address_is_tried_when_one_is_dead(resolver: Callable[..., list[str]]) -> None:
    with raw_server(always(200)) as server:
        resolver(["127.0.0.9", "127.0.0.1"])
        assert fetch(HERE, server.url(host="two.example")).status_code == 200


def test_a_name_without_an_address_is_told_apart() -> None:
    assert NameNotFound in refused(HERE, "http://nothing.invalid/")


def test_a_redirect_to_metadata_is_not_followed() -> None:
    with (
        raw_server(always(302, Location="http://169.254.169.254/latest")) as server,
        pytest.raises(RedirectRefused),
    ):
        fetch(OutboundPolicy(allow_private=True), server.url())


def test_a_redirect_to_another_origin_is_not_followed_and_gets_no_credentials() -> None:
    with raw_server(always(200)) as other, raw_server(always(307, Location=other.url())) as server:
        with pytest.raises(RedirectRefused):
            fetch(HERE, server.url(), headers={"Authorization": "Bearer SECRET"})
        assert other.connections == 0


@pytest.mark.parametrize(
    "location", ["http://user:pw@{here}/x", "https://{here}/x", "http://[bad/x"]
)
def test_odd_redirects_are_refused(location: str) -> None:
    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        connection.sendall(reply(302, Location=location.format(here=f"127.0.0.1:{server.port}")))

    with raw_server(handle) as server, pytest.raises(RedirectRefused):
        fetch(HERE, server.url())


def test_a_redirect_may_not_turn_a_post_into_a_get() -> None:
    with raw_server(always(302, Location="/other")) as server, pytest.raises(RedirectRefused):
        fetch(HERE, server.url(), "POST")


def test_redirects_within_the_origin_are_followed_three_times() -> None:
    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        left = int(request.path[1:])
        connection.sendall(reply(307, Location=f"/{left - 1}") if left else reply(200, b"here"))

    with raw_server(handle) as server:
        assert fetch(HERE, server.url("/3"), "POST").text == "here"
        with pytest.raises(httpx2.TooManyRedirects):
            fetch(HERE, server.url("/4"), "POST")


def _flood(connection: socket.socket, request: Seen, server: RawServer) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000000\r\n\r\n"
    )
    while not server.stop.is_set():
        connection.sendall(b"x" * 65536)


def test_a_gigabyte_is_cut_off_at_the_cap() -> None:
    with raw_server(_flood) as server, pytest.raises(ResponseTooLarge):
        fetch(HERE, server.url(), max_bytes=1_000_000)


def test_a_streamed_flood_is_cut_off_too() -> None:
    async def read() -> int:
        taken = 0
        async with (
            guarded_client(HERE, max_bytes=1_000_000) as http,
            http.stream("GET", server.url()) as response,
        ):
            async for chunk in response.aiter_bytes():
                taken += len(chunk)
                assert taken <= 1_000_000
        return taken

    with raw_server(_flood) as server, pytest.raises(ResponseTooLarge):
        asyncio.run(read())


def test_a_zip_bomb_is_counted_after_decompression() -> None:
    bomb = gzip.compress(bytes(100_000_000), 1)
    with raw_server(always(200, bomb, "application/json", Content_Encoding="gzip")) as server:
        tracemalloc.start()
        with pytest.raises(ResponseTooLarge):
            fetch(HERE, server.url(), max_bytes=2_000_000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20_000_000


def test_a_compressed_body_within_the_cap_arrives() -> None:
    body = gzip.compress(b'{"fine": true}')
    with raw_server(always(200, body, "application/json", Content_Encoding="gzip")) as server:
        assert fetch(HERE, server.url()).json() == {"fine": True}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Key", "a\r\nX-Evil: 1"),
        ("X-Key", "a\nb"),
        ("X-Key", "a\0b"),
        ("X-Key", "→"),
        ("X-Key", "\ud800"),
        ("X-Key\r\nX-Evil", "1"),
        ("X Key", "1"),
        ("", "1"),
        ("Überschrift", "1"),
        ("Transfer-Encoding", "chunked"),
        ("content-length", "0"),
        ("Host", "elsewhere.example"),
        ("Proxy-Authorization", "Basic SECRET"),
    ],
)
def test_a_header_that_would_break_the_message_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        guarded_client(HERE, headers={name: value})
    assert not value or value not in str(caught.value)


def test_good_headers_arrive_as_they_are() -> None:
    with raw_server(always(200)) as server:
        fetch(HERE, server.url(), headers={"X-Key": "wörd, two", "user-agent": "mine"})
    assert server.seen[0].headers["x-key"] == "wörd, two"
    assert server.seen[0].headers["user-agent"] == "mine"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "unix:///var/run/x",
        "//example.com/",
        "http:///path",
        "http://user@example.com/",
        "http://user:pw@example.com/",
        "http://evil.example\\@127.0.0.1/",
        "http://exa mple.com/",
        "http://example.com/\r\nX: 1",
        "http://example.com/\x00",
        "http://[bad/",
        "http://0177.0.0.1/",
        "http://example.com:99999/",
        "http://example.com:abc/",
        "",
        f"http://example.com/{'x' * 3000}",
    ],
)
def test_an_address_that_is_not_plain_http_is_refused(url: str) -> None:
    with pytest.raises(BadAddress):
        checked_url(url)


def test_user_info_is_refused_at_the_last_door_too() -> None:
    with raw_server(always(200)) as server:
        with pytest.raises(BadAddress):
            fetch(HERE, server.url(host="user:pw@127.0.0.1"))
        assert server.connections == 0


def test_proxy_variables_of_the_environment_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(always(418)) as proxy, raw_server(always(200)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url("/"))
        assert fetch(HERE, server.url()).status_code == 200
        assert proxy.connections == 0


@pytest.fixture
def fresh_tls() -> Iterator[None]:
    shared_ssl_context.cache_clear()
    yield
    shared_ssl_context.cache_clear()


@pytest.mark.usefixtures("fresh_tls")
def test_tls_is_checked_against_the_name_and_the_operators_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = self_signed(tmp_path, "localhost")
    with raw_server(always(200), tls=serving(pem)) as server:
        with pytest.raises(httpx2.ConnectError, match="self-signed"):
            fetch(HERE, server.url(scheme="https", host="localhost"))
        shared_ssl_context.cache_clear()
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert fetch(HERE, server.url(scheme="https", host="localhost")).status_code == 200
        with pytest.raises(httpx2.ConnectError, match="IP address mismatch"):
            fetch(HERE, server.url(scheme="https"))


def test_the_tls_context_is_made_once() -> None:
    assert shared_ssl_context() is shared_ssl_context()
