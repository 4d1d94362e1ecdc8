"""Whatever comes as the body of an answer is refused with a reason, on every way that it is fetched
on."""

import asyncio
import gzip
import os
import re
import socket
import statistics
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from portal.domain.errors import UpstreamFailure
from portal.domain.upstream import HealthReason, Target
from portal.upstream import bodies
from portal.upstream.bodies import (
    AnswerRefused,
    BadEncoding,
    ResponseTooLarge,
    Unfinished,
    in_words,
)
from portal.upstream.guard import guarded_client
from portal.upstream.mcp_client import UpstreamClient
from tests.support.upstream import fetchers
from tests.support.upstream.fetchers import FETCHERS, HERE, TIMEOUT, Fetcher
from tests.support.upstream.raw import (
    PROMPT,
    Handler,
    RawServer,
    Seen,
    raw_server,
    reply,
    speaking,
    tool_page,
)

SOUND = b'{"a": 1}'
PACKED = gzip.compress(SOUND, mtime=0)
MEGABYTE = 1024 * 1024
ZEROS = gzip.compress(bytes(12 * MEGABYTE), mtime=0)
# Each line is new in part, so that it packs to a twentieth: less than any limit on the ratio, more
# than all on bytes.
_LINE = os.urandom(200).hex().encode()
LINES = gzip.compress(b"".join(b"%08d%s" % (n, _LINE) for n in range(30_000)), 1, mtime=0)
STACKED = gzip.compress(gzip.compress(bytes(8 * MEGABYTE)) + bytes(50 * MEGABYTE), mtime=0)
_BROTLI = b"\x0b\x02\x80hello\x03"
_ZSTD = bytes.fromhex("28b52ffd0405290000") + b"hello" + bytes.fromhex("4cf9a2c4")


def answering(body: bytes, *headers: tuple[str, str], length: str | None = "") -> Handler:
    """A handler with one answer to everything, of the media type that is asked for; `length` may be
    another one."""
    length = str(len(body)) if length == "" else length
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    lines += [] if length is None else [f"Content-Length: {length}\r\n"]

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{''.join(lines)}\r\n"
        connection.sendall(_kind(head.encode(), request) + body)
        if length != str(len(body)):
            connection.shutdown(socket.SHUT_RDWR)

    return handle


def encoded(body: bytes, *encodings: str) -> Handler:
    return answering(body, *(("Content-Encoding", encoding) for encoding in encodings))


def _kind(head: bytes, request: Seen) -> bytes:
    """A head of the media type that is asked for."""
    only_events = request.headers.get("accept") == "text/event-stream"
    return head.replace(b"application/json", b"text/event-stream") if only_events else head


def endless(first: bytes, more: bytes) -> Handler:
    """A handler that goes on until nobody listens any more."""

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        connection.sendall(_kind(first, request))
        while not server.stop.is_set():
            connection.sendall(more)

    return handle


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
TWICE = r"2 encodings, and the limit is 1"
AFTER = r"sent data after the end of its gzip stream"
NOT_ASKED = r"an unsupported Content-Encoding"
NOT_GZIP = r"not valid gzip"
BROKEN_OFF = r"its gzip stream is not complete"
TOO_MUCH = r"sent too much: the limit"
NOT_HTTP = r"did not return an HTTP response"
ATTACKS: dict[str, tuple[Handler, str]] = {
    "gzip in gzip": (encoded(gzip.compress(PACKED), "gzip, gzip"), TWICE),
    "gzip in gzip, in two headers": (encoded(gzip.compress(PACKED), "gzip", "gzip"), TWICE),
    "gzip in gzip with trailing bytes": (encoded(STACKED, "gzip, gzip"), TWICE),
    "gzip in gzip, oddly spelled": (
        encoded(gzip.compress(PACKED), "X-GZip ,, identity", ", GZIP,"),
        TWICE,
    ),
    "five times": (encoded(PACKED, "gzip, br, deflate, zstd, gzip"), "5 encodings"),
    "gzip with a trailing byte": (encoded(PACKED + b"x", "gzip"), AFTER),
    "gzip with trailing zeros": (encoded(PACKED + bytes(60_000), "gzip"), AFTER),
    "gzip with trailing gzip": (encoded(PACKED * 2, "gzip"), AFTER),
    "a thousand members": (encoded(PACKED * 1000, "x-gzip"), AFTER),
    "deflate": (encoded(zlib.compress(SOUND), "deflate"), NOT_ASKED),
    "raw deflate": (encoded(zlib.compress(SOUND)[2:-4], "deflate"), NOT_ASKED),
    "brotli": (encoded(_BROTLI, "br"), NOT_ASKED),
    "zstd": (encoded(_ZSTD, "zstd"), NOT_ASKED),
    "compress": (encoded(b"\x1f\x9d\x90", "compress"), NOT_ASKED),
    "unknown": (encoded(SOUND, "rot13"), NOT_ASKED),
    "gzip with a parameter": (encoded(PACKED, "gzip;q=1"), NOT_ASKED),
    "chunked as an encoding": (encoded(SOUND, "chunked"), NOT_ASKED),
    "not gzip": (encoded(SOUND, "gzip"), NOT_GZIP),
    "zlib called gzip": (encoded(zlib.compress(SOUND), "gzip"), NOT_GZIP),
    "gzip with a wrong sum": (encoded(PACKED[:-8] + bytes(8), "gzip"), NOT_GZIP),
    "broken-off gzip": (encoded(PACKED[:-1], "gzip"), BROKEN_OFF),
    "a gzip header alone": (encoded(PACKED[:10], "gzip"), BROKEN_OFF),
    "a bomb of 1000:1": (encoded(ZEROS, "gzip"), TOO_MUCH),
    "a bomb of 20:1": (encoded(LINES, "gzip"), f"{TOO_MUCH}|an event of more than 1 MiB"),
    "a gigabyte announced": (answering(b"{", length="1000000000"), TOO_MUCH),
    "a length of 5000 digits": (answering(b"{", length="9" * 5000), f"{TOO_MUCH}|{NOT_HTTP}"),
    "a gigabyte sent": (
        endless(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
        f"{TOO_MUCH}|an event of more than 1 MiB",
    ),
    "a negative length": (answering(SOUND, length="-5"), NOT_HTTP),
    "two lengths": (answering(SOUND, ("Content-Length", "3")), NOT_HTTP),
    "a length that is too long": (answering(SOUND, length="80"), NOT_HTTP),
    "transfer in gzip": (
        answering(PACKED, ("Transfer-Encoding", "gzip, chunked"), length=None),
        NOT_HTTP,
    ),
    "endless headers": (endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 1000), TOO_MUCH),
    "an endless header": (endless(b"HTTP/1.1 200 OK\r\nA: ", b"b" * 65536), TOO_MUCH),
    "201 headers": (
        answering(SOUND, *((f"A{n}", "b") for n in range(201))),
        r"the limit is 200 headers",
    ),
    "a flood of 1xx": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), TOO_MUCH),
    "UTF-16": (answering('{"a": 1}'.encode("utf-16")), ""),
    "UTF-7": (answering('{"a": "ü"}'.encode("utf-7")[:-3]), ""),
    "100,000 brackets": (answering(b"[" * 60_000), ""),
    "100,000 braces": (answering(b'{"a":' * 12_000), ""),
    "a number of a million digits": (answering(b'{"issuer": ' + b"9" * 60_000 + b"}"), ""),
    "endless numbers": (answering(b"[" + b"1e999999," * 6_000 + b"1]"), ""),
}


# A revocation's answer means nothing beyond its status, and a called service may answer any text.
_ANY_TEXT = ("revocation", "openapi_call", "public_url")
CASES = [
    (attack, fetcher)
    for attack, (_, expected) in ATTACKS.items()
    for fetcher in FETCHERS
    if expected or fetcher.__name__ not in _ANY_TEXT
]


@pytest.mark.parametrize(
    ("attack", "fetcher"), CASES, ids=[f"{attack}-{fetcher.__name__}" for attack, fetcher in CASES]
)
def test_a_hostile_answer_is_refused_with_its_reason_wherever_it_is_fetched(
    attack: str, fetcher: Fetcher
) -> None:
    handler, expected = ATTACKS[attack]
    began = time.monotonic()
    said = fetcher(handler, TIMEOUT)
    assert re.search(expected, said), said
    assert time.monotonic() - began < PROMPT


@pytest.mark.parametrize(
    ("encodings", "body"),
    [
        ((), SOUND),
        (("identity",), SOUND),
        (("", ","), SOUND),
        (("gzip",), PACKED),
        (("GZIP",), PACKED),
        (("x-gzip",), PACKED),
        ((" , gzip ,",), PACKED),
        (("identity", "gzip"), PACKED),
        (("gzip",), gzip.compress(SOUND, 0, mtime=0)),
    ],
)
def test_what_was_asked_for_is_read(encodings: tuple[str, ...], body: bytes) -> None:
    with raw_server(encoded(body, *encodings)) as server:
        answer = _get(server.url())
        assert answer.content == SOUND
        assert "content-encoding" not in answer.headers
        assert server.seen[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip"])
def test_no_body_needs_no_decoding(encoding: str) -> None:
    with raw_server(encoded(b"", encoding)) as server:
        assert _get(server.url()).content == b""


def test_gzip_that_comes_byte_by_byte_is_read() -> None:
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in PACKED) + b"0\r\n\r\n"
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    with raw_server(
        lambda connection, request, server: connection.sendall(head + pieces)
    ) as server:
        assert _get(server.url()).content == SOUND


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_000_000])
def test_a_body_up_to_its_limit_is_read_whole_and_one_byte_more_is_not(size: int) -> None:
    body = os.urandom(1000) * (size // 1000 + 1)
    for packed, encoding in ((body[:size], "identity"), (gzip.compress(body[:size], 1), "gzip")):
        limit = max(size, len(packed))
        with raw_server(encoded(packed, encoding)) as server:
            assert _get(server.url(), max_bytes=limit).content == body[:size]
            if size:
                with pytest.raises(ResponseTooLarge):
                    _get(server.url(), max_bytes=size - 1)


def test_the_ratio_is_looked_at_where_it_matters() -> None:
    with raw_server(encoded(gzip.compress(bytes(MEGABYTE)), "gzip")) as server:
        assert len(_get(server.url()).content) == MEGABYTE
    more = encoded(gzip.compress(bytes(MEGABYTE + 1)), "gzip")
    with raw_server(more) as server, pytest.raises(ResponseTooLarge, match="100 times the size"):
        _get(server.url())


@pytest.mark.parametrize(
    "charset", ["punycode", "utf-7", "unicode_escape", "zlib", "idna", "undefined", "x" * 300]
)
def test_a_character_set_that_is_no_plain_text_is_read_as_utf_8(charset: str) -> None:
    with raw_server(
        answering("ü".encode(), ("Content-Type", f"text/plain; charset={charset}"))
    ) as server:
        head = {"Accept": "text/event-stream"}
        assert _get(server.url(), headers=head).text == "ü"
    kind = f"Content-Type: text/plain; charset={charset}\r\n".encode()
    sent = b"HTTP/1.1 200 OK\r\n" + kind + b"Content-Length: 2\r\n\r\n" + "ü".encode()
    with raw_server(lambda connection, request, server: connection.sendall(sent)) as server:
        assert _get(server.url()).text == "ü"


@pytest.mark.parametrize(
    ("charset", "text"), [("utf-8", "ü"), ("ISO-8859-1", "ü"), ("Shift_JIS", "日"), ("cp1252", "€")]
)
def test_a_character_set_of_plain_text_is_heeded(charset: str, text: str) -> None:
    body = text.encode(charset)
    answer = reply(200, body, f"text/plain; charset={charset}")
    with raw_server(lambda connection, request, server: connection.sendall(answer)) as server:
        assert _get(server.url()).text == text


def _get(url: str, **options: Any) -> httpx2.Response:
    async def go() -> httpx2.Response:
        async with guarded_client(HERE, **{"timeout": TIMEOUT, **options}) as http:
            return await http.get(url)

    return asyncio.run(go())


def _dripping(first: bytes, drop: bytes) -> Handler:
    """A handler that sends a little, over and over, and would do so for a minute."""

    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        connection.sendall(_kind(first, request))
        while not server.stop.wait(0.05):
            connection.sendall(drop)

    return handle


DRIPS = {
    "the body": _dripping(CHUNKED, b"1\r\n \r\n"),
    "the body, without a length": _dripping(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b" "
    ),
    "a header": _dripping(b"HTTP/1.1 200 OK\r\nA: ", b"b"),
    "1xx": _dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "gzip": _dripping(
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        + b"a\r\n"
        + PACKED[:10]
        + b"\r\n",
        b"5\r\n\0\0\0\xff\xff\r\n",  # an empty block, and another one
    ),
}


@pytest.mark.parametrize("drip", DRIPS)
def test_whoever_drips_gets_no_more_than_the_time(drip: str) -> None:
    began = time.monotonic()
    with raw_server(DRIPS[drip]) as server, pytest.raises(httpx2.ReadTimeout):
        _get(server.url(), timeout=0.4)
    assert 0.3 < time.monotonic() - began < PROMPT


@pytest.mark.parametrize(
    "fetcher",
    [
        fetchers.mcp,
        fetchers.mcp_call,
        fetchers.mcp_sse,
        fetchers.openapi,
        fetchers.openapi_tools,
        fetchers.openapi_call,
        fetchers.token,
        fetchers.public_url,
    ],
    ids=lambda fetcher: fetcher.__name__,
)
def test_a_drip_is_said_to_be_one(fetcher: Fetcher) -> None:
    said = fetcher(DRIPS["the body"], 0.4)
    assert re.search(r"did not (respond|complete its response) within 0\.4 s", said), said


def test_redirects_share_one_time() -> None:
    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        server.stop.wait(0.25)
        connection.sendall(reply(307, Location=f"{request.path}a"))

    with raw_server(handle) as server, pytest.raises(httpx2.ReadTimeout):
        _get(server.url("/"), timeout=0.4)
    assert len(server.seen) == 2


def test_a_body_that_stops_is_unfinished_and_said_to_be() -> None:
    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        connection.sendall(CHUNKED + b"1\r\n{\r\n")
        server.stop.wait(60)

    with raw_server(handle) as server, pytest.raises((Unfinished, httpx2.ReadTimeout)):
        _get(server.url(), timeout=0.3)


def _result(inner: bytes) -> Callable[[int], bytes]:
    return lambda number: (
        b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"x":[%s0]}}' % (number, inner)
    )


def calling(body: Callable[[int], bytes], kind: str = "application/json") -> str:
    def handle(connection: socket.socket, request: Seen, server: RawServer) -> None:
        connection.sendall(reply(200, body(request.json["id"]), kind))

    return fetchers.mcp_call(handle, TIMEOUT)


@pytest.mark.parametrize("item", [b"0,", b"[],", b'{"a":1},', b'"",', b'"\\"",', b'",",'])
def test_five_million_values_are_not_parsed(item: bytes) -> None:
    said = calling(_result(item * (9 * MEGABYTE // len(item))))
    assert "the limit is 200,000 JSON values per response" in said


def test_values_are_counted_in_a_stream_of_events_however_quotes_are_strewn() -> None:
    for before in (b"", b': "\n', b': "\r', b'"id: 7\n', b'data: "\ndata: '):
        events = _result((b"0," * 100 + b"\ndata: ") * 3000)
        said = calling(
            lambda number, before=before, events=events: (
                before + b"data: " + events(number) + b"\n\n"
            ),
            "text/event-stream",
        )
        assert "200,000 JSON values" in said


def test_a_flood_of_events_is_cut_off() -> None:
    for line in (b"\n", b"\r", b": x\n", b"data: 1\n", b'data: {"jsonrpc":"2.0","method":"a"}\n\n'):
        said = calling(lambda number, line=line: line * 30_000, "text/event-stream")
        assert "the limit is 20,000 lines of events" in said, (line, said)


@pytest.mark.parametrize(
    "kind", [b"application/json", b"text/event-stream", b"text/event-stream; charset=utf-8"]
)
@pytest.mark.parametrize("chunk", [b" ", b"\n", b"\r", b"x\r", b"0123456789"])
def test_a_flood_of_tiny_chunks_is_cut_off(chunk: bytes, kind: bytes) -> None:
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: " + kind + b"\r\n\r\n")
    piece = b"%x\r\n%b\r\n" % (len(chunk), chunk)
    says = "20,000 chunks" if chunk == b"x\r" and b"event" in kind else "after 256 chunks"
    with (
        raw_server(endless(head, piece * 1000)) as server,
        pytest.raises(ResponseTooLarge, match=says),
    ):
        _get(server.url())


@pytest.mark.parametrize(
    ("kind", "chunks"),
    [
        (b"application/json", [b"["] + [b"0,"] * 200 + [b"0" * 16] * 3000),
        (b"application/json", [b"x" * 4096] + [b"1"] * 500),
        (b"text/event-stream", [b": \n\n"] * 3000),
        (b"text/event-stream", [b"data: 1", b"\n\n"] * 255),
        (b"text/event-stream", [b"event: a\n", b"data: {}\n", b"\n"] * 1000),
    ],
)
def test_small_chunks_with_something_in_them_arrive(kind: bytes, chunks: list[bytes]) -> None:
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: " + kind + b"\r\n\r\n")
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    with raw_server(lambda connection, request, server: connection.sendall(head + body)) as server:
        assert _get(server.url()).content == b"".join(chunks)


def test_large_texts_with_many_commas_arrive(client: UpstreamClient) -> None:
    """A limit on values is none on what a text says."""
    text = 'a,b,[c],{"d"}\\\n' * 100_000
    body = speaking(
        lambda method, params: {
            "resultType": "complete",
            "content": [{"type": "text", "text": text}],
        }
    )
    with raw_server(body) as server:
        outcome = client.call_tool(Target("http", server.url(), timeout=TIMEOUT), "x", {})
    assert outcome.wire["content"][0]["text"] == text


BOMBS: dict[str, tuple[Fetcher, Handler]] = {
    "gzip in gzip with trailing bytes": (fetchers.mcp, encoded(STACKED, "gzip, gzip")),
    "gzip": (fetchers.mcp, encoded(LINES, "gzip")),
    "trailing bytes": (fetchers.mcp, encoded(PACKED + bytes(9 * MEGABYTE), "gzip")),
    "lists": (fetchers.mcp, answering(b"[" + b"[]," * (3 * MEGABYTE))),
    "1xx": (fetchers.mcp, endless(b"", b"HTTP/1.1 100 \r\n\r\n" * 4000)),
    "chunks": (fetchers.mcp, endless(CHUNKED, b"1\r\n \r\n" * 10_000)),
    "directives": (
        fetchers.openapi,
        answering(b"".join(b"%%TAG !a%d! x\n" % n for n in range(40_000)) + b"---\na: 1"),
    ),
    "a number": (
        fetchers.openapi_tools,
        answering(b"openapi: 3.1.0\nx: " + b"1:" * MEGABYTE + b"1"),
    ),
}


@pytest.fixture
def healthy() -> Iterator[Callable[[], float]]:
    """A call to a server that is well, and what it took (seconds)."""
    client = UpstreamClient(HERE)
    with raw_server(speaking(lambda method, params: tool_page("one"))) as server:

        def call() -> float:
            began = time.monotonic()
            assert len(client.list_tools(Target("http", server.url(), timeout=TIMEOUT))) == 1
            return time.monotonic() - began

        call()
        yield call


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_holds_up_nobody_else(bomb: str, healthy: Callable[[], float]) -> None:
    """The limit is a guard: without our own decoding the first bomb alone holds the loop for
    seconds each time."""
    fetcher, handler = BOMBS[bomb]
    bare = statistics.median(healthy() for _ in range(5))
    done = threading.Event()

    def attack() -> None:
        try:
            fetcher(handler, TIMEOUT)
        finally:
            done.set()

    attacker = threading.Thread(target=attack)
    attacker.start()
    taken = [healthy()]
    while not done.is_set() and len(taken) < 50:
        taken.append(healthy())
    attacker.join(PROMPT)
    assert done.is_set()
    assert max(taken) < 30 * bare + 1.0


@pytest.mark.parametrize(
    "bomb", ["gzip in gzip with trailing bytes", "gzip", "trailing bytes", "lists"]
)
def test_a_bomb_takes_little_memory(bomb: str) -> None:
    fetcher, handler = BOMBS[bomb]
    fetcher(handler, TIMEOUT)
    tracemalloc.start()
    try:
        fetcher(handler, TIMEOUT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * MEGABYTE  # as received, as decoded up to 10 MiB, and as joined


def test_a_refusal_is_told_apart_from_a_time_that_is_over() -> None:
    assert issubclass(BadEncoding, httpx2.DecodingError)
    assert issubclass(ResponseTooLarge, AnswerRefused)
    with raw_server(encoded(gzip.compress(PACKED), "gzip, gzip")) as server:
        target = Target("http", spec_url=server.url(), timeout=TIMEOUT)
        with pytest.raises(UpstreamFailure) as caught:
            UpstreamClient(HERE).list_tools(target)
    assert caught.value.reason == HealthReason.NOT_MCP
    assert caught.value.message.endswith("The server must use only gzip, or no Content-Encoding.")


@pytest.mark.parametrize(
    ("size", "words"), [(5 * MEGABYTE, "5 MiB"), (65536, "64 KiB"), (1_000_001, "1,000,001 bytes")]
)
def test_sizes_are_said_in_words(size: int, words: str) -> None:
    assert in_words(size) == words
    assert bodies.ACCEPT_ENCODING == "gzip"
