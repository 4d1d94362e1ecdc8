"""One event is one line, which holds the id of its request and nothing that looks like a secret."""

import json
import logging
import sys

import pytest

from portal.telemetry import logs

FORMS = pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])


def line(
    message: str, *, as_json: bool = True, error: BaseException | None = None, **extra: object
) -> str:
    """What is written of a record."""
    given = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("portal.test", logging.WARNING, __file__, 1, message, (), given)
    vars(record).update(extra)
    return logs.formatter(as_json=as_json).format(record)


def test_a_line_is_json_with_time_level_logger_event_and_more() -> None:
    found = json.loads(line("a round is done", probed=3, server_id="docs"))
    assert found.pop("timestamp").endswith("Z")
    assert found == {
        "level": "warning",
        "logger": "portal.test",
        "event": "a round is done",
        "probed": 3,
        "server_id": "docs",
    }


@FORMS
@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r", "\x1b[2J", "\u2028", "\x85", "\x00"])
def test_nobody_writes_a_second_line(as_json: bool, break_: str) -> None:
    text = line(f"one{break_}two", as_json=as_json, route=f"/a{break_}b")
    assert len(text.splitlines()) == 1
    assert text.isprintable()


@FORMS
def test_lines_of_a_request_carry_its_id_until_it_ends(as_json: bool) -> None:
    logs.begin_request("0123456789ab")
    within = line("something", as_json=as_json)
    logs.end_request()
    assert "0123456789ab" in within
    assert "request_id" not in line("something", as_json=as_json)


@FORMS
def test_of_an_exception_kind_and_place_are_told_and_not_its_text(as_json: bool) -> None:
    try:
        int("SECRET-that-was-typed")
    except ValueError as error:
        text = line("unexpected", as_json=as_json, error=error)
    assert "ValueError" in text
    assert f"test_logs.py:{sys._getframe().f_lineno - 4} test_of_an_exception" in text
    assert "SECRET" not in text


@FORMS
@pytest.mark.parametrize(
    "text",
    [
        "the key sk-SECRET0123456789 was refused",
        "Authorization: Bearer SECRET0123456789",
        "{'authorization': 'SECRET0123456789'}",
        '{"password": "SECRET0123456789"}',
        "GET /oauth/callback?code=SECRET0123456789&iss=x",
        "state=SECRET0123456789",
        "refresh_token=SECRET0123456789",
        "Cookie: portal=SECRET0123456789; theme=dark",
        "Set-Cookie: __Host-portal=SECRET0123456789; Secure",
        "redis://:SECRET0123456789@cache:6379/0",
        "eyJhbGciOiJub25lIn0.SECRET0123456789.SECRET0123456789",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, as_json: bool) -> None:
    written = line(text, as_json=as_json, detail=text, more=[text])
    assert "SECRET" not in written
    assert written.count(logs.HIDDEN) >= 3


@pytest.mark.parametrize(
    "text", ["status=200 state of the server is active", "/servers/{server_id}/tools", "10.1.2.3"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert json.loads(line(text))["event"] == text
