"""Hidden and bidirectional characters are named wherever a text of somebody else is shown, and
reorder nothing."""

import re
from collections.abc import Callable
from html import unescape

import pytest

from portal.domain.suspicious_text import characters
from portal.web.marking import mark_page
from tests.conftest import Client, Write
from tests.support.factories import make_server

HIDDEN = (
    "\u202e",
    "\u2066",
    "\u200b",
    "\u00ad",
    "\ufeff",
    "\U000e0041",
    "\ufe01",
    "\u0301" * 9,
    "\u200f",
    "\u2800",
    "\x1b",
)
TEXT = re.compile(r"<(script|style|textarea)\b.*?</\1>|<[^>]*>", re.S)
SHOWN = re.compile(r"\s(?:title|aria-label|alt|placeholder|data-label)=\"([^\"]*)\"")


def unmarked(page: str) -> list[str]:
    """What is shown of a page and cannot be seen."""
    texts = [*TEXT.sub("\n", page).split("\n"), *SHOWN.findall(page)]
    return [text for text in texts if any(not mark.visible for mark in characters(unescape(text)))]


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(
    "page",
    [
        "<p>a{}b</p>",
        "<title>a{}b</title>",
        "<option>a{}b</option>",
        '<b title="a{}b" aria-label="{}">x</b>',
        "<pre>a\n{}</pre>tail {}",
        '<input value="x" placeholder="{}">',
        "plain {}",
    ],
)
def test_what_is_hidden_is_named_in_its_place(page: str, hidden: str) -> None:
    given = page.replace("{}", hidden)
    shown = mark_page(given.encode()).decode()
    assert unmarked(given)
    assert unmarked(shown) == []
    assert "U+" in shown


def test_what_a_form_sends_back_stays_and_is_named_below() -> None:
    for page in ('<input name="a" value="x\u202ey">', "<textarea name=a>x\u202ey</textarea>"):
        shown = mark_page(page.encode()).decode()
        assert shown.startswith(page)
        assert "Contains U+202E" in shown
    kept = '<input type="hidden" value="x\u202ey"><script>"\u202e"</script>'
    assert mark_page(kept.encode()).decode() == kept


def test_text_from_right_to_left_is_isolated_and_honest_text_stays() -> None:
    assert mark_page("<p>Server אבג 12</p>".encode()).decode() == "<p>Server <bdi>אבג</bdi> 12</p>"
    for text in ("<p>naïve “x” … 日本 привет ❤️ 🏳️‍🌈 👨🏽‍💻</p>", "<p>plain</p>\n"):
        assert mark_page(text.encode()).decode() == text


def test_submissions_are_marked_wherever_they_are_reviewed(
    client: Callable[[str | None], Client], signed_in: Callable[[str], Client], write: Write
) -> None:
    bad = "say \u202eevil\u2066 \u200bwords\u00ad\ufeff\U000e0041"
    with write() as session:
        make_server(
            session,
            "live",
            description=bad,
            instructions=bad,
            allow_all_keys=True,
            byok_description=[bad],
        )
    body = {
        "server_name": "waits",
        "transport": "http",
        "url": "http://127.0.0.1:9/x",
        "description": bad,
        "instructions": bad,
        "env_vars": [{"name": "A", "scope": "user", "description": bad}],
    }
    made = client("mel").post("/v1/mcp/server/register", body)
    assert made.status_code == 201, made.get_json()
    waits = made.get_json()["server_id"]
    for name in ("ada", "vera", "mel"):
        browser = signed_in(name)
        seen = 0
        for path in (
            "/servers",
            "/servers?view=table",
            "/servers/id-live",
            "/servers/id-live/configuration",
            "/admin/submissions",
            "/servers/id-live/edit",
            f"/admin/submissions/{waits}",
            "/submissions/mine",
            f"/submissions/{waits}/edit",
            "/admin/audit",
            "/servers/id-live/activity",
            "/credentials",
            "/credentials/id-live",
            "/servers/id-live/connect",
        ):
            page = browser.get(path)
            assert unmarked(page.get_data(as_text=True)) == [], (name, path)
            seen += "U+202E RIGHT-TO-LEFT OVERRIDE" in page.get_data(as_text=True)
        assert seen >= 2, name
