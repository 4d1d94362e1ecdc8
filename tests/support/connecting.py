"""Connecting a person to an OAuth server without a screen: out by our page, through the provider,
and back."""

import re
from typing import Any
from urllib.parse import urlsplit

import httpx2
from werkzeug.test import TestResponse

from tests.conftest import Client
from tests.support.html import filled, parse
from tests.support.peers import TRUST

PUBLIC = "http://127.0.0.1:8000"


def depart(client: Client, server_id: str, **fields: Any) -> str:
    """Press *Connect*; answers the provider's address, which the page in between leads to in two
    ways."""
    form = parse(client.get(f"/credentials/{server_id}/connect")).find(
        "form", action=f"/credentials/{server_id}/connect"
    )
    page = parse(client.post(f"/credentials/{server_id}/connect", data=filled(form, **fields)))
    link = page.find("a", string=re.compile("Continue to"))
    refresh = page.select_one("meta[http-equiv=refresh]")
    assert link
    assert refresh
    assert refresh["content"] == f"0;url={link['href']}"
    return str(link["href"])


def at_provider(address: str) -> str:
    """Let the provider answer at once; the path at the portal that it sends the browser back to."""
    answer = httpx2.get(address, timeout=10, verify=TRUST)
    back = answer.headers["location"]
    assert answer.status_code in (302, 303, 307), (answer.status_code, answer.text[:300])
    assert back.startswith(f"{PUBLIC}/oauth/callback?"), back
    parts = urlsplit(back)
    return f"{parts.path}?{parts.query}"


def come_back(client: Client, path: str) -> TestResponse:
    """The way back, up to the result page, without the code in its address."""
    answer = client.get(path)
    assert answer.status_code == 303, answer.get_data(as_text=True)[:500]
    assert "no-referrer" in answer.headers["Referrer-Policy"]
    assert re.fullmatch(r"/oauth/result/[\w-]{20,}", answer.headers["Location"])
    return client.get(answer.headers["Location"])


def connect(client: Client, server_id: str, **fields: Any) -> Any:
    """The whole way; the result page."""
    return parse(come_back(client, at_provider(depart(client, server_id, **fields))))
