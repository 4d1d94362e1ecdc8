"""A password is judged wherever one is set, and what else was typed is still there."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from portal.store.oauth_tables import AppGrant
from tests.conftest import Client, Write
from tests.support.factories import PASSWORD
from tests.support.html import parse
from tests.support.peers import bare_environment
from tests.support.security.callers import token_in

As = Callable[[str | None], Client]
WEAK = {"password1234": "too easy to guess", "xq7-mel@example.com-zw9": "your email or name"}


@pytest.mark.parametrize("weak", WEAK)
def test_one_s_own_new_password(signed_in: As, weak: str) -> None:
    mel = signed_in("mel")
    token = token_in(mel.get("/profile/password"))
    form = {
        "csrf_token": token,
        "current_password": PASSWORD,
        "new_password": weak,
        "repeat_password": weak,
    }
    answer = mel.ask("POST", "/profile/password", data=form)
    assert WEAK[weak] in parse(answer, 422).get_text()
    assert weak not in answer.get_data(as_text=True)
    assert signed_in("mel"), "the old one is still right"


def test_one_s_own_new_password_ends_the_tokens_of_one_s_apps(signed_in: As, write: Write) -> None:
    with write() as session:
        for user_id in ("mel", "otto"):
            session.add(
                AppGrant(
                    user_id=user_id,
                    client_id="app",
                    client_hash="0" * 64,
                    redirect_uri="http://127.0.0.1/",
                )
            )
    mel = signed_in("mel")
    new = "an entirely different one"
    form = {
        "csrf_token": token_in(mel.get("/profile/password")),
        "current_password": PASSWORD,
        "new_password": new,
        "repeat_password": new,
    }
    assert mel.ask("POST", "/profile/password", data=form).status_code == 303
    with write() as session:
        assert [grant.user_id for grant in session.query(AppGrant)] == ["otto"]


@pytest.mark.parametrize("weak", WEAK)
def test_the_api_names_the_field(client: As, weak: str) -> None:
    new = {"email": "new@example.com", "display_name": "mel@example.com", "password": weak}
    for method, path, body in (
        ("POST", "/v1/users", new),
        ("PATCH", "/v1/users/mel", {"password": weak}),
    ):
        answer = client("ada").ask(method, path, json=body)
        assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, "password"), body
        assert WEAK[weak] in answer.get_json()["detail"]["message"]


def test_an_admin_s_page_keeps_what_else_was_typed(signed_in: As) -> None:
    ada = signed_in("ada")
    token = token_in(ada.get("/admin/users/new"))
    form = {
        "csrf_token": token,
        "email": "nina@example.com",
        "display_name": "Nina Novak",
        "role": "internal_user",
        "password": "ninanovak-xq7-zw9",
    }
    page = parse(ada.ask("POST", "/admin/users/new", data=form), 422)
    assert "your email or name" in page.get_text()
    assert [page.find(id=name)["value"] for name in ("email", "display_name")] == [
        "nina@example.com",
        "Nina Novak",
    ]
    answer = ada.ask(
        "POST", "/admin/users/mel/password", data={"csrf_token": token, "password": "letmein2024!"}
    )
    assert "too easy to guess" in parse(answer, 422).get_text()


def test_passwords_that_are_weak_already_keep_working(
    app: Flask, write: Callable, signed_in: As
) -> None:  # type: ignore[type-arg]
    from portal.services.runtime import runtime_of
    from portal.store.models import User

    with write() as session:
        session.get(User, "mel").password_hash = runtime_of(session).hasher.hash("password")
    browser = app.test_client()
    form = {
        "email": "mel@example.com",
        "password": "password",
        "csrf_token": token_in(browser.get("/login")),
    }
    assert browser.post("/login", data=form).status_code == 303


@pytest.mark.parametrize(
    ("email", "taken"),
    [
        ("nina@exämple.com", "nina@xn--exmple-cua.com"),
        ("Nina@Example.COM", "nina@example.com"),
        ("n@еxample.com", None),
        ("n@example.com.", None),
        ("n@ｅxample.com", None),
        ("no address", None),
    ],
)
def test_e_mails_are_stored_in_one_form(client: As, email: str, taken: str | None) -> None:
    answer = client("ada").post("/v1/users", {"email": email})
    if taken is None:
        assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, "email")
        return
    assert answer.get_json()["email"] == taken
    assert client("ada").post("/v1/users", {"email": taken}).status_code == 409
    assert client("ada").post("/v1/users", {"email": email.upper()}).status_code == 409


def portal(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = bare_environment(PORTAL_DATABASE_URL=f"sqlite:///{folder}/portal.db", **settings)
    return subprocess.run(
        [sys.executable, "-m", "portal.cli", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
    )


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_the_commands_refuse_them_too(tmp_path: Path, database_kind: str) -> None:
    given = portal(tmp_path, "users", "add", "nina@example.com", "--password", "password1234")
    assert given.returncode == 1
    assert "too easy to guess" in given.stderr
    started = portal(
        tmp_path, "serve", "--port", "1", PORTAL_BOOTSTRAP_ADMIN_PASSWORD="admin-admin-1"
    )
    assert started.returncode == 1
    assert started.stderr.startswith("Setting PORTAL_BOOTSTRAP_ADMIN_PASSWORD: "), started.stderr
    listed = (
        '[{"name": "corp", "issuer": "https://x.example", "client_id": "c", "email_domains":'
        ' ["еxample.com"]}]'
    )
    started = portal(tmp_path, "doctor", PORTAL_SIGN_IN_PROVIDERS=listed)
    assert started.returncode == 2
    assert "email_domains" in started.stderr
