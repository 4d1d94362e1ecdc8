"""The tests' own peers are real ones, answer, and leave nothing behind."""

import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import psycopg
import pytest
import redis
from playwright.sync_api import Page

from tests.support.peers import AXE, accepts, bare_environment, free_port, start_process

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "tests", "version": "0"},
    },
}


def serve_folder(folder: Path, port: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "http.server",
        str(port),
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
    ]


@pytest.mark.parametrize("peer", ["everything_server", "echo_server"])
def test_an_mcp_server_answers_initialize(peer: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(peer)
    answer = httpx2.post(
        url, json=INITIALIZE, headers={"Accept": "application/json, text/event-stream"}
    )
    assert answer.status_code == 200
    assert '"serverInfo"' in answer.text


def test_the_sse_server_names_its_message_endpoint(everything_sse: str) -> None:
    with httpx2.stream("GET", everything_sse) as answer:
        assert next(answer.iter_lines()) == "event: endpoint"


def test_postgres_gives_this_process_a_database_of_its_own(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.info.dbname.startswith("portal_shared_")
        connection.execute("CREATE TEMPORARY TABLE ours (id integer)")


def test_redis_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


def test_chromium_renders_a_page(browser_page_factory: Callable[..., Page]) -> None:
    page = browser_page_factory(color_scheme="dark")
    page.set_content("<title>Servers</title>")
    assert page.title() == "Servers"
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")


def test_the_accessibility_checker_is_installed(browser_page_factory: Callable[..., Page]) -> None:
    page = browser_page_factory()
    page.set_content("<img src=data:,>")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "axe.run().then(result => result.violations.map(violation => violation.id))"
    )
    assert "image-alt" in found


def test_a_process_that_dies_at_its_start_shows_what_it_said() -> None:
    argv = [sys.executable, "-c", "raise SystemExit('no such option: --prot')"]
    with (
        pytest.raises(AssertionError, match="ended with 1:\nno such option: --prot"),
        start_process(argv, bare_environment(), free_port()),
    ):
        pytest.fail("it never became ready")


def test_a_process_is_gone_when_its_block_ends(tmp_path: Path) -> None:
    port = free_port()
    with start_process(serve_folder(tmp_path, port), bare_environment(), port) as server:
        assert accepts(port)
    assert not accepts(port)
    assert server.process.returncode is not None


def test_a_process_gets_no_more_environment_than_it_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PORTAL_SECRET_KEY", "ours")
    told = tmp_path / "told"
    argv = [
        sys.executable,
        "-c",
        f"import os; open({str(told)!r}, 'w').write(repr(dict(os.environ)))",
    ]
    with (
        pytest.raises(AssertionError, match="ended with 0"),
        start_process(argv, bare_environment(), free_port()),
    ):
        pytest.fail("it never became ready")
    assert "PORTAL_SECRET_KEY" not in told.read_text()
