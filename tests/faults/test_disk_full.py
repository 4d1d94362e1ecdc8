"""No space for the database: what is stored is read on, writes say why they are refused, and space
is all it needs."""

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Note
from tests.support.faults.site import Site, until

SERVER: dict[str, Any] = {
    "transport": "http",
    "url": "http://127.0.0.1:9/mcp",
    "static_headers": {"X-Key": "SECRET"},
}
MEGABYTE = 1024 * 1024
Full = Callable[[Site], AbstractContextManager[None]]


@contextlib.contextmanager
def a_full_disk(site: Site) -> Iterator[None]:
    """Another program takes all that is left."""
    filler = site.folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    yield
    filler.unlink()


@contextlib.contextmanager
def a_size_limit(site: Site) -> Iterator[None]:
    """No file of the portal may grow beyond a page: what a quota does, where nothing can be
    mounted."""
    pids = [site.processes["serve"].pid, site.worker_pid(), *site.web_pids()]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids if pid is not None}
    for pid, (_, most) in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, most))
    yield
    for pid, before in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.fixture(params=["tmpfs", "size limit"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Full]:
    if request.param == "size limit":
        yield a_size_limit
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is refused here; the size limit takes its place")
    yield a_full_disk
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_reads_go_on_and_writes_say_that_the_disk_is_full(
    full: Full, site: Site, note: Note
) -> None:
    site.start()
    for number in range(3):
        assert (
            site.api(
                "POST", "/v1/mcp/server", json={**SERVER, "server_name": f"before{number}"}
            ).status_code
            == 201
        )
    with site.signed_in() as browser:
        typed = site.typed(browser, "typed")
        kept = {"before0", "before1", "before2"}
        tries = 0
        with full(site):
            refused = None
            while refused is None:  # what fits into pages that the file has already is stored
                tries += 1
                answer = site.api(
                    "POST", "/v1/mcp/server", json={**SERVER, "server_name": f"full{tries}"}
                )
                assert answer.status_code in (201, 503), answer.text
                if answer.status_code == 201:
                    kept.add(f"full{tries}")
                else:
                    refused = answer
            assert refused.headers["Retry-After"] == "5"
            assert "disk of the portal’s database is full" in refused.json()["detail"]["message"]
            saved = browser.http.post(f"{site.address}/servers/new", data=typed)
            assert saved.status_code == 503
            assert "disk of the portal’s database is full" in saved.text
            assert site.names() == sorted(kept)
            assert "before0" in browser.visit(f"{site.address}/servers").text
        until(lambda: added(site, "after"), "a write goes through when there is space again")
        assert site.names() == sorted({*kept, "after"})
    site.verified()
    found = subprocess.run(
        ["sqlite3", site.folder / "portal.db", "PRAGMA integrity_check"], capture_output=True
    )
    assert found.stdout.strip() == b"ok"
    note("disk full", full.__name__.removeprefix("a_").replace("_", " "), tries + 1)


def added(site: Site, name: str) -> bool:
    return (
        site.api("POST", "/v1/mcp/server", json={**SERVER, "server_name": name}).status_code == 201
    )
