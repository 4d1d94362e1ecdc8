"""What pages ask the database: nothing while a template renders, and a server once or twice where
it is set up."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy import event

from portal.store.database import Database
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.counting import counted
from tests.support.factories import make_group, make_server
from tests.support.html import filled, parse

SignedIn = Callable[[str], Client]
NAMES = {"server_id": NOTES, "user_id": "mel", "team_id": CREW}


@pytest.fixture
def needy(write: Write) -> str:
    with write() as session:
        make_group(session, "pair", (NOTES,))
        return make_server(
            session,
            "needy",
            allow_all_keys=True,
            static_headers={"X-T": "${TOKEN}"},
            env_vars=[{"name": "TOKEN", "scope": "user"}],
        )


@contextmanager
def asked_by_templates(database: Database) -> Iterator[list[str]]:
    """The statements that are sent while a template is rendering, each with the template."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename.endswith(".html"):
                found.append(
                    f"{frame.f_code.co_filename.rpartition('templates/')[2]}: {statement[:120]}"
                )
                return
            frame = frame.f_back  # type: ignore[assignment]

    event.listen(database.engine, "before_cursor_execute", note)
    yield found
    event.remove(database.engine, "before_cursor_execute", note)


def pages_of(app: Flask) -> list[str]:
    """Every address of a page that can be opened with the rows at hand."""
    of_pages = [
        rule
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or ())
        and rule.arguments <= NAMES.keys()
        and app.view_functions[rule.endpoint].__module__.startswith("portal.web.pages")
    ]
    urls = app.url_map.bind("localhost")
    return sorted(
        {urls.build(rule.endpoint, {n: NAMES[n] for n in rule.arguments}) for rule in of_pages}
    )


@pytest.mark.parametrize("who", ["ada", "vera", "mel", "otto"])
@pytest.mark.parametrize("fragment", [False, True])
def test_no_template_asks_the_database_while_it_renders(
    app: Flask, database: Database, signed_in: SignedIn, needy: str, who: str, fragment: bool
) -> None:
    client = signed_in(who)
    headers = {"HX-Request": "true"} if fragment else {}
    addresses = [*pages_of(app), f"/credentials/{needy}"]
    assert len(addresses) > 30
    with asked_by_templates(database) as found:
        answers = {
            address: client.get(address, headers=headers).status_code for address in addresses
        }
    assert found == []
    assert 200 in answers.values()


@pytest.mark.parametrize("fragment", [False, True])
def test_saving_values_finds_the_server_twice_at_most(
    database: Database, signed_in: SignedIn, needy: str, fragment: bool
) -> None:
    mel = signed_in("mel")
    form = (
        parse(mel.get(f"/credentials/{needy}"))
        .find("main")
        .find("form", action=f"/credentials/{needy}")
    )
    data = filled(form, **{"value-TOKEN": "SECRET-of-mine"})
    with counted(database) as statements:
        answer = mel.post(
            f"/credentials/{needy}", data=data, headers={"HX-Request": "true"} if fragment else {}
        )
    assert answer.status_code == (200 if fragment else 303)
    looked = [s for s in statements if "FROM servers" in s and "servers.alias = " in s]
    assert 1 <= len(looked) <= 2
