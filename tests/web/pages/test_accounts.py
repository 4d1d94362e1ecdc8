"""Signing in and out, and one's own account."""

import re
from collections.abc import Callable

import pytest
from flask import Flask

from portal.domain.principals import OPERATOR
from portal.services.access import users
from portal.web.pages.accounts import own_path
from tests.conftest import Client, Write
from tests.support.factories import PASSWORD
from tests.support.html import filled, parse

SignedIn = Callable[[str], Client]


def sign_in_form(app: Flask, **typed: str) -> tuple[Client, dict[str, object]]:
    """A stranger's browser, and the sign-in form with what they type."""
    client = Client(app.test_client(), {})
    form = parse(client.get("/login")).find("form", action="/login")
    return client, filled(form, **typed)


def test_wrong_password_and_unknown_person_get_the_same_answer(app: Flask) -> None:
    """Nobody learns who has an account."""
    answers = []
    for email in ("ada@example.com", "nobody@example.com"):
        client, data = sign_in_form(app, email=email, password="not the one")
        page = parse(client.post("/login", data=data), 422)
        assert page.find("input", id="email")["value"] == email, "what was typed is still there"
        assert not page.find("input", id="password").get("value")
        answers.append(page.find(attrs={"role": "alert"}).text)
    assert answers[0] == answers[1]


def test_a_deactivated_person_cannot_come_in_and_is_out_at_once(
    app: Flask, signed_in: SignedIn, write: Write
) -> None:
    """Sessions end with the account."""
    mel = signed_in("mel")
    with write() as session:
        users.change_user(session, OPERATOR, "mel", {"is_active": False})
    assert mel.get("/servers").status_code == 303
    client, data = sign_in_form(app, email="mel@example.com", password=PASSWORD)
    assert client.post("/login", data=data).status_code == 422


def test_too_many_tries_are_stopped(app: Flask) -> None:
    """Ten tries at one account in five minutes, then 429, whatever the password."""
    client, data = sign_in_form(app, email="otto@example.com", password="guess")
    statuses = [client.post("/login", data=data).status_code for _ in range(11)]
    assert statuses[:10] == [422] * 10
    assert statuses[10] == 429


def test_sign_in_changes_the_session_id_and_sign_out_ends_it(app: Flask) -> None:
    """A session id planted before sign-in is worth nothing, and a copied cookie nothing after
    sign-out."""
    browser = app.test_client()
    client = Client(browser, {})
    form = parse(client.get("/login")).find("form", action="/login")
    planted = browser.get_cookie("portal")
    data = filled(form, email="ada@example.com", password=PASSWORD)
    assert client.post("/login", data=data).status_code == 303
    live = browser.get_cookie("portal")
    assert planted is not None
    assert live is not None
    assert planted.value != live.value
    assert live.http_only
    assert live.same_site == "Lax"
    page = parse(client.get("/servers"))
    out = filled(page.find("form", action="/logout"))
    assert client.post("/logout", data=out).headers["Location"].endswith("/login")
    for cookie in (planted.value, live.value):
        stale = app.test_client()
        stale.set_cookie("portal", cookie)
        assert stale.get("/servers").status_code == 303


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/a\nb",
        "\\\\evil",
        "",
        None,
        "/\tevil",
        "http:evil",
        "/ok\\..\\..",
        "/" + "x" * 5000,
    ],
)
def test_next_leads_nowhere_but_here(app: Flask, target: str | None) -> None:
    """`next` is a path of ours or the start page (R-AUTHN-17)."""
    with app.test_request_context():
        assert own_path(target) == "/servers"
        assert own_path("/credentials/a%26b?x=1") == "/credentials/a%26b?x=1"


def test_a_deep_link_survives_the_sign_in(app: Flask) -> None:
    """From an error in an AI client to the page it names."""
    client = Client(app.test_client(), {})
    answer = client.get("/credentials/id-notes?x=1")
    assert answer.status_code == 303
    form = parse(client.get(answer.headers["Location"])).find("form", action="/login")
    done = client.post("/login", data=filled(form, email="mel@example.com", password=PASSWORD))
    assert done.headers["Location"].endswith("/credentials/id-notes?x=1")


def test_a_one_time_password_is_changed_before_anything_else(app: Flask, write: Write) -> None:
    """Until then every page leads to the form; after it the old password is worth nothing."""
    with write() as session:
        users.change_user(
            session, OPERATOR, "otto", {"password": "one time only", "must_change_password": True}
        )
    client, data = sign_in_form(app, email="otto@example.com", password="one time only")
    assert client.post("/login", data=data).status_code == 303
    assert client.get("/servers").headers["Location"].endswith("/profile/password")
    assert client.get("/v1/me").get_json()["detail"]["error"] == "forbidden"
    form = parse(client.get("/profile/password")).find("form")
    typed = {
        "current_password": "one time only",
        "new_password": "short",
        "repeat_password": "short",
    }
    page = parse(client.post("/profile/password", data=filled(form, **typed)), 422)
    assert "characters or more" in page.text
    typed |= {"new_password": "a much longer one", "repeat_password": "a much longer one"}
    assert client.post("/profile/password", data=filled(form, **typed)).status_code == 303
    assert client.get("/servers").status_code == 200
    client, data = sign_in_form(app, email="otto@example.com", password="one time only")
    assert client.post("/login", data=data).status_code == 422


def test_the_profile_lists_sessions_and_ends_them(signed_in: SignedIn) -> None:
    """One by one, and all others at once; the one that asks stays."""
    here = signed_in("mel")
    there = signed_in("mel")
    page = parse(here.get("/profile"))
    form = page.find("form", action=re.compile("/profile/sessions/end$"))
    assert here.post("/profile/sessions/end", data=filled(form)).status_code == 303
    assert there.get("/servers").status_code == 303
    assert here.get("/servers").status_code == 200


def test_theme_and_name_are_kept(signed_in: SignedIn) -> None:
    """The page wears the theme that was chosen."""
    mel = signed_in("mel")
    form = parse(mel.get("/profile")).find("form", action="/profile")
    assert (
        mel.post("/profile", data=filled(form, theme="dark", display_name="Melanie")).status_code
        == 303
    )
    page = parse(mel.get("/servers"))
    assert page.html["data-theme"] == "dark"
    assert "Melanie" in page.text
    assert parse(mel.post("/profile", data=filled(form, theme="pink")), 422)
