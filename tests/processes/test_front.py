"""The front of `portal serve` in embedded mode: one port for MCP clients, pages and the API."""

import asyncio
import gzip
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest
from bs4 import BeautifulSoup
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from portal.gateway.pages import PEER
from portal.processes import front, web
from tests.journeys.conftest import API_KEY, Portal, started_portal
from tests.support.faults.site import children, is_alive, kill, name_of, until
from tests.support.peers import TRUST, bare_environment, free_port, run

BY_KEY = {"Authorization": f"Bearer {API_KEY}"}


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory, echo_server: str) -> Iterator[Portal]:
    """A portal with one server."""
    with started_portal(tmp_path_factory.mktemp("portal"), free_port()) as portal:
        server = {"server_name": "echo", "transport": "http", "url": echo_server}
        status, answer = portal.api("POST", "/v1/mcp/server", server)
        assert status == 201, answer
        yield portal


def tools_of(portal: Portal, path: str = "/echo/mcp") -> list[str]:
    """The tools that the SDK's client lists at an address of the gateway."""

    async def listing() -> list[str]:
        async with (
            httpx2.AsyncClient(headers=BY_KEY, timeout=30, verify=TRUST) as http,
            Client(streamable_http_client(portal.url + path, http_client=http)) as client,
        ):
            return [tool.name for tool in (await client.list_tools()).tools]

    return asyncio.run(listing())


def front_of(master: int) -> int | None:
    """The process ID of a master's front."""
    return next((pid for pid in children(master) if name_of(pid) == front.NAME), None)


@pytest.mark.parametrize("path", ["/echo/mcp", "/mcp/echo"])
def test_clients_and_pages_use_one_address(portal: Portal, path: str) -> None:
    assert "show_headers" in tools_of(portal, path)
    page = httpx2.get(f"{portal.url}/login", verify=TRUST)
    assert (page.status_code, "Sign in" in page.text) == (200, True)
    assert portal.api("GET", "/v1/mcp/server")[0] == 200


def test_the_clients_address_is_the_sockets_whatever_a_header_says(portal: Portal) -> None:
    told = {PEER: "203.0.113.9", "X_Portal_Peer": "203.0.113.9", "X-Forwarded-For": "203.0.113.9"}
    assert httpx2.get(f"{portal.url}/login?told", headers=told, verify=TRUST).status_code == 200
    last = [line for line in portal.process.output().splitlines() if '"/login"' in line][-1]
    assert '"address":"127.0.0.1"' in last
    assert "203.0.113.9" not in portal.process.output()


def test_a_first_visit_weighs_at_most_60_kb(portal: Portal) -> None:
    """The sign-in page with its style sheet, scripts and icon, as a browser loads them."""
    weight = 0
    with httpx2.Client(headers={"Accept-Encoding": "gzip"}, verify=TRUST) as client:
        with client.stream("GET", f"{portal.url}/login") as response:
            raw = b"".join(response.iter_raw())
        assert response.headers["content-encoding"] == "gzip"
        weight += len(raw)
        page = BeautifulSoup(gzip.decompress(raw), "html.parser")
        found = [tag.get("href") or tag.get("src") for tag in page.select("link, script, img")]
        for address in filter(None, found):
            url = urljoin(portal.url, str(address))
            assert urlsplit(url).netloc == urlsplit(portal.url).netloc
            with client.stream("GET", url) as response:
                weight += len(b"".join(response.iter_raw()))
            assert response.status_code == 200, url
    assert 10_000 < weight <= 60_000


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip, deflate, br", "gzip"),
        ("br;q=1.0, gzip;q=0.2", "gzip"),
        ("gzip;q=0", None),
        ("identity", None),
        ("", None),
        ("xgzip", None),
    ],
)
def test_pages_are_compressed_for_those_who_accept_it(
    portal: Portal, accepted: str, expected: str | None
) -> None:
    page = httpx2.get(f"{portal.url}/login", headers={"Accept-Encoding": accepted}, verify=TRUST)
    assert page.headers.get("content-encoding") == expected
    assert "Accept-Encoding" in page.headers["vary"]
    assert page.text.rstrip().endswith("</html>")


def test_a_head_without_a_body_says_the_same(portal: Portal) -> None:
    page = httpx2.head(f"{portal.url}/login", verify=TRUST)
    assert (page.status_code, page.content) == (200, b"")


def test_the_end_of_a_response_does_not_wait_for_the_client(portal: Portal) -> None:
    """Without TCP_NODELAY, each response on a connection that is kept open takes 40 ms: its end is
    sent when the client has acknowledged its head, which the client does late."""
    took = []
    with httpx2.Client(verify=TRUST) as client:
        for _ in range(40):
            began = time.perf_counter()
            assert client.get(f"{portal.url}/healthz").status_code == 200
            took.append(time.perf_counter() - began)
    assert min(took[20:]) < 0.03  # the shortest, since the machine may be busy


LONG = "a" * 9_000


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (f"GET /{LONG} HTTP/1.1\r\nHost: {{host}}\r\n\r\n", 414),
        (f"GET /login HTTP/1.1\r\nHost: {{host}}\r\nX-Long: {'a' * 300_000}", 431),
        (f"GET /echo/mcp HTTP/1.1\r\nHost: {{host}}\r\nX-Long: {'a' * 300_000}", 431),
        ("GET /login HTTP/1.1\r\nHost: other.example\r\n\r\n", 400),
        ("GET /login HTTP/1.1\r\nHost: {host}\r\nCookie: \xff\xfe\r\n\r\n", 400),
        ("GET /login FTP/1.1\r\n\r\n", 400),
        ("POST /login HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9000000\r\n\r\n", 413),
    ],
)
def test_bad_requests_are_refused_and_the_next_is_answered(
    portal: Portal, request_head: str, status: int
) -> None:
    where = urlsplit(portal.url)
    assert where.hostname is not None
    pid = front_of(portal.process.pid)
    with socket.create_connection((where.hostname, where.port or 0)) as sent:
        try:
            sent.sendall(request_head.replace("{host}", where.netloc).encode("latin-1"))
        except ConnectionError:
            assert status == 431
        first = sent.recv(64)
    assert re.match(rb"HTTP/1\.1 (\d+)", first)
    assert int(first.split()[1]) == status
    assert httpx2.get(f"{portal.url}/login", verify=TRUST).status_code == 200
    assert front_of(portal.process.pid) == pid


def test_a_form_of_many_pieces_arrives_whole(portal: Portal) -> None:
    description = "ä" * 3_000
    body = (
        f'{{"server_name": "pieces", "description": "{description}", "transport": "http",'.encode()
    )
    body += b'"url": "https://mcp.example.com/mcp"}'

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    headers = {**BY_KEY, "Content-Type": "application/json"}
    made = httpx2.post(
        f"{portal.url}/v1/mcp/server", headers=headers, content=pieces(), verify=TRUST
    )
    assert made.status_code == 201, made.text
    assert made.json()["description"] == description


def test_a_front_that_dies_is_started_again(portal: Portal) -> None:
    pid = front_of(portal.process.pid)
    assert pid is not None
    kill(pid)
    until(lambda: front_of(portal.process.pid) not in (None, pid), "another front")
    assert httpx2.get(f"{portal.url}/login", verify=TRUST).status_code == 200
    assert "show_headers" in tools_of(portal)


def test_a_second_portal_on_the_port_says_so(portal: Portal, tmp_path: Path) -> None:
    port = str(urlsplit(portal.url).port)
    environment = bare_environment(PORTAL_DATABASE_URL=f"sqlite:///{tmp_path}/portal.db")
    argv = [sys.executable, "-m", "portal.cli", "serve", "--port", port]
    ended = run(argv, env=environment)
    assert ended.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in ended.stderr


def test_a_master_that_takes_over_keeps_the_port(tmp_path: Path, echo_server: str) -> None:
    """SIGUSR2 starts a new master, which then stands alone; SIGTERM ends all and leaves nothing."""
    # Not in `tmp_path`: the address of a Unix socket has at most 107 bytes.
    with (
        tempfile.TemporaryDirectory() as folder,
        started_portal(tmp_path, free_port(), TMPDIR=folder) as portal,
    ):
        server = {"server_name": "echo", "transport": "http", "url": echo_server}
        assert portal.api("POST", "/v1/mcp/server", server)[0] == 201
        old = portal.process.pid
        before = children(old)
        os.kill(old, signal.SIGUSR2)
        new = until(
            lambda: next((pid for pid in children(old) if pid not in before and front_of(pid)), 0),
            "a new master with its front",
        )
        os.kill(old, signal.SIGTERM)
        portal.process.process.wait()
        until(lambda: not any(map(is_alive, before)), "the processes of the old master end")
        assert httpx2.get(f"{portal.url}/login", verify=TRUST).status_code == 200
        assert "show_headers" in tools_of(portal)
        assert len(list(Path(folder).glob("portal-*/pages"))) == 1
        mine = children(new)
        os.kill(new, signal.SIGTERM)
        until(lambda: not any(map(is_alive, [new, *mine])), "the processes of the new master end")
        assert list(Path(folder).iterdir()) == []


def test_a_worker_that_outlives_its_master_does_not_keep_the_port(tmp_path: Path) -> None:
    port = free_port()
    with started_portal(tmp_path, port) as portal:
        master = portal.process.pid
        worker = until(
            lambda: next((pid for pid in children(master) if name_of(pid) == web.WORKER), 0),
            "the worker",
        )
        others = [pid for pid in children(master) if pid != worker]
        os.kill(worker, signal.SIGSTOP)
        try:
            kill(master)
            portal.process.process.wait()
            until(lambda: not any(map(is_alive, others)), "the others end by themselves")
            socket.create_server(("127.0.0.1", port)).close()
        finally:
            os.kill(worker, signal.SIGCONT)
