"""Redis is stopped and started again: it holds counts only, so that people notice nothing. Limits:
test_limits.py."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from tests.faults.conftest import Note
from tests.support.faults.site import Site
from tests.support.peers import (
    StartedProcess,
    bare_environment,
    free_port,
    start_process,
    unavailable,
)


def redis_on(port: int) -> AbstractContextManager[StartedProcess]:
    program = shutil.which("redis-server") or unavailable("redis-server")
    return start_process(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        bare_environment(),
        port,
    )


def test_people_sign_in_and_read_without_redis_and_with_it_again(
    tmp_path: Path, note: Note
) -> None:
    port = free_port()
    site = Site(tmp_path, PORTAL_REDIS_URL=f"redis://127.0.0.1:{port}/0")
    try:
        with redis_on(port):
            site.start()
            served(site)
        served(site)
        with redis_on(port):
            served(site)
        assert "Traceback" not in site.processes["serve"].output()
    finally:
        site.close()
    note("Redis stopped and started", "a sign-in and a page before, meanwhile and afterwards", 3)


def served(site: Site) -> None:
    with site.signed_in() as browser:
        assert browser.visit(f"{site.address}/servers").url == f"{site.address}/servers"
