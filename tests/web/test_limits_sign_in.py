"""Wrong passwords count by address and by e-mail, in all processes, and lock nobody out where they
are known."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, text, update

from portal.app import create_app, open_database
from portal.domain.principals import OPERATOR
from portal.services.access import sessions
from portal.store import rate_counters
from portal.store.database import Database
from portal.store.models import KnownSignIn, RateCount, User
from tests.conftest import Client, Portal, Write
from tests.support.factories import PASSWORD
from tests.support.security.callers import token_in

MEL = "mel@example.com"
HERE = "192.0.2.1"
THERE = "198.51.100.7"


def tried(
    browser: FlaskClient, email: str = MEL, password: str = "not the one", *, at: str = HERE
) -> Any:
    token = token_in(browser.get("/login"))
    form = {"email": email, "password": password, "csrf_token": token}
    return browser.post("/login", data=form, environ_base={"REMOTE_ADDR": at})


def statuses(app: Flask, count: int, email: str = MEL, *, at: str = THERE) -> list[int]:
    browser = app.test_client()
    return [tried(browser, email, at=at).status_code for _ in range(count)]


@pytest.fixture
def second(portal: Portal) -> Iterator[Flask]:
    """The application of another process, on a pool of connections of its own."""
    database = open_database(portal.settings)
    yield create_app(portal.settings, database=database)
    database.engine.dispose()


def test_two_processes_count_together(app: Flask, second: Flask) -> None:
    one = app.test_client()
    other = second.test_client()
    found = [tried((one, other)[turn % 2], at=f"192.0.2.{turn}").status_code for turn in range(12)]
    assert found == [422] * 10 + [429] * 2


def test_whether_there_is_an_account_makes_no_difference(app: Flask) -> None:
    answers = {}
    for email in (MEL, "nobody@example.com"):
        browser = app.test_client()
        found = [tried(browser, email, at=THERE) for _ in range(11)]
        assert [answer.status_code for answer in found] == [422] * 10 + [429]
        assert 1 <= int(found[-1].headers["Retry-After"]) <= 300
        answers[email] = found[-1].get_data(as_text=True).replace(email, "")
        with app.app_context():
            counts_reset()
    one, other = answers.values()
    assert "Too many requests" in one
    assert "Too many requests" in other


def counts_reset() -> None:
    from portal.web.limits import limiter

    limiter.reset()


def test_one_password_at_many_accounts_is_counted_by_address(app: Flask) -> None:
    browser = app.test_client()
    found = [tried(browser, f"somebody{n}@example.com", at=THERE).status_code for n in range(33)]
    assert found == [422] * 30 + [429] * 3


def test_the_forms_of_an_e_mail_count_as_one(app: Flask) -> None:
    forms = ("mel@exämple.com", "MEL@EXÄMPLE.COM", "mel@xn--exmple-cua.com", " Mel@exämple.com ")
    browser = app.test_client()
    found = [tried(browser, forms[n % 4], at=f"192.0.2.{n}").status_code for n in range(11)]
    assert found == [422] * 10 + [429]


def test_a_known_browser_gets_in_while_others_use_up_the_tries(app: Flask) -> None:
    mine = app.test_client()
    answer = tried(mine, password=PASSWORD)
    cookie = next(c for c in answer.headers.getlist("Set-Cookie") if "device" in c)
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Max-Age=15552000" in cookie
    sign_out(mine)
    assert statuses(app, 12) == [422] * 9 + [429] * 3, "the first to sign in was nobody known"
    assert tried(app.test_client(), password=PASSWORD, at="203.0.113.9").status_code == 429
    assert tried(mine, password=PASSWORD, at="203.0.113.9").status_code == 303


def test_a_known_address_gets_in_while_others_use_up_the_tries(app: Flask) -> None:
    sign_out(mine := app.test_client(), tried(mine, password=PASSWORD))
    assert statuses(app, 11)[-1] == 429
    assert tried(app.test_client(), password=PASSWORD, at=HERE).status_code == 303
    assert tried(app.test_client(), password=PASSWORD, at="192.0.2.2").status_code == 429


def test_a_neighbor_at_a_known_address_locks_nobody_out(app: Flask) -> None:
    sign_out(mine := app.test_client(), tried(mine, password=PASSWORD))
    browser = app.test_client()
    assert [tried(browser, f"x{n}@example.com").status_code for n in range(32)][-1] == 429
    assert tried(app.test_client(), password=PASSWORD).status_code == 303


def test_where_one_is_known_tries_are_counted_too(app: Flask) -> None:
    sign_out(mine := app.test_client(), tried(mine, password=PASSWORD))
    assert [tried(mine).status_code for _ in range(11)] == [422] * 10 + [429]
    assert tried(mine, password=PASSWORD).status_code == 429


def test_a_browser_is_known_for_its_person_only(app: Flask) -> None:
    sign_out(mine := app.test_client(), tried(mine, password=PASSWORD))
    assert statuses(app, 11, "otto@example.com")[-1] == 429
    assert tried(mine, "otto@example.com", PASSWORD).status_code == 429


def test_a_new_password_ends_what_is_known(
    app: Flask, client: Callable[[str | None], Client], write: Write
) -> None:
    sign_out(mine := app.test_client(), tried(mine, password=PASSWORD))
    changed = client("ada").patch("/v1/users/mel", {"password": "another SECRET word"})
    assert changed.status_code == 200
    with write() as session:
        assert session.scalar(select(func.count()).select_from(KnownSignIn)) == 0
    assert statuses(app, 11)[-1] == 429
    assert tried(mine, password="another SECRET word").status_code == 429


def test_the_cookie_of_a_browser_is_stored_as_a_hash(app: Flask, write: Write) -> None:
    mine = app.test_client()
    tried(mine, password=PASSWORD)
    cookie = mine.get_cookie("portal-device")
    assert cookie is not None
    with write() as session:
        marks = set(session.scalars(select(KnownSignIn.mark_hash)))
        assert len(marks) == 2
        assert cookie.value not in marks
        assert all(HERE not in mark for mark in marks)


def test_a_made_up_cookie_is_nobodys(app: Flask) -> None:
    for value in ("", "x" * 43, "é", "a" * 900, "../../etc"):
        browser = app.test_client()
        browser.set_cookie("portal-device", value)
        assert tried(browser, at=THERE).status_code == 422


def test_the_page_alone_counts_nothing(app: Flask, write: Write) -> None:
    for _ in range(3):
        app.test_client().get("/login")
    with write() as session:
        assert session.scalar(select(func.count()).select_from(RateCount)) == 0


def test_people_with_an_e_mail_of_old_still_sign_in(app: Flask, write: Write) -> None:
    with write() as session:
        session.execute(update(User).where(User.user_id == "mel").values(email="mel@exämple.com"))
        session.execute(update(User).where(User.user_id == "otto").values(email="otto@еxample.com"))
    assert tried(app.test_client(), "mel@exämple.com", PASSWORD).status_code == 303
    assert tried(app.test_client(), "Mel@xn--exmple-cua.com", PASSWORD).status_code == 303
    assert tried(app.test_client(), "otto@еxample.com", PASSWORD).status_code == 303


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_while_the_database_is_locked_each_process_counts_half(
    app: Flask, client: Callable[[str | None], Client], database: Database
) -> None:
    """A way that writes nothing itself, so that it is the count alone that meets the lock."""
    nobody = client(None)
    with database.session(writes=True) as somebody:
        somebody.execute(text("select 1"))  # takes the write lock of SQLite
        found = [nobody.get("/login/nobody").status_code for _ in range(17)]
    assert found == [404] * 15 + [429] * 2
    assert nobody.get("/login/nobody").status_code == 404


def test_tries_at_the_same_moment_are_counted_once_each(database: Database) -> None:
    taken: list[bool] = []

    def try_often() -> None:
        for _ in range(10):
            with database.session(writes=True) as session:
                taken.append(rate_counters.count_try(session, "race", 25, 60))
                session.commit()

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), sum(taken)) == (40, 25)


@pytest.mark.parametrize(
    ("seconds_ago", "free"),
    [(10, 0), (59, 0), (61, 0.0), (75, 2), (90, 5), (119, 9), (121, 10), (500, 10)],
)
def test_a_window_moves_on(write: Write, seconds_ago: float, free: float) -> None:
    with write() as session:
        assert rate_counters.count_try(session, "k", 10, 60, 10)
        session.execute(
            update(RateCount).values(
                started_at=RateCount.started_at - seconds_ago,
                expires_at=RateCount.expires_at - seconds_ago,
            )
        )
    with write() as session:
        since, held = rate_counters.tries_of(session, "k", 10, 60)
        found = sum(rate_counters.count_try(session, "k", 10, 60) for _ in range(12))
    assert abs(found - free) <= 1
    assert abs((10 - held) - free) <= 1
    assert since <= since + 60


def test_what_counts_no_more_is_swept(write: Write) -> None:
    with write() as session:
        rate_counters.count_try(session, "old", 10, 60)
        session.execute(update(RateCount).values(expires_at=1.0))
        rate_counters.count_try(session, "new", 10, 60)
        sessions.sweep_sessions(session, OPERATOR)
        assert session.scalar(select(func.count()).select_from(RateCount)) == 1


def sign_out(browser: FlaskClient, _answer: Any = None) -> None:
    assert (
        browser.post("/logout", data={"csrf_token": token_in(browser.get("/profile"))}).status_code
        == 303
    )
