"""Trying a definition out from its form, by the numbers of the behaviours."""

from collections.abc import Callable
from typing import Any

from tests.conftest import Client
from tests.support.html import filled, parse
from tests.support.server_forms import NEW, form_of

SignedIn = Callable[[str], Client]


def test_ui_48_the_test_panel_says_how_it_went(signed_in: SignedIn, echo_server: str) -> None:
    ada = signed_in("ada")
    form = form_of(ada.get(NEW))
    assert not form.find(id="test-result").text.strip()
    htmx = {"HX-Request": "true"}

    def tried(**typed: Any) -> Any:
        return parse(ada.post("/servers/test", data=filled(form, **typed), headers=htmx))

    unnamed = tried(url=echo_server)
    assert "Complete the required fields" in unnamed.text
    assert "Enter a name" in unnamed.text
    good = tried(server_name="s", url=echo_server)
    assert "Connection successful" in good.text
    assert "5 tools" in good.text
    assert not good.find("button", string=lambda text: text and "Retry" in text)
    bad = tried(server_name="s", url="http://127.0.0.1:9/mcp")
    assert "refused the connection" in bad.text
    assert "Retry" in [b.text.strip() for b in bad.find_all("button")]
    parse(ada.post("/servers/test", data=filled(form)))  # the page without JavaScript


def test_ui_48_a_server_without_tools_is_told_so(signed_in: SignedIn, toolless: str) -> None:
    ada = signed_in("ada")
    data = filled(form_of(ada.get(NEW)), server_name="s", url=toolless)
    assert "No tools found" in parse(ada.post("/servers/test", data=data)).text
