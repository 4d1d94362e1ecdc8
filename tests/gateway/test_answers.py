"""Servers of every transport through `portal gateway`: commands, HTTP+SSE and OpenAPI services."""

import asyncio
import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from sqlalchemy import update

from portal.domain.oauth import TokenSet
from portal.services.secrets import token_store
from portal.store.database import Database
from portal.store.models import Server
from portal.upstream.answering import MOST_COMMANDS
from portal.upstream.sandbox import Sandbox
from tests.conftest import KEYS, Portal, make_settings, open_quickly
from tests.gateway.conftest import Running, running
from tests.support.described import pet_store
from tests.support.factories import make_key, make_server
from tests.support.peers import (
    ROOT,
    TRUST,
    bare_environment,
    free_port,
    need_sandbox,
    start_process,
)
from tests.support.upstream.raw import always, raw_server

ECHO = ROOT / "examples" / "echo_server.py"
PROGRAMS = ROOT / "tests" / "programs"
WIDE = PROGRAMS / "wide_server.py"
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
OWN_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@contextmanager
def process_on(url: str) -> Iterator[Running]:
    """Run `portal gateway` on a database, with commands enabled."""
    need_sandbox(Sandbox())
    port = free_port()
    settings = make_settings(url)
    environment = bare_environment(
        PATH=OWN_PATH,
        PORTAL_DATABASE_URL=url,
        PORTAL_SECRET_KEY=settings.secret_key.get_secret_value(),
        PORTAL_ENCRYPTION_KEYS=settings.encryption_keys.get_secret_value(),
        PORTAL_ALLOW_PRIVATE_UPSTREAMS="true",
        PORTAL_ENABLE_STDIO="true",
        PORTAL_STDIO_PATHS=f"{ECHO.parent},{PROGRAMS}",
        PORTAL_PUBLIC_URL="http://127.0.0.1:8000",
        PORTAL_GATEWAY_URL=f"http://127.0.0.1:{port}",
    )
    argv = [sys.executable, "-m", "portal.cli", "gateway", "--port", str(port)]
    with start_process(argv, environment, port):
        yield Running(f"http://127.0.0.1:{port}")


@pytest.fixture
def stored(started: Callable[[str], str], database_kind: str) -> Iterator[tuple[str, Database]]:
    """A new database of a portal with commands enabled, by its URL."""
    url = started(database_kind)
    database = open_quickly(make_settings(url, enable_stdio=True))
    yield url, database
    database.engine.dispose()


def add(database: Database, name: str, **fields: Any) -> None:
    with database.session(writes=True) as session:
        make_server(session, name, allow_all_keys=True, **fields)
        session.commit()


def command(program: Path, *arguments: str, **fields: Any) -> dict[str, Any]:
    """The fields of a server that is a Python program."""
    args = [str(program), *arguments]
    return {"transport": "stdio", "url": None, "command": "python", "args": args, **fields}


async def add_two_numbers(client: Client) -> Any:
    names = {tool.name for tool in (await client.list_tools()).tools}
    return names, await client.call_tool("add", {"a": 2, "b": 3})


async def one_pet(client: Client) -> Any:
    names = {tool.name for tool in (await client.list_tools()).tools}
    return names, await client.call_tool("getPet", {"id": "7"})


async def what_a_command_offers(client: Client) -> Any:
    prompt = await client.get_prompt("greet", {"name": "Mel"})
    page = await client.read_resource("wide://one")
    return client.server_info, client.instructions, prompt, page


@pytest.fixture(scope="module")
def echo_sse() -> Iterator[str]:
    """The echo server over HTTP+SSE: its URL."""
    port = free_port()
    argv = [sys.executable, ECHO, "--port", str(port), "--transport", "sse"]
    with start_process(argv, bare_environment(), port):
        yield f"http://127.0.0.1:{port}/sse"


def test_a_client_lists_and_calls_over_every_transport(
    stored: tuple[str, Database], echo_sse: str
) -> None:
    url, database = stored
    add(database, "stdio", **command(ECHO, "--transport", "stdio"))
    add(database, "sse", transport="sse", url=echo_sse)
    with pet_store() as pets, process_on(url) as gateway:
        add(database, "pets", url=None, spec_path=pets.spec_url)
        for mode in ("legacy", "auto"):
            for name in ("stdio", "sse"):
                names, result = gateway.talk(name, "mel", add_two_numbers, mode=mode)
                assert names == {"show_headers", "whoami", "add", "search_notes", "slow"}
                assert result.structured_content == {"result": 5}
            names, result = gateway.talk("pets", "mel", one_pet, mode=mode)
            assert names == {"list_pets", "addPet", "getPet", "delete_pets_id"}
            assert result.structured_content == {"id": "7", "name": "Rex"}


@pytest.fixture
def commands(
    portal_with: Callable[..., Portal], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Running, Database]]:
    """A gateway in this process with commands enabled, and its database."""
    need_sandbox(Sandbox())
    monkeypatch.setenv("PATH", OWN_PATH)
    own = portal_with(enable_stdio=True, stdio_paths=(str(ECHO.parent), str(PROGRAMS)))
    with running(own) as gateway:
        yield gateway, own.database


def ask(
    gateway: Running,
    rpc: str,
    params: Any = None,
    *,
    is_modern: bool = False,
    name: str = "wide",
    as_: str = "mel",
    **headers: str,
) -> httpx2.Response:
    """Send one request, with what a client of the era sends."""
    given = dict(params or {})
    if not is_modern:
        return gateway.post(name, as_, rpc, given, **headers)
    given["_meta"] = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        **given.get("_meta", {}),
    }
    sent = {"mcp_protocol_version": "2026-07-28", "mcp_method": rpc}
    named = given.get("uri") or given.get("name")
    if rpc in ("tools/call", "prompts/get", "resources/read"):
        sent["mcp_name"] = named
    return gateway.post(name, as_, rpc, given, **(sent | headers))


def result_of(answer: httpx2.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert "mcp-session-id" not in answer.headers
    return answer.json()["result"]


@pytest.mark.parametrize("server", ["legacy", "modern"])
@pytest.mark.parametrize("is_modern", [False, True])
def test_results_arrive_as_they_were_sent(
    commands: tuple[Running, Database], server: str, is_modern: bool
) -> None:
    gateway, database = commands
    add(database, "wide", **command(WIDE, server))
    own = {"traceparent": "00-1", "progressToken": 7}
    params = {"name": "show", "arguments": {"big": 9007199254740993, "n": None}, "_meta": own}
    result = result_of(ask(gateway, "tools/call", params, is_modern=is_modern))
    assert result["content"][0] == {"type": "hologram", "rays": 7}
    assert (result["vendorKey"], result["isError"]) == ([1.5], False)
    assert result["_meta"] == {"vendor/x": {"kept": None}}
    structured = result["structuredContent"]
    assert (structured["big"], structured["none"]) == (9007199254740993, None)
    sent = structured["params"]
    assert sent["arguments"] == {"big": 9007199254740993, "n": None}
    assert sent["_meta"]["traceparent"] == "00-1"
    assert "progressToken" not in sent["_meta"]
    if is_modern:
        assert result["resultType"] == "complete"
    assert result_of(ask(gateway, "tools/call", {"name": "fails"}))["isError"] is True
    error = ask(gateway, "tools/call", {"name": "errs"}).json()["error"]
    assert error == {"code": -32055, "message": "own words", "data": {"own": [1, None]}}


def test_a_client_finds_prompts_resources_and_completion(
    commands: tuple[Running, Database],
) -> None:
    gateway, database = commands
    add(database, "wide", **command(WIDE, "modern"))
    told = result_of(ask(gateway, "initialize", INITIALIZE))
    works: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}, "completions": {}}
    assert told == {
        "protocolVersion": "2025-06-18",
        "serverInfo": {"name": "wide", "version": "7"},
        "instructions": "Be kind.",
        "capabilities": works,
    }
    found = result_of(ask(gateway, "server/discover", is_modern=True))
    assert (found["capabilities"], found["cacheScope"]) == (works, "private")
    assert "2026-07-28" in found["supportedVersions"]
    prompts = result_of(ask(gateway, "prompts/list", is_modern=True))
    assert prompts["prompts"] == [{"name": "greet", "x-own": 1}]
    assert (prompts["nextCursor"], prompts["cacheScope"]) == ("more", "private")
    asked = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": ""}}
    completed = result_of(ask(gateway, "completion/complete", asked))
    assert (completed["completion"], completed["asked"]["ref"]) == (
        {"values": ["a", "b"]},
        asked["ref"],
    )
    for mode in ("legacy", "auto"):
        info, said, prompt, page = gateway.talk("wide", "mel", what_a_command_offers, mode=mode)
        assert (info.name, said, page.contents[0].text) == ("wide", "Be kind.", "1")
        assert prompt.messages[0].content.text == "Hello"
    missing = {"uri": "wide://none"}
    old = ask(gateway, "resources/read", missing)
    new = ask(gateway, "resources/read", missing, is_modern=True)
    assert (old.status_code, old.json()["error"]["code"]) == (200, -32002)
    assert (new.status_code, new.json()["error"]["code"]) == (400, -32602)


def test_the_gateway_keeps_no_session_and_answers_what_needs_no_server(
    commands: tuple[Running, Database],
) -> None:
    gateway, database = commands
    add(database, "wide", transport="sse", url="http://127.0.0.1:9/sse")
    for method in ("GET", "DELETE"):
        answer = gateway.ask(method, "/wide/mcp", "mel")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert gateway.ask("POST", "/wide/mcp", "mel", json=note).status_code == 202
    assert result_of(ask(gateway, "ping")) == {}
    table: list[tuple[str, dict[str, Any], int, int]] = [
        ("tasks/list", {}, 200, -32601),
        ("server/discover", {}, 200, -32601),
        ("ping", {"mcp_protocol_version": "1999-01-01"}, 400, -32600),
        ("tools/list", {"mcp_protocol_version": "2026-07-28"}, 400, -32602),
    ]
    for rpc, headers, status, code in table:
        answer = ask(gateway, rpc, **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), rpc
    for rpc in ("ping", "initialize", "logging/setLevel"):
        answer = ask(gateway, rpc, is_modern=True)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)
    no_name = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call"}
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    answer = gateway.post("wide", "mel", "tools/call", {"name": "x", "_meta": meta}, **no_name)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    later = {"io.modelcontextprotocol/protocolVersion": "2031-01-01"}
    answer = ask(
        gateway, "tools/list", {"_meta": later}, is_modern=True, mcp_protocol_version="2031-01-01"
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, -32022)
    assert error["data"]["requested"] == "2031-01-01"


def test_an_invalid_tool_does_not_hide_the_others(commands: tuple[Running, Database]) -> None:
    gateway, database = commands
    add(database, "wide", **command(WIDE, "modern"))

    async def names(client: Client) -> list[str]:
        return [tool.name for tool in (await client.list_tools()).tools]

    told = ["wide-x", "x", "show", "no_schema", "fails", "errs", "asks", "dies", "hang"]
    for mode in ("legacy", "auto"):
        assert gateway.talk("wide", "mel", names, mode=mode) == told
    tools = {
        tool["name"]: tool
        for tool in result_of(ask(gateway, "tools/list", is_modern=True))["tools"]
    }
    assert tools["wide-x"]["x-own"] == {"kept": None}
    assert tools["no_schema"]["inputSchema"] == {"type": "object"}
    assert tools["show"]["inputSchema"] == {
        "type": "object",
        "properties": {"big": {"type": "integer"}},
    }


def test_names_are_never_cut_and_a_published_name_hides_no_tool(
    commands: tuple[Running, Database],
) -> None:
    gateway, database = commands
    shown = {"show": "x", "fails": "breaks"}
    add(database, "wide", **command(WIDE, "legacy"), tool_name_to_display_name=shown)
    tools = [tool["name"] for tool in result_of(ask(gateway, "tools/list"))["tools"]]
    assert tools[:4] == ["wide-x", "x", "show", "no_schema"]
    assert "breaks" in tools
    for name, called in (("wide-x", "wide-x"), ("x", "x"), ("show", "show"), ("breaks", "fails")):
        result = result_of(ask(gateway, "tools/call", {"name": name}))
        assert result["structuredContent"]["params"]["name"] == called


def test_the_same_rules_as_for_other_servers_hold(commands: tuple[Running, Database]) -> None:
    gateway, database = commands
    with database.session(writes=True) as session:
        make_server(
            session,
            "wide",
            allow_all_keys=True,
            **command(WIDE, "legacy", allowed_tools=["x", "dies", "asks", "hang"], timeout=3),
        )
        key = make_key(session, user_id="mel", mcp_tool_permissions={"wide": ("x", "show")})
        session.commit()
    assert [t["name"] for t in result_of(ask(gateway, "tools/list", as_=key))["tools"]] == ["x"]
    assert not result_of(ask(gateway, "tools/call", {"name": "x"}, as_=key))["isError"]
    for name, as_ in (("show", key), ("dies", key), ("show", "mel")):
        refused = result_of(ask(gateway, "tools/call", {"name": name}, as_=as_))
        assert refused["isError"]
        assert refused["content"][0]["text"].startswith(f"You may not call the tool {name}")
    for name, said in (
        ("dies", "The response did not come from an MCP server."),
        ("asks", "The response did not come from an MCP server."),
        ("hang", "The server did not answer in time."),
    ):
        failed = result_of(ask(gateway, "tools/call", {"name": name}))
        assert failed["isError"]
        assert failed["content"][0]["text"] == said


def processes_of(mark: str) -> int:
    """How many processes of this host have `mark` in their command line."""
    found = 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            found += folder.name.isdigit() and mark.encode() in (folder / "cmdline").read_bytes()
    return found


def becomes(is_so: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether something becomes true in time."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.05)
    return True


@contextmanager
def callers(gateway: Running, number: int) -> Iterator[None]:
    """Clients that call the tool `hang` of `hung` at the same time, and disconnect at the end."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "hang"}}
    loop = asyncio.new_event_loop()

    async def calling() -> None:
        headers = {"X-API-Key": KEYS["mel"], "Accept": "application/json, text/event-stream"}
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(
            headers=headers, limits=limits, timeout=90, verify=TRUST
        ) as http:
            posts = (http.post(gateway.at("hung"), json=body) for _ in range(number))
            await asyncio.gather(*posts)

    def serving() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(work)
        loop.close()

    work = loop.create_task(calling())
    thread = threading.Thread(target=serving)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(work.cancel)
        thread.join()


def test_a_server_that_hangs_delays_no_other_and_who_disconnects_ends_the_call(
    commands: tuple[Running, Database], echo_server: str
) -> None:
    gateway, database = commands
    mark = f"mark-{secrets.token_hex(8)}"
    add(database, "hung", **command(WIDE, "legacy", f"{mark}={{}}", timeout=80))
    add(database, "wide", **command(WIDE, "legacy"))
    add(database, "echo", url=echo_server)
    call = {"name": "x"}
    assert not result_of(ask(gateway, "tools/call", call))["isError"]
    with callers(gateway, 200):
        assert becomes(lambda: processes_of(mark) >= MOST_COMMANDS)
        began = time.monotonic()
        assert not result_of(ask(gateway, "tools/call", call))["isError"]
        _, result = gateway.talk("echo", "mel", add_two_numbers)
        assert result.structured_content == {"result": 5}
        assert time.monotonic() - began < 30
        assert 0 < processes_of(mark) <= 3 * MOST_COMMANDS
    assert becomes(lambda: processes_of(mark) == 0)


def test_who_waits_for_a_busy_server_waits_as_long_as_its_time_out(
    commands: tuple[Running, Database],
) -> None:
    gateway, database = commands
    mark = f"mark-{secrets.token_hex(8)}"
    add(database, "hung", **command(WIDE, "legacy", f"{mark}={{}}", timeout=80))
    with callers(gateway, MOST_COMMANDS):
        assert becomes(lambda: processes_of(mark) >= 3 * MOST_COMMANDS)
        with database.session(writes=True) as session:
            session.execute(update(Server).where(Server.server_id == "id-hung").values(timeout=1))
            session.commit()
        began = time.monotonic()
        answer = ask(gateway, "tools/call", {"name": "x"}, name="hung", as_="ada")
        assert time.monotonic() - began < 5
        text = result_of(answer)["content"][0]["text"]
    assert text == f"python is busy: {MOST_COMMANDS} other requests did not end within 1 s."


def test_what_is_missing_is_told_as_for_other_servers(
    commands: tuple[Running, Database], client: Callable[[str | None], Any], echo_sse: str
) -> None:
    gateway, database = commands
    wanted = {"name": "CORP_TOKEN", "scope": "user", "description": "yours"}
    own = {"env_vars": [wanted], "static_headers": {"X-Corp-Token": "${CORP_TOKEN}"}}
    add(database, "sse", transport="sse", url=echo_sse, **own)
    with pet_store() as pets:
        add(database, "pets", url=None, spec_path=pets.spec_url, **own)
        for name, tool in (("sse", "show_headers"), ("pets", "list_pets")):
            told = result_of(ask(gateway, "tools/call", {"name": tool}, name=name))
            assert told["isError"]
            assert told["_meta"]["mcp-portal/missing"]["missing"] == ["CORP_TOKEN"]
            assert result_of(ask(gateway, "tools/list", name=name))["tools"]
            path = f"/v1/mcp/server/id-{name}/user-env-vars"
            stored = client("mel").post(path, {"values": {"CORP_TOKEN": "SECRET"}})
            assert stored.status_code == 200
            told = result_of(ask(gateway, "tools/call", {"name": tool}, name=name))
            sent = told["structuredContent"]
            assert (sent.get("headers") or sent)["x-corp-token"] == "SECRET"


def test_a_command_runs_only_where_the_operator_enabled_it(
    commands: tuple[Running, Database], portal: Portal
) -> None:
    _, database = commands
    add(database, "wide", **command(WIDE, "legacy"))
    with running(portal) as gateway:
        told = result_of(ask(gateway, "tools/call", {"name": "x"}))
    assert told["isError"]
    assert told["content"][0]["text"] == "The server is disabled on this portal."


def test_a_refused_token_asks_the_person_to_connect_again(
    commands: tuple[Running, Database],
) -> None:
    gateway, database = commands
    with raw_server(always(401, WWW_Authenticate="Bearer")) as server:
        address = server.url("/sse")
        add(database, "wide", transport="sse", url=address, auth_type="oauth2")
        with database.session(writes=True) as session:
            row = session.get_one(Server, "id-wide")
            tokens = TokenSet("SECRET-at", None, None)
            token_store.keep(session, row, "mel", tokens, issuer=row.address)
            session.commit()
        answer = ask(gateway, "tools/call", {"name": "x"})
    assert server.seen[0].headers["authorization"] == "Bearer SECRET-at"
    assert result_of(answer)["_meta"]["mcp-portal/missing"]["code"] == "sign_in_needed"
    assert "www-authenticate" not in answer.headers


def test_text_that_is_no_unicode_does_not_break_an_answer(
    commands: tuple[Running, Database],
) -> None:
    gateway, database = commands
    call = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
        b'{"name":"addPet","arguments":{"body":{"name":"\\ud800"}}}}'
    )
    with pet_store() as pets:
        add(database, "pets", url=None, spec_path=pets.spec_url)
        headers = {"Content-Type": "application/json"}
        answer = gateway.ask("POST", "/pets/mcp", "mel", content=call, headers=headers)
    assert result_of(answer)["structuredContent"] == {"added": {"name": "\ud800"}}
