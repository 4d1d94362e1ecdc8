"""Upstreams that do their worst, seen through the whole portal: an answer with words, in time, and
pages go on.

What the client of upstreams does by itself is in tests/upstream: names that change their mind,
spellings of addresses.
"""

import gzip
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.faults.conftest import Note
from tests.support.faults.site import Site, until
from tests.support.oauth.browsing import HttpBrowser
from tests.support.upstream.raw import Handler, RawServer, Seen, always, hang, raw_server

HOST = "127.0.0.2"  # the one private address that this portal may reach
MEGABYTE = 1024 * 1024
MOST_GROWTH = 150 * MEGABYTE
AT_ONCE = 24  # more than the two processes of eight threads have


def drip(connection: socket.socket, request: Seen, server: RawServer) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
    while not server.stop.wait(1):
        connection.sendall(b" ")


def flood(connection: socket.socket, request: Seen, server: RawServer) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n["
    )
    for _ in range(1000):
        connection.sendall(b" " * 1_000_000)


def cut(connection: socket.socket, request: Seen, server: RawServer) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:"
        b' 1000\r\n\r\n{"jsonrpc"'
    )
    connection.shutdown(socket.SHUT_RDWR)


def rubbish(connection: socket.socket, request: Seen, server: RawServer) -> None:
    connection.sendall(bytes(range(256)) * 40)


WORST: dict[str, tuple[Handler, int, str]] = {
    "hangs": (hang, 504, f"{HOST} did not respond within 2 s"),
    "drips": (drip, 504, "within 2 s"),
    "sends a gigabyte": (flood, 502, f"{HOST} sent too much"),
    "sends a zip bomb": (
        always(
            200, gzip.compress(bytes(100 * MEGABYTE)), "application/json", Content_Encoding="gzip"
        ),
        502,
        f"{HOST} sent too much",
    ),
    "redirects to metadata": (
        always(307, Location="http://169.254.169.254/latest/meta-data/"),
        502,
        f"{HOST} redirects to another address",
    ),
    "speaks rubbish": (rubbish, 502, "did not return an HTTP response"),
    "has endless headers": (
        always(200, b"{}", "application/json", X_Long="x" * MEGABYTE),
        502,
        HOST,
    ),
    "speaks HTML": (
        always(200, b"<h1>Sign in</h1>"),
        502,
        "did not return a valid MCP response (HTTP 200, text/html)",
    ),
    "speaks other JSON": (
        always(200, b'{"a": 1}', "application/json"),
        502,
        "did not return a valid MCP response",
    ),
    "breaks off": (cut, 502, HOST),
}
NOT_ALLOWED = "is not allowed by the outbound policy"
FORBIDDEN = [
    "http://10.0.0.1/mcp",
    "http://localhost:9/mcp",
    "http://169.254.169.254/mcp",
    "http://[::ffff:7f00:1]/mcp",
]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("upstreams"), PORTAL_ALLOW_PRIVATE_UPSTREAMS=f"{HOST}/32")
    site.start()
    yield site
    site.close()


@pytest.fixture(scope="module")
def browser(started: Site) -> Iterator[HttpBrowser]:
    with started.signed_in() as browser:
        yield browser


@pytest.fixture
def pages(started: Site, browser: HttpBrowser) -> Callable[[], None]:
    """Hold that those who ask no upstream are served."""

    def are_served() -> None:
        for path in ("/login", "/servers"):
            assert browser.http.get(f"{started.address}{path}").status_code in (200, 303)
        assert started.api("GET", "/v1/mcp/server").status_code == 200

    return are_served


def add(site: Site, name: str, **fields: Any) -> str:
    body = {"server_id": name, "server_name": name, "transport": "http", "timeout": 2, **fields}
    answer = site.api("POST", "/v1/mcp/server", json=body)
    assert answer.status_code == 201, answer.text
    return name


def call(site: Site, server_id: str) -> httpx2.Response:
    body = {"server_id": server_id, "name": "anything", "arguments": {}}
    return site.api("POST", "/v1/mcp/tools/call", json=body)


def looked_at(site: Site, server_id: str) -> httpx2.Response:
    """The answer to a health check; where the worker was at it just then, of what it found."""
    answers: list[httpx2.Response] = []

    def is_known() -> bool:
        answers.append(site.api("GET", "/v1/mcp/server/health", params={"server_ids": server_id}))
        return bool(answers[-1].json()[0]["last_health_check"])

    until(is_known, "a look at the server")
    return answers[-1]


def all_ways(site: Site, browser: HttpBrowser, name: str, url: str) -> dict[str, httpx2.Response]:
    """Everything that asks an upstream, at the same one."""
    server = add(site, f"mcp_{name}", url=url)
    described = add(site, f"spec_{name}", spec_path=url)
    guarded = add(site, f"oauth_{name}", url=url, auth_type="oauth2")
    return {
        "call": call(site, server),
        "call by its document": call(site, described),
        "health": looked_at(site, server),
        "OAuth check": site.api("GET", f"/v1/mcp/server/{guarded}/oauth-check"),
        "playground": browser.http.get(f"{site.address}/playground", params={"server": server}),
    }


def most_memory(site: Site) -> int:
    """The most bytes that any web process has held since it began."""
    found = [
        re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        for pid in site.web_pids()
    ]
    return max(int(match[1]) * 1024 for match in found if match)


def test_each_is_told_in_words_and_nobody_else_waits(
    started: Site, browser: HttpBrowser, pages: Callable[[], None], note: Note
) -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(4))
        call(started, add(started, "warm", url=f"http://{HOST}:9/mcp"))
        before = most_memory(started)
        asked = {}
        for number, (name, (handler, _, _)) in enumerate(WORST.items()):
            url = stack.enter_context(raw_server(handler, host=HOST)).url(host=HOST)
            asked[name] = pool.submit(all_ways, started, browser, f"w{number}", url)
        for name, (_, status, words) in WORST.items():
            pages()
            answers = asked[name].result()
            detail = answers["call"].json()["detail"]
            assert (answers["call"].status_code, words in detail["message"]) == (status, True), (
                name,
                detail,
            )
            assert answers["call by its document"].status_code in (502, 504), name
            assert [row["status"] for row in answers["health"].json()] == ["unhealthy"], name
            sections = answers["OAuth check"].json()["sections"]
            assert "fail" in {
                step["verdict"] for section in sections for step in section["steps"]
            }, name
            assert answers["playground"].status_code == 200, name
            assert words in answers["playground"].text, name
        assert most_memory(started) - before < MOST_GROWTH
    note("upstream at its worst", f"{len(WORST)} kinds, asked in 5 ways each", 5 * len(WORST))


@contextmanager
def no_tls() -> Iterator[str]:
    """Where TLS belongs something else is said, before anything was heard."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(bytes(range(256)))

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"https://{HOST}:{listener.getsockname()[1]}/mcp"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_tls_that_is_none_and_forbidden_addresses_are_told(
    started: Site, browser: HttpBrowser, note: Note
) -> None:
    with no_tls() as url:
        answer = call(started, add(started, "tls", url=url))
    assert (answer.status_code, "TLS" in answer.json()["detail"]["message"]) == (
        502,
        True,
    ), answer.text
    for number, url in enumerate(FORBIDDEN):
        answers = all_ways(started, browser, f"f{number}", url)
        assert answers["call"].status_code == 502
        assert NOT_ALLOWED in answers["call"].json()["detail"]["message"]
        assert NOT_ALLOWED in answers["playground"].text
        assert answers["call by its document"].status_code == 502
    note(
        "address that is not allowed",
        "private, a name for one, metadata, mapped IPv6; 5 ways",
        5 * len(FORBIDDEN),
    )


def test_pages_are_served_while_more_calls_hang_than_there_are_threads(
    started: Site, pages: Callable[[], None], note: Note
) -> None:
    with raw_server(hang, host=HOST) as server, ThreadPoolExecutor(AT_ONCE) as pool:
        name = add(started, "hanging", url=server.url(host=HOST), timeout=120)
        calls: list[Future[httpx2.Response]] = [
            pool.submit(call, started, name) for _ in range(AT_ONCE)
        ]
        until(
            lambda: sum(future.done() for future in calls) >= AT_ONCE - 2 * 6,
            "those without a place are sent away",
        )
        for _ in range(5):
            pages()
        refused = [future.result() for future in calls if future.done()]
        assert {(answer.status_code, answer.json()["detail"]["error"]) for answer in refused} == {
            (503, "busy")
        }
        assert refused[0].headers["Retry-After"] == "5"
        hanging = [future for future in calls if not future.done()]
        assert hanging, "the calls before the limit still wait"
        server.stop.set()
        for future in hanging:
            assert future.result().status_code in (502, 504)
    assert (
        call(started, name).status_code == 502
    )  # nobody listens there any more, and there is a place to find out
    note(
        "all upstreams hang", f"{AT_ONCE} calls at once, {len(refused)} sent away as busy", AT_ONCE
    )
