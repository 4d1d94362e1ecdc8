"""A browser without a screen: cookies, redirects and forms over plain HTTP, for flows that need no
script."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2
from bs4 import BeautifulSoup, Tag

from tests.support.peers import TRUST

REDIRECTS = (301, 302, 303, 307, 308)
MOST_HOPS = 20


@dataclass(frozen=True)
class Arrival:
    """Where a visit ended. `status` is that of the redirect, and `text` empty, where it stopped
    before `url`."""

    url: str
    status: int
    text: str = ""
    hops: list[str] = field(default_factory=list)

    @property
    def query(self) -> dict[str, str]:
        """The query parameters of `url`."""
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))

    @property
    def soup(self) -> BeautifulSoup:
        """The page, parsed."""
        return BeautifulSoup(self.text, "html.parser")


class HttpBrowser:
    """Keeps cookies as a browser does, by host and not by port. Close it, or use it as a context
    manager."""

    def __init__(self, cookies: Mapping[str, str] | None = None, timeout: float = 15) -> None:
        html = {"Accept": "text/html"}
        self.http = httpx2.Client(
            cookies=dict(cookies or {}), timeout=timeout, headers=html, verify=TRUST
        )

    def __enter__(self) -> "HttpBrowser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self.http.close()

    def visit(self, url: str, until: str | None = None) -> Arrival:
        """Open `url` and follow redirects, but none to an address that begins with `until`: there
        it stops."""
        return self._follow("GET", url, None, until)

    def submit(
        self, page: Arrival, button: str | None = None, until: str | None = None, **fields: str
    ) -> Arrival:
        """Send the form with the button of that text (the first form without one), filled in with
        `fields`.

        Raises AssertionError where the page has no such form.
        """
        form, pressed = _form_of(page, button)
        inputs = [
            tag
            for tag in form.find_all(["input", "textarea"])
            if isinstance(tag, Tag) and tag.get("name")
        ]
        ticked = [
            tag
            for tag in inputs
            if tag.get("type") not in ("checkbox", "radio") or tag.has_attr("checked")
        ]
        values = {
            str(tag["name"]): str(tag.get("value", tag.text))
            for tag in ticked
            if tag.get("type") != "submit"
        }
        if pressed is not None and pressed.get("name"):
            values[str(pressed["name"])] = str(pressed.get("value", ""))
        values |= fields
        own = pressed.get("formaction") if pressed is not None else None
        target = urljoin(page.url, str(own or form.get("action") or page.url))
        if str(form.get("method", "get")).lower() == "post":
            return self._follow("POST", target, values, until, came_from=page.url)
        return self._follow("GET", str(httpx2.URL(target, params=values)), None, until)

    def _follow(
        self,
        method: str,
        url: str,
        data: dict[str, str] | None,
        until: str | None,
        came_from: str | None = None,
    ) -> Arrival:
        hops = [url]
        headers = {"Referer": came_from, "Origin": _origin(came_from)} if came_from else {}
        for _ in range(MOST_HOPS):
            answer = self.http.request(method, url, data=data, headers=headers)
            if answer.status_code not in REDIRECTS:
                return Arrival(url, answer.status_code, answer.text, hops)
            url = urljoin(url, answer.headers["location"])
            hops.append(url)
            if until is not None and url.startswith(until):
                return Arrival(url, answer.status_code, "", hops)
            if answer.status_code not in (307, 308):
                method = "GET"
                data = None
                headers = {}
        raise AssertionError(f"redirects without end: {hops}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _form_of(page: Arrival, button: str | None) -> tuple[Tag, Tag | None]:
    """Return the form, and its button where one is named; a button may name its form from
    outside."""
    soup = page.soup
    if button is None:
        first = soup.find("form")
        assert isinstance(first, Tag), f"no form on {page.url}: {page.text[:500]}"
        return first, None
    for tag in soup.find_all(["button", "input"]):
        said = tag.get_text(" ", strip=True) or str(tag.get("value", ""))
        if not re.fullmatch(re.escape(button), said) or tag.get("type") not in (None, "submit"):
            continue
        form = (
            soup.find("form", id=str(tag["form"])) if tag.get("form") else tag.find_parent("form")
        )
        assert isinstance(form, Tag), f"the button {button} belongs to no form"
        return form, tag
    raise AssertionError(f"no button {button!r} on {page.url}: {page.text[:500]}")
