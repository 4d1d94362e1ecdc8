"""A portal as `make run` starts it, on a free port, with an empty database of its own."""

import base64
import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.peers import StartedProcess, bare_environment, free_port, start_process

ADMIN = ("admin@portal.local", "correct horse battery")
API_KEY = "sk-journey-bootstrap-key-0001"
expect.set_options(timeout=30_000)  # as long as Playwright waits for everything else


@dataclass(frozen=True)
class Portal:
    """A running portal."""

    url: str
    process: StartedProcess
    folder: Path

    def api(
        self, method: str, path: str, body: object = None, *, key: str = API_KEY
    ) -> tuple[int, Any]:
        """Ask its API; the status and the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _decoded(error.read())


def _decoded(body: bytes) -> Any:
    return json.loads(body) if body else None


@contextmanager
def started_portal(folder: Path, port: int, **more: str) -> Iterator[Portal]:
    """A portal on `port` with its database in `folder` and `more` settings."""
    url = f"http://127.0.0.1:{port}"
    environment = bare_environment(
        PORTAL_DATABASE_URL=f"sqlite:///{folder}/portal.db",
        PORTAL_PUBLIC_URL=url,
        PORTAL_BOOTSTRAP_ADMIN_EMAIL=ADMIN[0],
        PORTAL_BOOTSTRAP_ADMIN_PASSWORD=ADMIN[1],
        PORTAL_BOOTSTRAP_API_KEY=API_KEY,
        PORTAL_ENCRYPTION_KEYS="j1:" + base64.b64encode(b"j" * 32).decode(),
        PORTAL_SECRET_KEY="journey" * 8,
        **more,
    )
    argv = [sys.executable, "-m", "portal.cli", "serve", "--port", str(port)]
    with start_process(argv, environment, port) as process:
        yield Portal(url, process, folder)


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """Its first start, with the Admin's password chosen by us."""
    with started_portal(tmp_path_factory.mktemp("portal"), free_port()) as portal:
        yield portal


SignIn = Callable[..., Page]


@pytest.fixture
def sign_in(portal: Portal, browser_page_factory: Callable[..., Page]) -> SignIn:
    """`sign_in(email, password, **context)`: a page of a browser in which that person has signed
    in.

    `new_password` is what they choose in place of a one-time password.
    """

    def signing_in(
        email: str = ADMIN[0],
        password: str = ADMIN[1],
        *,
        new_password: str | None = None,
        **context: Any,
    ) -> Page:
        page = browser_page_factory(**context)
        page.goto(f"{portal.url}/login")
        page.get_by_label("Email").fill(email)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        if new_password:
            page.get_by_label("Current password").fill(password)
            page.get_by_label("New password", exact=True).fill(new_password)
            page.get_by_label("Confirm new password").fill(new_password)
            page.get_by_role("button", name="Save and continue").click()
        expect(page.get_by_role("heading", name="Servers", exact=True)).to_be_visible()
        return page

    return signing_in


def path_of(page: Page) -> str:
    """The path of the page's address."""
    return re.sub(r"^https?://[^/]+", "", page.url)
