"""The id of a request, and what strangers can do about it."""

import logging
from collections.abc import Callable

import pytest
from flask import Flask

from tests.conftest import Client


def test_nobody_but_a_trusted_proxy_names_a_request(client: Callable[[str | None], Client]) -> None:
    answers = [
        client(None).get("/login", headers={"X-Request-ID": "somebody-says-so"}) for _ in range(2)
    ]
    ids = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(ids) == 2
    assert "somebody-says-so" not in ids


def test_an_error_shows_the_id_that_is_in_the_log(
    app: Flask,
    client: Callable[[str | None], Client],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> str:
        raise RuntimeError("SECRET")

    monkeypatch.setitem(app.view_functions, "healthz", fails)
    with caplog.at_level(logging.INFO):
        answer = client(None).get("/healthz")
    assert answer.status_code == 500
    id_ = answer.headers["X-Request-ID"]
    assert id_ in answer.get_data(as_text=True)
    assert f"unexpected RuntimeError in request {id_}" in caplog.text
    assert "SECRET" not in caplog.text
    [line] = [record for record in caplog.records if record.name == "portal.access"]
    assert (line.route, line.status) == ("/healthz", 500)  # type: ignore[attr-defined]


def test_the_line_of_a_request_says_who_by_id_and_not_by_name(
    signed_in: Callable[[str], Client], caplog: pytest.LogCaptureFixture
) -> None:
    mel = signed_in("mel")
    with caplog.at_level(logging.INFO, logger="portal"):
        mel.get("/servers?q=SECRET")
    [line] = [vars(record) for record in caplog.records if record.name == "portal.access"]
    assert {name: line[name] for name in ("method", "route", "status", "principal", "user_id")} == {
        "method": "GET",
        "route": "/servers",
        "status": 200,
        "principal": "person",
        "user_id": "mel",
    }
    assert "SECRET" not in str(line)
    assert "@" not in str(line)
