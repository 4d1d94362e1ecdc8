"""What somebody reads who tries too often, and by what tries are counted."""

from collections.abc import Callable

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from portal.domain.addresses import neighborhood
from portal.settings import BadSettings, read_settings
from portal.web.limits import by_email
from tests.conftest import Client
from tests.support.html import parse


def refused(client: Client, path: str, **headers: str) -> TestResponse:
    """The first answer that is 429."""
    answers = (client.get(path, headers=headers) for _ in range(40))
    return next(answer for answer in answers if answer.status_code == 429)


def waits(answer: TestResponse) -> int:
    return int(answer.headers["Retry-After"])


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
def test_a_page_and_a_piece_of_one_say_how_long_to_wait(
    client: Callable[[str | None], Client], headers: dict[str, str]
) -> None:
    answer = refused(client(None), "/login/nobody", **headers)
    assert 1 <= waits(answer) <= 60
    assert f"Try again in {waits(answer)} seconds" in parse(answer, 429).get_text()
    assert ("<html" in answer.get_data(as_text=True)) is not bool(headers)


def test_a_program_reads_how_long_to_wait(client: Callable[[str | None], Client]) -> None:
    nobody = client(None)
    answers = [registered(nobody, str(number)) for number in range(31)]
    assert [answer.status_code for answer in answers] == [201] * 30 + [429]
    assert 1 <= waits(answers[-1]) <= 60
    assert answers[-1].get_json()["error"] == "rate_limited"


def registered(client: Client, name: str, path: str = "/register") -> TestResponse:
    return client.post(path, {"client_name": name, "redirect_uris": ["http://localhost:3000/cb"]})


@pytest.mark.parametrize("path", ["/register", "/notes/register", "/mcp/notes/register"])
def test_equal_registrations_cost_nothing(
    client: Callable[[str | None], Client], path: str
) -> None:
    """A company behind one address registers the same few clients again and again, also beside one
    who floods."""
    nobody = client(None)
    same = registered(nobody, "the same", path).get_json()["client_id"]
    assert {registered(nobody, "the same", path).get_json()["client_id"] for _ in range(40)} == {
        same
    }
    assert [registered(nobody, str(number), path).status_code for number in range(30)] == [
        201
    ] * 29 + [429]
    again = registered(nobody, "the same", path)
    assert (again.status_code, again.get_json()["client_id"]) == (201, same)
    assert registered(nobody, "another", path).status_code == 429


def test_tries_at_one_account_are_counted_under_a_name_that_does_not_tell_whose(app: Flask) -> None:
    def counted(email: str) -> str:
        with app.test_request_context("/login", method="POST", data={"email": email}):
            return by_email()

    assert counted("Mel@example.com ") == counted("mel@example.com") != counted("ada@example.com")
    assert "mel" not in counted("mel@example.com")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_ipv6_network_counts_as_one_caller(address: str | None, counted: str) -> None:
    assert neighborhood(address) == counted


@pytest.mark.parametrize("url", ["http://cache:6379", "redis://", "unix://", "cache:6379"])
def test_a_redis_address_of_another_kind_stops_the_start(url: str) -> None:
    with pytest.raises(BadSettings, match="PORTAL_REDIS_URL: must be like redis://"):
        read_settings({"PORTAL_REDIS_URL": url})


@pytest.mark.parametrize(
    "url", ["redis://cache", "rediss://:word@cache:6380/1", "unix:///run/redis.sock?db=1"]
)
def test_a_redis_address_is_taken(url: str) -> None:
    with pytest.raises(BadSettings) as caught:  # of what else is missing
        read_settings({"PORTAL_REDIS_URL": url})
    assert "REDIS" not in str(caught.value)
