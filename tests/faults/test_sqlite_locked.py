"""Another process holds SQLite's write lock for long: what is stored is read on, and a write says
so and keeps nothing half."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import httpx2
import pytest

from tests.faults.conftest import Note
from tests.support.faults.site import IN_FULL, PATIENCE, Site

HELD_SECONDS = 30 if IN_FULL else 0  # at least; until all writers were refused in any case
WRITERS = 24  # more than the two processes of eight threads have


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """Hold the write lock as a backup or a forgotten shell would."""
    with closing(sqlite3.connect(site.folder / "portal.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def forget_when_it_was_last_seen(site: Site) -> None:
    """Make the next request of every session and key due for a note of its use, which is a
    write."""
    with closing(sqlite3.connect(site.folder / "portal.db")) as other, other:
        other.execute(
            "UPDATE sessions SET last_seen_at = datetime('now', '-5 minutes') || '.000000'"
        )
        other.execute("UPDATE api_keys SET last_used_at = NULL")


@pytest.fixture
def started(site: Site) -> Site:
    site.start()
    return site


def a_server(name: str) -> dict[str, str]:
    return {"server_name": name, "transport": "http", "url": "http://127.0.0.1:9/mcp"}


def test_pages_are_read_and_writes_are_refused_until_the_lock_is_gone(
    started: Site, note: Note
) -> None:
    assert (
        started.api(
            "POST", "/v1/mcp/server", json={**a_server("before"), "server_id": "before"}
        ).status_code
        == 201
    )
    with started.signed_in() as browser:
        forget_when_it_was_last_seen(started)
        with locked(started), ThreadPoolExecutor(WRITERS) as threads:
            answers = [
                threads.submit(
                    started.api, "POST", "/v1/mcp/server", json=a_server(f"during{number}")
                )
                for number in range(WRITERS)
            ]
            reads = 0
            end = time.monotonic() + HELD_SECONDS
            while reads < 6 or time.monotonic() < end:
                assert "before" in browser.visit(f"{started.address}/servers").text
                assert started.names() == ["before"]
                reads += 2
            known = started.api(
                "GET", "/v1/mcp/server/before"
            )  # which looks at the server, and cannot note it now
            assert (known.status_code, known.json()["server_name"]) == (200, "before")
            refused = [answer.result() for answer in answers]
        assert Counter(answer.status_code for answer in refused) == {503: WRITERS}
        detail = refused[0].json()["detail"]
        assert (detail["error"], refused[0].headers["Retry-After"]) == ("unavailable", "5")
        assert "Try again" in detail["message"]
        # Nobody was signed out, and the next write goes through.
        assert "before" in browser.visit(f"{started.address}/servers").text
    assert started.api("POST", "/v1/mcp/server", json=a_server("after")).status_code == 201
    assert started.names() == ["after", "before"]
    started.verified()
    note(
        "SQLite locked by another process",
        f"{WRITERS} writes and {reads} reads meanwhile",
        WRITERS + reads,
    )


def test_forms_answer_with_words_and_keep_what_was_typed(started: Site, note: Note) -> None:
    with started.signed_in() as browser:
        address = f"{started.address}/servers/new"
        typed = started.typed(browser, "typed")
        with locked(started):
            page = browser.http.post(address, data=typed)
            piece = browser.http.post(address, data=typed, headers={"HX-Request": "true"})
            stranger = httpx2.get(f"{started.address}/login", timeout=PATIENCE)
        for answer in (page, piece, stranger):
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5"), answer.text
            assert "Try again" in answer.text
            assert "set-cookie" not in answer.headers
        # htmx puts an error above the form, which it leaves as it is (see responseHandling in the
        # page's head).
        assert "<html" not in piece.text
        assert "<html" in page.text
        assert browser.http.post(address, data=typed).status_code == 303
    assert started.names() == ["typed"]
    note("SQLite locked by another process", "a form sent plainly, and by htmx; a sign-in page", 3)
