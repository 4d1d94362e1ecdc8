"""Start the demo in an empty folder, use it as the sample Member Mel does, and take a picture at
each step.

Elements are found by what they lead to and not by their texts, so that a picture does not fail when
a word changes.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page

from tests.support.peers import accepts, bare_environment, free_port, start_process

WIDE: dict[str, Any] = {"viewport": {"width": 1440, "height": 760}, "color_scheme": "light"}
PHONE_DARK: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
SECONDS_FOR_HEALTH = 60.0


class Member:
    """Mel in a browser: the running demo's address and how she signs in."""

    def __init__(self, browser: Browser, url: str, password: str) -> None:
        self._browser, self._url, self._password = browser, url, password
        self._session: Any = None

    def page(self, **context: Any) -> Page:
        """Return a page in a browser context of its own, signed in, on the grid of servers."""
        opened = self._browser.new_context(
            reduced_motion="reduce", storage_state=self._session, **context
        )
        page = opened.new_page()
        if self._session is None:
            page.goto(f"{self._url}/login")
            page.locator("input[name=email]").fill("mel@demo.example")
            page.locator("input[name=password]").fill(self._password)
            page.locator("input[name=password]").press("Enter")
            page.wait_for_url("**/servers")
            self._wait_for_health(page)
            self._session = opened.storage_state()
        page.goto(f"{self._url}/servers", wait_until="networkidle")
        return page

    def _wait_for_health(self, page: Page) -> None:
        """Wait until the worker has looked at every server, so that the grid shows what people see
        later."""
        deadline = time.monotonic() + SECONDS_FOR_HEALTH
        while any(server["last_health_check"] is None for server in self._servers(page)):
            assert time.monotonic() < deadline, "the worker checks every server"
            page.wait_for_timeout(250)

    def _servers(self, page: Page) -> list[dict[str, Any]]:
        answer = page.request.get(f"{self._url}/v1/mcp/server")
        assert answer.ok, answer.text()
        servers: list[dict[str, Any]] = answer.json()
        return servers


def card(page: Page, name: str) -> Locator:
    """Return the card of the server `name`."""
    return page.locator("[data-item]").filter(
        has=page.locator("a.cover", has_text=re.compile(rf"^\s*{name}\s*$"))
    )


def open_setup(page: Page) -> Locator:
    """Open the dialog that asks for the missing value of `echo`; return its field."""
    card(page, "echo").locator("[href*='/credentials/']").first.click()
    field = page.locator("dialog[open] input[type=password], dialog[open] input[type=text]").first
    field.wait_for()
    return field


def grid(member: Member) -> Page:
    """The grid: health, and what is missing, in red."""
    return member.page(**WIDE)


def grid_on_a_phone(member: Member) -> Page:
    """The same on a phone, in dark mode, at the card that needs something."""
    page = member.page(**PHONE_DARK)
    card(page, "echo").evaluate(
        "card => card.scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    return page


def setup_dialog(member: Member) -> Page:
    """The dialog that asks for the value."""
    page = member.page(**WIDE)
    open_setup(page)
    return page


def tool_result(member: Member) -> Page:
    """The playground with the answer of `show_headers`, after the value was stored."""
    page = member.page(**WIDE)
    field = open_setup(page)
    field.fill("mels-own-token")
    field.press("Enter")
    page.locator("dialog[open] .alert.ok").wait_for()  # saved, and the server answered
    page.keyboard.press("Escape")
    page.locator("nav a[href$='/playground']").first.click()
    page.locator("select[name=server]").select_option(label="echo")
    page.locator("#tool-list a", has_text="show_headers").click()
    page.locator("#form button.primary").click()
    page.locator("#result pre", has_text="x-corp-token").first.wait_for()
    return page


PICTURES: dict[
    str, Callable[[Member], Page]
] = {  # in this order: the last one stores the value that is missing before
    "grid.png": grid,
    "phone-dark.png": grid_on_a_phone,
    "set-up.png": setup_dialog,
    "playground.png": tool_result,
}


@contextmanager
def demo(folder: Path) -> Iterator[tuple[str, str]]:
    """Run `portal demo` in `folder`; yield its address and the password of the sample people."""
    port = free_port()
    argv = [sys.executable, "-m", "portal.cli", "demo", "--port", str(port)]
    environment = bare_environment(PORTAL_CHEAP_HASHING="true", PYTHONUNBUFFERED="1")
    with start_process(argv, environment, lambda: accepts(port), cwd=folder) as process:
        [password] = re.findall(r"Sample users +password (\S+)", process.output())
        yield f"http://127.0.0.1:{port}", password


def take(browser: Browser, data: Path, into: Path) -> None:
    """Take every picture of `PICTURES` from a demo that keeps its data in `data`; write them to the
    folder `into`."""
    with demo(data) as (url, password):
        member = Member(browser, url, password)
        for name, draw in PICTURES.items():
            page = draw(member)
            page.evaluate("document.activeElement?.blur()")
            page.screenshot(path=into / name, animations="disabled", caret="hide")
            page.context.close()
