"""The first visit in Chromium with an empty cache: requests, bytes, time to the first card."""

import contextlib
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

from bench.running import ROOT, Running, free_port, serving

CHROMIUM = "/usr/bin/chromium"
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
_VISITS = 3
# Runs in the page: records when the first element matches `selector`.
_WATCH = """selector => {
  const look = () => {
    if (window.__first === undefined && document.querySelector(selector))
      window.__first = performance.now();
  };
  new MutationObserver(look).observe(document, {childList: true, subtree: true});
  document.addEventListener('readystatechange', look);
}"""
_NGINX = ROOT / "deploy" / "nginx" / "nginx.conf"


@dataclass(frozen=True)
class Visit:
    """Medians of several first visits; the time is in milliseconds from navigation start."""

    requests: int
    kilobytes: float
    first_card: float


def visit(url: str, selector: str, cookies: dict[str, str], visits: int = _VISITS) -> Visit:
    """Visit `url` several times, each with an empty cache, until `selector` and network idle."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            seen = []
            for number in range(visits + 1):
                context = chromium.new_context(viewport={"width": 1440, "height": 900})
                context.add_cookies(
                    [{"name": n, "value": v, "url": url} for n, v in cookies.items()]
                )
                found = _visit(context.new_page(), url, selector)
                context.close()
                if number:  # the first visit also starts Chromium's own processes
                    seen.append(found)
        finally:
            chromium.close()
    return Visit(
        round(statistics.median(v.requests for v in seen)),
        statistics.median(v.kilobytes for v in seen),
        statistics.median(v.first_card for v in seen),
    )


def _visit(page: Page, url: str, selector: str) -> Visit:
    sizes: dict[str, float] = {}
    network: Any = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.on(
        "Network.loadingFinished",
        lambda e: sizes.__setitem__(e["requestId"], e["encodedDataLength"]),
    )
    page.add_init_script(f"({_WATCH})({selector!r})")
    page.goto(url, wait_until="load", timeout=90_000)
    page.wait_for_selector(selector, state="attached", timeout=90_000)
    with contextlib.suppress(Exception):  # a polling page is never idle
        page.wait_for_load_state("networkidle", timeout=5_000)
    first = page.evaluate("window.__first")
    assert urlsplit(page.url).path == urlsplit(url).path, f"sent on to {page.url}"
    return Visit(len(sizes), sum(sizes.values()) / 1000, first)


@contextlib.contextmanager
def behind_nginx(portal: Running, folder: Path) -> Iterator[int | None]:
    """Run Debian's nginx in front of a portal, with the deployment config; yield its port.

    Yields None if nginx is not installed.
    """
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if nginx is None:
        yield None
        return
    folder.chmod(0o711)  # if started as root, nginx drops privileges and must still reach its files
    folder = folder / "nginx"
    folder.mkdir()
    port = free_port()
    shutil.copy(_NGINX, folder)
    (folder / "members.conf").write_text(f"server 127.0.0.1:{portal.port};\n")
    (folder / "gateways.conf").write_text("server 127.0.0.1:1;\n")  # nothing asks for one
    (folder / "listen.conf").write_text(f"listen 127.0.0.1:{port};\n")
    argv = [
        nginx,
        "-p",
        f"{folder}/",
        "-c",
        folder / "nginx.conf",
        "-e",
        "stderr",
        "-g",
        "daemon off;",
    ]
    with serving(argv, {"PATH": "/usr/sbin:/usr/bin"}, port):
        yield port
