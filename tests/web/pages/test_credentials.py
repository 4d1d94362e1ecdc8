"""What a person fills in, and the playground that uses it, without a browser."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import NOTES, Client, Write
from tests.support.factories import make_server
from tests.support.html import filled, parse

SignedIn = Callable[[str], Client]
VALUE = "SECRET-of-mine"


@pytest.fixture
def needy(write: Write, echo_server: str) -> str:
    """A server that needs TOKEN of each person and has a real upstream."""
    with write() as session:
        return make_server(
            session,
            "needy",
            url=echo_server,
            allow_all_keys=True,
            static_headers={"X-T": "${TOKEN}", "X-O": "${OTHER}"},
            env_vars=[
                {"name": "TOKEN", "scope": "user", "description": "Ask the desk"},
                {"name": "OTHER", "scope": "user"},
            ],
        )


def setup_form(client: Client, server_id: str) -> Any:
    """The form of a server's own page."""
    return (
        parse(client.get(f"/credentials/{server_id}"))
        .find("main")
        .find("form", action=f"/credentials/{server_id}")
    )


def test_values_are_asked_for_and_never_shown(signed_in: SignedIn, needy: str) -> None:
    """UI-13, UI-15: a password field a name with the Admin's hint; set ones are marked, empty and
    optional."""
    mel = signed_in("mel")
    form = setup_form(mel, needy)
    fields = {tag["name"]: tag for tag in form.find_all("input", type="password")}
    assert list(fields) == ["value-TOKEN", "value-OTHER"]
    assert "Ask the desk" in form.text
    data = filled(form, **{"value-TOKEN": VALUE})
    page = parse(mel.post(f"/credentials/{needy}", data=data), 422)
    assert "Enter OTHER." in page.find(attrs={"data-error-summary": True}).text
    overview = parse(mel.get("/credentials"))
    assert "0 of 1" in overview.text
    form = page.find("main").find("form", action=f"/credentials/{needy}")
    assert "Set" in form.text, "the value that was right is stored already"
    data = filled(form, **{"value-OTHER": VALUE})
    assert mel.post(f"/credentials/{needy}", data=data).status_code == 303
    assert "1 of 1" in parse(mel.get("/credentials")).text
    assert all(
        not tag.get("value") for tag in setup_form(mel, needy).find_all("input", type="password")
    )


def test_saving_sends_the_badge_out_of_band(signed_in: SignedIn, needy: str) -> None:
    """A change that alters a badge elsewhere sends it along: the grid needs no reload."""
    mel = signed_in("mel")
    data = filled(setup_form(mel, needy), **{"value-TOKEN": VALUE, "value-OTHER": VALUE})
    answer = mel.post(f"/credentials/{needy}", data=data, headers={"HX-Request": "true"})
    piece = parse(answer)
    assert not piece.find("html")
    badge = piece.find(id=f"missing-{needy}")
    assert badge["hx-swap-oob"] == "true"
    assert "missing" not in badge.text
    assert piece.find(id="needs-count")["hx-swap-oob"] == "true"


@pytest.mark.parametrize("value", ["a\nb", "x" * 9000])
def test_a_value_that_cannot_be_sent_is_refused(
    signed_in: SignedIn, needy: str, value: str
) -> None:
    """4xx on the field, nothing stored."""
    mel = signed_in("mel")
    data = filled(setup_form(mel, needy), **{"value-TOKEN": value, "value-OTHER": VALUE})
    page = parse(mel.post(f"/credentials/{needy}", data=data), 422)
    assert page.find("input", id="value-TOKEN")["aria-invalid"] == "true"
    assert "0 of 1" in parse(mel.get("/credentials")).text


def test_removing_takes_only_ones_own(signed_in: SignedIn, needy: str) -> None:
    """ENV-15 in the browser."""
    for name in ("mel", "otto"):
        client = signed_in(name)
        data = filled(setup_form(client, needy), **{"value-TOKEN": VALUE, "value-OTHER": VALUE})
        assert client.post(f"/credentials/{needy}", data=data).status_code == 303
    mel = signed_in("mel")
    assert (
        mel.post(f"/credentials/{needy}/forget", data=filled(setup_form(mel, needy))).status_code
        == 303
    )
    assert "0 of 1" in parse(mel.get("/credentials")).text
    assert "1 of 1" in parse(signed_in("otto").get("/credentials")).text


def test_the_playground_asks_in_place_then_calls(signed_in: SignedIn, needy: str) -> None:
    """412 shows the set-up form in place, with and without htmx; then the upstream says what
    arrived."""
    mel = signed_in("mel")
    page = parse(mel.get(f"/playground?server={needy}&tool=show_headers"))
    form = page.find("form", action="/playground/call")
    for headers in ({}, {"HX-Request": "true"}):
        asked = parse(mel.post("/playground/call", data=filled(form), headers=headers), 412)
        assert asked.find("input", id="value-TOKEN")
    data = filled(setup_form(mel, needy), **{"value-TOKEN": "mine-1", "value-OTHER": "mine-2"})
    mel.post(f"/credentials/{needy}", data=data)
    result = parse(mel.post("/playground/call", data=filled(form)))
    assert '"x-t": "mine-1"' in result.find(id="result").text
    assert result.find("dt", string=re.compile("X-T")), "the headers sent are named"


def test_arguments_are_checked_before_they_are_sent(
    signed_in: SignedIn, write: Write, echo_server: str
) -> None:
    """UI-64: widgets by schema, empty optional ones left out, wrong ones refused with what was
    typed kept."""
    with write() as session:
        make_server(session, "tools", url=echo_server, allow_all_keys=True)
    mel = signed_in("mel")
    form = parse(mel.get("/playground?server=id-tools&tool=add")).find(
        "form", action="/playground/call"
    )
    page = parse(
        mel.post("/playground/call", data=filled(form, **{"argument-a": "two", "argument-b": "3"})),
        422,
    )
    assert "whole number" in page.find(attrs={"data-error-summary": True}).text
    assert page.find("input", id="argument-a")["value"] == "two"
    page = parse(
        mel.post("/playground/call", data=filled(form, **{"argument-a": "2", "argument-b": "3"}))
    )
    assert "5" in page.find(id="result").find("pre").text
    form = parse(mel.get("/playground?server=id-tools&tool=search_notes")).find(
        "form", action="/playground/call"
    )
    assert form.find("input", id="argument-limit")["value"] == "5", "defaults are there"
    assert parse(mel.post("/playground/call", data=filled(form, **{"argument-query": "a"})))


def test_a_server_one_may_not_use_is_not_there(signed_in: SignedIn) -> None:
    """A page that a person may not see answers 404 whether or not it exists."""
    otto = signed_in("otto")
    for server_id in (NOTES, "no-such-server"):
        for path in (
            f"/credentials/{server_id}",
            f"/servers/{server_id}",
            f"/playground?server={server_id}",
        ):
            assert otto.get(path).status_code == 404, path
    token = parse(otto.get("/credentials")).find("input", attrs={"name": "csrf_token"})["value"]
    for path in (f"/credentials/{NOTES}", f"/credentials/{NOTES}/key", "/playground/call"):
        data = {"csrf_token": token, "server": NOTES, "tool": "add", "value-X": "y", "key": "k"}
        assert otto.post(path, data=data).status_code in (403, 404), path


def test_an_upstream_that_fails_is_told_in_place(
    client: Any, signed_in: SignedIn, write: Write
) -> None:
    """Tools tab, playground and API say what failed; the host is named to admin view only
    (1-system.md, 5)."""
    with write() as session:
        make_server(session, "gone", allow_all_keys=True)
    for name, learns in (("mel", False), ("ada", True)):
        for path in ("/servers/id-gone/tools?now=1", "/playground?server=id-gone"):
            said = parse(signed_in(name).get(path)).find("main").find(attrs={"class": "alert"}).text
            assert "refused the connection" in said
            assert ("127.0.0.1" in said) is learns
        call = {"server_id": "id-gone", "name": "add", "arguments": {}}
        answer = client(name).post("/v1/mcp/tools/call", call)
        assert answer.status_code == 502
        assert ("127.0.0.1" in answer.get_json()["detail"]["message"]) is learns


@pytest.mark.parametrize(
    ("typed", "words"), [("", "Enter"), ("a\nb", "line break"), ("x" * 9000, "8192 characters")]
)
def test_ui_54_a_key_that_is_refused_says_why(
    client: Any, signed_in: SignedIn, write: Write, typed: str, words: str
) -> None:
    """The dialog tells the API's own words, on the field."""
    with write() as session:
        make_server(session, "own", is_byok=True, auth_type="api_key", allow_all_keys=True)
    mel = signed_in("mel")
    form = (
        parse(mel.get("/credentials/id-own"))
        .find("main")
        .find("form", action="/credentials/id-own/key")
    )
    answer = mel.post(
        "/credentials/id-own/key", data=filled(form, key=typed), headers={"HX-Request": "true"}
    )
    said = parse(answer, 422).find(id="key-error").text
    assert words in said, said
    answer = client("mel").post(
        "/v1/mcp/server/id-own/user-credential", {"credential": typed, "save": True}
    )
    assert answer.status_code in (400, 422)
    if typed:
        assert answer.get_json()["detail"]["message"] in " ".join(said.split())
    assert (
        client("mel")
        .post("/v1/mcp/server/id-own/user-credential", {"credential": "right", "save": True})
        .status_code
        == 200
    )
