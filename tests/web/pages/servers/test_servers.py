"""The server form: what is typed is kept, secrets are not, and only what was changed is written."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import NOTES, Client, Write
from tests.support.factories import make_server
from tests.support.html import filled, parse

SignedIn = Callable[[str], Client]
TYPED = "SECRET-typed-just-now"


def form_of(client: Client, path: str) -> Any:
    """The server form of a page."""
    return parse(client.get(path)).find("form", attrs={"data-guard": True})


def test_what_is_typed_comes_back_secrets_aside(signed_in: SignedIn) -> None:
    """UI-26, 422: the name is refused on its field, nothing typed is lost but the secrets."""
    ada = signed_in("ada")
    data = filled(
        form_of(ada, "/servers/new"),
        server_name="has-dash",
        description="keeps",
        url=f"https://a.example/{TYPED}",
        auth_type="bearer_token",
        auth_value=TYPED,
        save="yes",
        **{"headers-0-name": "X-A", "headers-0-value": TYPED},
    )
    page = parse(ada.post("/servers/new", data=data), 422)
    assert page.find("input", id="server_name")["value"] == "has-dash"
    assert page.find("input", id="server_name")["aria-invalid"] == "true"
    assert page.find(attrs={"data-error-summary": True}).find("a", href="#server_name")
    assert page.find("textarea", id="description").text.strip() == "keeps"
    assert page.find("input", id="headers-0-name")["value"] == "X-A"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"server_name": ""}, "Enter a name"),
        ({"url": ""}, "requires a URL"),
        ({"url": "ftp://a.example"}, "http://"),
        ({"url": "https://user:pw@a.example"}, "user name"),
        ({"timeout": "0"}, "1 to 600"),
        ({"timeout": "soon"}, "valid"),
        ({"headers-0-name": "Bad Name", "headers-0-value": "x"}, "header"),
        ({"headers-0-name": "X-A", "headers-0-value": "a\r\nb"}, "line break"),
        ({"variables-0-name": "1abc", "variables-0-scope": "user"}, "Variable names"),
        ({"server_name": "notes"}, "is already called notes"),
        ({"transport": "stdio", "command": "bash", "args": "x"}, "Not a valid choice"),
    ],
)
def test_bad_input_says_what_and_where(
    signed_in: SignedIn, typed: dict[str, str], message: str
) -> None:
    """4xx with a clear text; nothing is stored."""
    ada = signed_in("ada")
    data = filled(
        form_of(ada, "/servers/new"),
        **{"server_name": "fresh", "url": "https://a.example", "save": "y", **typed},
    )
    page = parse(ada.post("/servers/new", data=data), 422)
    assert message in page.find(attrs={"data-error-summary": True}).text
    assert "fresh" not in [
        link.text.strip() for link in parse(ada.get("/servers")).select(".cover")
    ]


def test_an_edit_keeps_replaces_and_clears_by_choice(
    client: Any, signed_in: SignedIn, write: Write
) -> None:
    """CUD-44: stored secrets are kept unless one says otherwise, and never shown."""
    with write() as session:
        make_server(
            session,
            "s",
            auth_type="bearer_token",
            credentials={"auth_value": "SECRET-old"},
            static_headers={"X-Keep": "SECRET-1", "X-Replace": "SECRET-2", "X-Drop": "SECRET-3"},
            env_vars=[{"name": "G", "scope": "global", "value": "SECRET-G"}],
        )
    ada = signed_in("ada")
    form = form_of(ada, "/servers/id-s/edit")
    data = filled(
        form,
        save="yes",
        description="new",
        auth_value__mode="keep",
        **{
            "headers-1-value__mode": "replace",
            "headers-1-value": "fresh",
            "headers-2-delete": "y",
            "variables-0-value__mode": "clear",
        },
    )
    assert ada.post("/servers/id-s/edit", data=data).status_code == 303
    server = client("ada").get("/v1/mcp/server/id-s").get_json()
    assert server["static_headers"] == {"X-Keep": "SECRET-1", "X-Replace": "fresh"}
    assert server["env_vars"][0]["value"] == ""
    assert server["url"] == "http://127.0.0.1:9/s"
    assert server["version"] == 2


def test_only_what_was_changed_is_written(database: Any, signed_in: SignedIn, write: Write) -> None:
    """The record names the changed field, and no other."""
    from sqlalchemy import select

    from portal.store.models import AuditEvent

    with write() as session:
        make_server(
            session,
            "s",
            description="old",
            static_headers={"X-A": "SECRET"},
            mcp_access_groups=["dev"],
            env_vars=[{"name": "G", "scope": "global", "value": "SECRET-G"}],
            timeout=5.0,
        )
    ada = signed_in("ada")
    data = filled(form_of(ada, "/servers/id-s/edit"), save="yes", description="new")
    assert ada.post("/servers/id-s/edit", data=data).status_code == 303
    with database.session() as session:
        details = session.scalar(
            select(AuditEvent.details).where(AuditEvent.action == "server changed")
        )
    assert details["fields"] == ["description"]


def test_a_new_host_asks_about_stored_credentials(
    client: Any, signed_in: SignedIn, write: Write
) -> None:
    """1-system.md, 3: a stored secret is never sent to a new host unasked; here the form asks."""
    with write() as session:
        make_server(
            session, "s", auth_type="bearer_token", credentials={"auth_value": "SECRET-old"}
        )
    ada = signed_in("ada")
    moved = {"save": "yes", "url__mode": "replace", "url": "https://elsewhere.example/mcp"}
    page = parse(
        ada.post("/servers/id-s/edit", data=filled(form_of(ada, "/servers/id-s/edit"), **moved)),
        422,
    )
    form = page.find("form", attrs={"data-guard": True})
    assert form.find("input", attrs={"name": "keep_credentials"})
    answer = ada.post("/servers/id-s/edit", data=filled(form, keep_credentials="keep", **moved))
    assert answer.status_code == 303
    assert (
        client("ada").get("/v1/mcp/server/id-s").get_json()["url"]
        == "https://elsewhere.example/mcp"
    )


NO_CHOICES = [
    {"keep_credentials": "y"},
    {"keep_credentials": "true"},
    {"keep_credentials": "KEEP"},
    {"keep_credentials": "false"},
    {"keep_credentials": "forget "},
    {"keep_credentials": "keep", "url__mode": "move"},
    {"auth_value__mode": "Keep"},
    {"headers-0-value__mode": "x"},
    {"version": "one"},
    {"version": "-1"},
    {"variables-0-name": "V", "variables-0-scope": "everyone"},
]


@pytest.mark.parametrize("sent", NO_CHOICES)
def test_what_is_no_choice_decides_nothing_and_what_was_typed_stays(
    client: Any, signed_in: SignedIn, write: Write, sent: dict[str, str]
) -> None:
    with write() as session:
        make_server(
            session,
            "s",
            auth_type="bearer_token",
            credentials={"auth_value": "SECRET-old"},
            static_headers={"X-A": "SECRET-a"},
        )
    ada = signed_in("ada")
    before = client("ada").get("/v1/mcp/server/id-s").get_json()["url"]
    moved = {
        "save": "yes",
        "url__mode": "replace",
        "url": "https://elsewhere.example/mcp",
        "description": "typed",
    }
    answer = ada.post(
        "/servers/id-s/edit", data=filled(form_of(ada, "/servers/id-s/edit"), **{**moved, **sent})
    )
    page = parse(answer, 422)
    assert "choice" in page.main.text or "version is not valid" in page.main.text
    assert page.find("textarea", attrs={"name": "description"}).text.strip() == "typed"
    assert client("ada").get("/v1/mcp/server/id-s").get_json()["url"] == before


def test_a_stored_secret_is_not_tried_at_a_typed_address(
    signed_in: SignedIn, write: Write, echo_server: str
) -> None:
    """R-SEC-19: *Test connection* never combines what is stored with another host."""
    with write() as session:
        make_server(
            session,
            "s",
            url="https://stored.example/mcp",
            static_headers={"X-A": "SECRET-stored"},
            auth_type="bearer_token",
            credentials={"auth_value": "SECRET-old"},
        )
    ada = signed_in("ada")
    data = filled(form_of(ada, "/servers/id-s/edit"), url__mode="replace", url=echo_server)
    page = parse(ada.post("/servers/test", data=data))
    assert "a test does not send stored values there" in page.text


def test_rows_are_added_without_javascript(signed_in: SignedIn) -> None:
    """A submit button adds a row and keeps the rest."""
    ada = signed_in("ada")
    data = filled(form_of(ada, "/servers/new"), server_name="kept", add="variable")
    page = parse(ada.post("/servers/new", data=data))
    assert page.find("input", id="variables-0-name")
    assert page.find("input", id="server_name")["value"] == "kept"


def test_delete_says_who_is_cut_off(client: Any, signed_in: SignedIn) -> None:
    """CUD-17 in the browser: names before, gone after."""
    ada = signed_in("ada")
    page = parse(ada.get(f"/servers/{NOTES}/delete"))
    assert "crew" in page.find("main").text
    form = page.find("form", action=f"/servers/{NOTES}/delete")
    assert ada.post(f"/servers/{NOTES}/delete", data=filled(form)).status_code == 303
    assert client("ada").get(f"/v1/mcp/server/{NOTES}").status_code == 404


@pytest.mark.parametrize("name", ["vera", "mel", "otto"])
def test_others_neither_see_nor_send_the_form(client: Any, signed_in: SignedIn, name: str) -> None:
    """CUD-01, CUD-14: no button, no page, no change."""
    person = signed_in(name)
    token = parse(person.get("/servers")).find("input", attrs={"name": "csrf_token"})["value"]
    assert not parse(person.get("/servers")).find("a", href="/servers/new")
    for path in ("/servers/new", f"/servers/{NOTES}/edit", f"/servers/{NOTES}/delete"):
        assert person.get(path).status_code == 404
        sent = person.post(
            path,
            data={"csrf_token": token, "save": "yes", "server_name": "mine", "url": "https://a.b"},
        )
        assert sent.status_code in (403, 404)
    assert client("ada").get(f"/v1/mcp/server/{NOTES}").status_code == 200


def test_reveal_is_asked_for_and_on_the_record(signed_in: SignedIn, database: Any) -> None:
    """1-system.md, 5: values are in no page until an Admin asks, which is audited."""
    from sqlalchemy import select

    from portal.store.models import AuditEvent

    ada = signed_in("ada")
    page = parse(ada.get(f"/servers/{NOTES}/configuration"))
    assert "/notes" not in page.find("main").text.replace(f"/servers/{NOTES}", "")
    form = page.find("form", action=f"/servers/{NOTES}/reveal")
    assert "http://127.0.0.1:9/notes" in ada.post(
        f"/servers/{NOTES}/reveal", data=filled(form)
    ).get_data(as_text=True)
    with database.session() as session:
        assert session.scalar(
            select(AuditEvent.actor).where(AuditEvent.action == "configuration revealed")
        )
    vera = signed_in("vera")
    assert not parse(vera.get(f"/servers/{NOTES}/configuration")).find(
        "form", action=f"/servers/{NOTES}/reveal"
    )
