"""What is kept of a call: one row, by the end of the second, and nothing of what was said."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.types import Implementation
from sqlalchemy import func, select, text

from portal.domain.principals import OPERATOR
from portal.gateway import calls
from portal.services.audit import trail
from portal.services.audit.trail import EventFilter
from portal.services.gateway.calls import CallOutcome
from portal.store.call_tables import McpCall, McpUse
from portal.store.database import Database
from tests.conftest import KEYS, Portal, Write, make_settings, open_quickly
from tests.gateway.conftest import Running, gateway_process, running
from tests.support.factories import make_server
from tests.support.peers import StartedProcess, free_port
from tests.support.upstream.raw import Handler, Seen, always, hang, older, raw_server

MARK = "SECRET-argument-or-result"
Upstream = Callable[..., None]


def rows(database: Database) -> list[McpCall]:
    """The logged calls, in the order of their start."""
    with database.session() as session:
        return list(session.scalars(select(McpCall).order_by(McpCall.at)))


def number_of_rows(database: Database) -> int:
    with database.session() as session:
        return session.scalar(select(func.count()).select_from(McpCall)) or 0


def uses(database: Database) -> list[McpUse]:
    with database.session() as session:
        return list(session.scalars(select(McpUse)))


def wait_until(is_so: Callable[[], Any], seconds: float = 20) -> None:
    """Ask until the answer is yes."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def strict(portal: Portal) -> Iterator[Running]:
    """A gateway that logs before it answers."""
    settings = portal.settings.model_copy(update={"call_log": "strict"})
    with running(replace(portal, settings=settings)) as found:
        yield found


@pytest.fixture
def upstream(write: Write) -> Iterator[Upstream]:
    """`upstream(handler)` makes a server `odd` of it."""
    with ExitStack() as stack:

        def having(handler: Handler, **fields: Any) -> None:
            server = stack.enter_context(raw_server(handler))
            with write() as session:
                make_server(session, "odd", url=server.url(), allow_all_keys=True, **fields)

        yield having


def result(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [], **members}}).encode()


def event(data: bytes) -> bytes:
    progress = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'
    return b"event: message\ndata: " + progress + b"\n\nevent: message\ndata: " + data + b"\n\n"


FAULT = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}'
JSON = "application/json"
EVENTS = "text/event-stream"


@pytest.mark.parametrize(
    ("status", "body", "media_type", "outcome"),
    [
        (200, result(), JSON, "ok"),
        (200, result(isError=False), JSON, "ok"),
        (200, result(isError=True), JSON, "tool_error"),
        (200, result(structuredContent={"isError": True}), JSON, "ok"),
        (200, result(content=[{"type": "text", "text": '{"isError": true}'}]), JSON, "ok"),
        (200, event(result(isError=True)), EVENTS, "tool_error"),
        (200, event(result(structuredContent={"isError": True})), EVENTS, "ok"),
        (200, result(isError=True, structuredContent={"x": "x" * 70_000}), JSON, "ok"),
        (200, FAULT, JSON, "tool_error"),
        (200, event(FAULT), EVENTS, "tool_error"),
        (400, FAULT, JSON, "tool_error"),
        (500, b"broken", "text/html", "upstream_failed"),
        (401, b"{}", JSON, "upstream_failed"),
    ],
)
def test_the_outcome_is_what_the_client_was_told(
    strict: Running,
    portal: Portal,
    upstream: Upstream,
    status: int,
    body: bytes,
    media_type: str,
    outcome: str,
) -> None:
    """Errors in the middle of long results are not looked for: the stream would have to wait."""
    upstream(always(status, body, media_type))
    answer = strict.post("odd", "mel", "tools/call", {"name": "any"})
    [row] = rows(portal.database)
    assert row.outcome == outcome
    assert row.bytes_out == len(answer.content)


def test_what_the_portal_refuses_is_logged_with_its_reason(
    strict: Running, portal: Portal, upstream: Upstream, write: Write
) -> None:
    upstream(always(200, result(), JSON), allowed_tools=["good"], mcp_info=ENFORCED)
    with write() as session:
        variable = {"name": "MINE", "scope": "user", "description": "yours"}
        headers = {"X-Mine": "${MINE}"}
        make_server(
            session, "mine", allow_all_keys=True, static_headers=headers, env_vars=[variable]
        )
    strict.post("odd", "mel", "tools/call", {"name": "bad"})
    strict.post("mine", "mel", "tools/call", {"name": "any"})
    strict.post("notes", "mel", "tools/call", {"name": "any"})
    found = [(row.server_id, row.tool, row.outcome) for row in rows(portal.database)]
    assert found == [
        ("id-odd", "bad", "refused"),
        ("id-mine", "any", "missing"),
        ("id-notes", "any", "upstream_failed"),
    ]


ENFORCED = {"tool_allowlist_enforced": True}


def test_a_server_that_is_late_and_a_client_that_leaves(
    strict: Running, portal: Portal, upstream: Upstream, write: Write
) -> None:
    upstream(hang, timeout=1)
    strict.post("odd", "mel", "tools/call", {"name": "any"})
    assert [row.outcome for row in rows(portal.database)] == ["timeout"]
    with write() as session:
        session.execute(text("update servers set timeout = 60 where server_id = 'id-odd'"))
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            strict.at("odd"),
            headers={"Authorization": f"Bearer {KEYS['mel']}"},
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "any"}},
            timeout=1,
        )
    wait_until(lambda: len(rows(portal.database)) == 2)
    assert rows(portal.database)[-1].outcome == "cancelled"


def test_a_row_says_who_called_what_and_nothing_of_what_was_said(
    strict: Running, portal: Portal, upstream: Upstream
) -> None:
    upstream(always(200, result(content=[{"type": "text", "text": MARK}]), JSON))
    meta = {"io.modelcontextprotocol/clientInfo": {"name": "cur\0sor", "version": 7, "x": MARK}}
    for method, params in (
        ("tools/call", {"name": "any", "arguments": {MARK: MARK}}),
        ("prompts/get", {"name": "tidy", "arguments": {MARK: MARK}}),
        ("resources/read", {"uri": f"https://example.com/?token={MARK}"}),
    ):
        strict.post("odd", "mel", method, {**params, "_meta": meta}, x_own=MARK, user_agent=MARK)
    strict.post("odd", "mel", "tools/list")
    strict.post("odd", "mel", "ping")
    found = rows(portal.database)
    assert [(row.method, row.tool) for row in found] == [
        ("tools/call", "any"),
        ("prompts/get", "tidy"),
        ("resources/read", None),
    ]
    for row in found:
        values = {column.name: getattr(row, column.name) for column in McpCall.__table__.columns}
        assert MARK not in repr(values)
        assert KEYS["mel"] not in repr(values)
        assert (row.user_id, row.app_id) == ("mel", None)
        assert row.key_id is not None
        assert (row.client_name, row.client_version) == ("cur sor", None)
        assert row.bytes_in > len(MARK)
        assert row.bytes_out > len(MARK)
        assert 0 <= row.duration_ms < 20_000


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_the_client_is_known_in_both_eras(
    strict: Running, portal: Portal, write: Write, echo_server: str, mode: str
) -> None:
    """Older clients say it once: it is in their session."""
    with write() as session:
        make_server(session, "echo", url=echo_server, allow_all_keys=True)

    async def work(client: Client) -> None:
        await client.call_tool("add", {"a": 1, "b": 2})

    me = Implementation(name="my agent", version="1.2")
    strict.talk("echo", "mel", work, mode=mode, client_info=me)
    [row] = [row for row in rows(portal.database) if row.method == "tools/call"]
    assert (row.tool, row.outcome) == ("add", "ok")
    assert (row.client_name, row.client_version) == ("my agent", "1.2")


def test_a_session_without_a_name_has_no_client(
    strict: Running, portal: Portal, upstream: Upstream
) -> None:
    upstream(older())
    begun = strict.post("odd", "mel", "initialize", {"clientInfo": {"version": "1"}})
    strict.post(
        "odd", "mel", "tools/call", {"name": "any"}, mcp_session_id=begun.headers["mcp-session-id"]
    )
    [row] = rows(portal.database)
    assert (row.client_name, row.client_version, row.outcome) == (None, None, "ok")


def test_a_list_and_a_call_are_noted_as_use(
    gateway: Running, portal: Portal, upstream: Upstream
) -> None:
    upstream(always(200, result(), JSON))
    gateway.post("odd", "mel", "ping")
    gateway.post("odd", "otto", "tools/list")
    wait_until(lambda: uses(portal.database))
    [use] = uses(portal.database)
    assert (use.user_id, use.server_id, use.is_call) == ("otto", "id-odd", False)
    gateway.post("odd", "otto", "tools/call", {"name": "any"})
    wait_until(lambda: uses(portal.database)[0].is_call)
    assert len(rows(portal.database)) == 1


# While the database does not take them, callers do not wait.


def test_calls_wait_for_the_database_and_callers_do_not(
    portal: Portal, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    upstream(always(200, result(), JSON))
    monkeypatch.setattr(calls, "MOST_WAITING", 2)
    with running(portal) as gateway:
        with held_from_writers(portal.database):
            for _ in range(5):
                answer = gateway.post("odd", "mel", "tools/call", {"name": "any"})
                assert answer.json()["result"] == {"content": []}
            assert rows(portal.database) == []
            wait_until(lambda: "calls were not logged" in caplog.text)
        wait_until(lambda: rows(portal.database))
    stored = len(rows(portal.database))
    with portal.database.session() as session:
        [event] = trail.export_events(session, OPERATOR, EventFilter(action="calls logged"))
    assert (event.details["calls"], event.details["unlogged"]) == (stored, 5 - stored)
    assert 2 <= stored < 5


@contextmanager
def held_from_writers(database: Database) -> Iterator[None]:
    """Hold SQLite's write lock, or PostgreSQL's table."""
    with database.session(writes=True) as session:
        session.execute(text("select 1"))
        if database.engine.dialect.name == "postgresql":
            session.execute(text("lock table mcp_call_batches in share mode"))
        yield


# Strict: the row is there before the client can know the result.


class Held:
    """An upstream that sends its answer and then keeps the connection."""

    def __init__(self, media_type: str, body: bytes) -> None:
        self.head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n\r\n".encode()
        self.body = body

    def __call__(self, connection: socket.socket, _request: Seen, server: Any) -> None:
        connection.sendall(self.head + self.body)
        server.stop.wait(20)


def test_strict_logs_before_the_event_with_the_result_is_sent(
    strict: Running, portal: Portal, upstream: Upstream
) -> None:
    upstream(Held(EVENTS, event(result(isError=True))))
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "any"}}
    headers = {"Authorization": f"Bearer {KEYS['mel']}", "Accept": f"{JSON}, {EVENTS}"}
    url = strict.at("odd")
    with httpx2.stream("POST", url, headers=headers, json=request, timeout=20) as answer:
        pieces = b""
        for piece in answer.iter_bytes():
            pieces += piece
            if b"isError" in pieces:
                break
        assert [row.outcome for row in rows(portal.database)] == ["tool_error"]


@pytest.mark.parametrize("media_type", [JSON, EVENTS])
def test_strict_does_not_answer_what_it_cannot_log(
    strict: Running, portal: Portal, upstream: Upstream, write: Write, media_type: str
) -> None:
    upstream(always(200, event(result()) if media_type == EVENTS else result(), media_type))
    with without_table(portal.database):
        with pytest.raises(httpx2.RemoteProtocolError):
            strict.post("odd", "mel", "tools/call", {"name": "any"})
        refused = strict.post("notes", "mel", "tools/call", {"name": "any"})
        assert refused.status_code == 503
    assert strict.post("odd", "mel", "tools/call", {"name": "any"}).status_code == 200
    assert len(rows(portal.database)) == 1


@contextmanager
def without_table(database: Database) -> Iterator[None]:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE mcp_calls RENAME TO mcp_calls_gone")
    try:
        yield
    finally:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE mcp_calls_gone RENAME TO mcp_calls")


# The process itself.


@contextmanager
def site(
    database_url: str, upstream: str, **more: str
) -> Iterator[tuple[Running, Database, StartedProcess]]:
    """A `portal gateway` with the server `echo`, and its database."""
    settings = make_settings(database_url)
    database = open_quickly(settings)
    try:
        with database.session(writes=True) as session:
            make_server(session, "echo", url=upstream, allow_all_keys=True)
            session.commit()
        port = free_port()
        with gateway_process(settings, port, **more) as process:
            yield Running(f"http://127.0.0.1:{port}"), database, process
    finally:
        database.engine.dispose()


async def _add(client: Client) -> None:
    await client.call_tool("add", {"a": 1, "b": 2})


def test_kill_9_loses_at_most_the_last_second(
    started: Callable[[str], str], database_kind: str, echo_server: str
) -> None:
    with site(started(database_kind), echo_server) as (gateway, database, process):
        ended: list[float] = []

        def due() -> int:
            second_ago = time.monotonic() - 1
            return len([end for end in ended if end < second_ago])

        async def work(client: Client) -> None:
            until = time.monotonic() + 4
            while time.monotonic() < until:
                await client.call_tool("slow", {"seconds": 0.05})  # fewer calls than fill a batch
                ended.append(time.monotonic())
                assert number_of_rows(database) >= due()

        gateway.talk("echo", "mel", work)
        expected = due()
        process.process.send_signal(signal.SIGKILL)
        process.process.wait(20)
        assert 0 < expected <= number_of_rows(database) <= len(ended)


def test_a_graceful_stop_writes_what_waits(
    started: Callable[[str], str], database_kind: str, echo_server: str
) -> None:
    with site(started(database_kind), echo_server) as (gateway, database, process):
        gateway.talk("echo", "mel", _add)
        process.process.send_signal(signal.SIGTERM)
        process.process.wait(20)
        [row] = rows(database)
        assert (row.tool, row.outcome) == ("add", CallOutcome.OK)
        with database.session() as session:
            sealed = session.scalar(text("select chained_at from mcp_call_batches"))
        assert sealed is not None


def test_strict_loses_nothing(
    started: Callable[[str], str], database_kind: str, echo_server: str
) -> None:
    url = started(database_kind)
    with site(url, echo_server, PORTAL_CALL_LOG="strict") as (gateway, database, process):

        async def work(client: Client) -> None:
            for _ in range(20):
                await client.call_tool("add", {"a": 1, "b": 2})
            process.process.send_signal(signal.SIGKILL)
            process.process.wait(20)

        gateway.talk("echo", "mel", work)
        assert len(rows(database)) == 20
