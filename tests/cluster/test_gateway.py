"""Two gateways behind nginx: each request goes to either, and one may go and come back."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult

from portal.store.database import Database
from tests.cluster.conftest import ADMIN_KEY
from tests.conftest import KEYS, Write
from tests.gateway.test_app import ALL_TOOLS
from tests.support.cluster.members import Served
from tests.support.cluster.topology import Cluster
from tests.support.cluster.upstream import Upstream, upstreams
from tests.support.factories import make_server
from tests.support.peers import TRUST, accepts
from tests.support.upstream.held import FIRST, held
from tests.support.upstream.raw import raw_server

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "say"}}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
BOTH = {"Accept": "application/json, text/event-stream"}


def by(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS.get(key, key)}", **BOTH}


def post(url: str, message: Any = LIST, key: str = "mel", **headers: str) -> httpx2.Response:
    return httpx2.post(url, json=message, headers={**by(key), **headers}, timeout=60, verify=TRUST)


def at(member: Served) -> str:
    """What `X-Served-By` says of a member."""
    return f"127.0.0.1:{member.port}"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstreams() as made:
        yield made


@pytest.fixture(scope="module")
def echo_path(database: Database, echo_server: str) -> str:
    """The path of a server that tells what it gets."""
    return path_of(database, "echo", echo_server)


@pytest.fixture(scope="module")
def plain_path(database: Database) -> Iterator[str]:
    """The path of a server that answers messages without a session."""
    with upstreams() as made:
        yield path_of(database, "plain", made.url("plain"))


@pytest.fixture(autouse=True)
def plain(running: Cluster, plain_path: str) -> str:
    """The same, while nginx asks both gateways: it leaves alone for a moment one that was ended."""
    running.nginx.wait_until(
        lambda: len({post(running.url + plain_path).headers["x-served-by"] for _ in range(2)}) == 2
    )
    return plain_path


def path_of(database: Database, name: str, url: str) -> str:
    with database.session(writes=True) as session:
        make_server(session, name, url=url, allow_all_keys=True)
        session.commit()
    return f"/{name}/mcp"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_client_lists_and_calls_and_both_gateways_serve_its_session(
    running: Cluster, echo_path: str, mode: str
) -> None:
    served: list[str] = []
    sessions: set[str] = set()

    async def note(answer: httpx2.Response) -> None:
        served.append(answer.headers["x-served-by"])
        sessions.add(answer.request.headers.get("mcp-session-id", ""))

    async def talking() -> None:
        http = httpx2.AsyncClient(
            headers=by("mel"), timeout=30, verify=TRUST, event_hooks={"response": [note]}
        )
        async with (
            http,
            Client(
                streamable_http_client(running.url + echo_path, http_client=http), mode=mode
            ) as client,
        ):
            assert {tool.name for tool in (await client.list_tools()).tools} == ALL_TOOLS
            for number in range(4):
                result = await client.call_tool("add", {"a": number, "b": 1})
                assert isinstance(result, CallToolResult)
                assert result.structured_content == {"result": number + 1}

    asyncio.run(talking())
    assert set(served) == {at(member) for member in running.gateways}
    assert len(sessions - {""}) == (1 if mode == "legacy" else 0)


def test_each_gateway_counts_its_own_requests(running: Cluster, plain: str) -> None:
    for member in running.gateways:
        assert post(f"{member.url}{plain}").status_code == 200
        answer = httpx2.get(f"{member.url}/metrics", timeout=30)
        [line] = [
            line
            for line in answer.text.splitlines()
            if line.startswith("portal_http_requests_total")
            and all(part in line for part in ('"POST"', '"/<prefix>/mcp"', '"2xx"'))
        ]
        assert float(line.rpartition(" ")[2]) >= 1
        assert "plain" not in answer.text


def test_only_addresses_of_the_gateway_go_to_a_gateway(running: Cluster, plain: str) -> None:
    gateways = {at(member) for member in running.gateways}
    web = {at(member) for member in running.web}

    def asked(method: str, path: str) -> str:
        answer = httpx2.request(method, running.url + path, timeout=30, verify=TRUST)
        return answer.headers["x-served-by"]

    for path in (
        "/mcp",
        "/mcp/",
        plain,
        "/plain/mcp/",
        "/mcp/plain",
        "/toolset/any/mcp",
        "/p%6cain/mcp",
    ):
        assert asked("POST", path) in gateways, path
    for method, path in (
        ("GET", "/.well-known/oauth-protected-resource/plain/mcp"),
        ("GET", "/.well-known/oauth-authorization-server"),
        ("GET", "/login"),
        ("GET", "/readyz"),
        ("GET", "/servers/id-plain/connect"),
        ("GET", "/v1/me"),
        ("POST", "/oauth/token"),
        ("POST", "/oauth/register"),
        ("POST", "/mcp/plain/register"),
        ("POST", "/plain/mcp/more"),
        ("POST", "/toolset/mcp/any"),
        ("POST", "/mcps"),
    ):
        assert asked(method, path) in web, path


def test_a_revoked_key_is_refused_by_both_with_the_next_request(
    running: Cluster, plain: str
) -> None:
    made = httpx2.post(
        f"{running.web[0].url}/v1/keys",
        json={"key_alias": "brief", "user_id": "mel"},
        headers=by(ADMIN_KEY),
    ).json()
    urls = [f"{member.url}{plain}" for member in running.gateways]
    assert [post(url, key=made["key"]).status_code for url in 2 * urls] == 4 * [200]
    gone = httpx2.delete(f"{running.web[1].url}/v1/keys/{made['key_id']}", headers=by(ADMIN_KEY))
    assert gone.is_success
    assert [post(url, key=made["key"]).status_code for url in urls] == 2 * [401]


def test_events_come_through_while_the_stream_is_open(running: Cluster, write: Write) -> None:
    goes_on = threading.Event()
    with raw_server(held(goes_on)) as server:
        with write() as session:
            make_server(session, "streaming", url=server.url(), allow_all_keys=True)
        url = f"{running.url}/streaming/mcp"
        with httpx2.stream("GET", url, headers=by("mel"), timeout=30, verify=TRUST) as answer:
            pieces = answer.iter_bytes()
            assert next(pieces) == FIRST
            goes_on.set()
            assert b"result" in b"".join(pieces)


def test_a_message_that_is_too_large_gets_the_gateways_own_error(
    running: Cluster, plain: str
) -> None:
    fits, too_large = (
        post(running.url + plain, {**LIST, "params": {"_meta": {"filler": "x" * size}}})
        for size in (4_000_000, 4_500_000)
    )
    assert fits.status_code == 200
    assert too_large.status_code == 413
    assert too_large.json()["error"]["code"] == 413


def test_a_killed_gateway_costs_only_what_it_was_forwarding(
    running: Cluster, write: Write, upstream: Upstream
) -> None:
    with write() as session:
        make_server(session, "waiting", url=upstream.url("waiting"), allow_all_keys=True)
    url = f"{running.url}/waiting/mcp"
    doomed, other = running.gateways
    upstream.answers.clear()
    with ThreadPoolExecutor(8) as pool:
        under_way = [pool.submit(post, url, CALL) for _ in range(8)]
        assert upstream.until(lambda: upstream.asked["waiting", "tools/call"] == 8)
        doomed.kill()
        upstream.answers.set()
        answers = [future.result() for future in under_way]
    try:
        lost = [answer for answer in answers if answer.status_code != 200]
        assert {answer.headers["x-served-by"] for answer in lost} == {at(doomed)}
        assert {answer.status_code for answer in lost} == {502}
        kept = [answer for answer in answers if answer.status_code == 200]
        assert {answer.headers["x-served-by"] for answer in kept} == {at(other)}
        assert upstream.asked["waiting", "tools/call"] == 8, "no call ran twice"
        later = [post(url, CALL) for _ in range(8)]
        assert {answer.status_code for answer in later} == {200}
    finally:
        doomed.start()


def test_a_client_goes_on_after_a_gateway_was_killed(running: Cluster, echo_path: str) -> None:
    doomed = running.gateways[0]

    async def talking() -> None:
        http = httpx2.AsyncClient(headers=by("mel"), timeout=30, verify=TRUST)
        connection = streamable_http_client(running.url + echo_path, http_client=http)
        async with http, Client(connection, mode="legacy") as client:
            assert (await client.list_tools()).tools
            doomed.kill()
            for number in range(6):
                result = await client.call_tool("add", {"a": number, "b": 1})
                assert result.structured_content == {"result": number + 1}

    try:
        asyncio.run(talking())
    finally:
        if not doomed.is_running:
            doomed.start()


def test_a_gateway_that_is_stopped_ends_its_streams_and_finishes_its_calls(
    running: Cluster, write: Write, upstream: Upstream
) -> None:
    member = running.gateways[1]
    with raw_server(held(threading.Event())) as streaming:
        with write() as session:
            make_server(session, "held", url=upstream.url("held"), allow_all_keys=True)
            make_server(session, "endless", url=streaming.url(), allow_all_keys=True)
        upstream.answers.clear()
        with (
            ThreadPoolExecutor(1) as pool,
            httpx2.stream(
                "GET", f"{member.url}/endless/mcp", headers=by("mel"), timeout=30, verify=TRUST
            ) as stream,
        ):
            pieces = stream.iter_bytes()
            assert next(pieces) == FIRST
            calling = pool.submit(post, f"{member.url}/held/mcp", CALL)
            assert upstream.until(lambda: upstream.asked["held", "tools/call"] == 1)
            member.signal(signal.SIGTERM)
            assert b"".join(pieces) == b"", "the stream ends as it should, and at once"
            member.wait_until(lambda: not accepts(member.port))
            assert not calling.done()
            upstream.answers.set()
            assert calling.result().json()["result"]["content"][0]["text"] == "said"
    assert member.stop() == 0
    member.start()
