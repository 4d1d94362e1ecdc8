"""Signing in from the form of a server before anything is saved (behaviours UI-29 to 32, UI-43)."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from werkzeug.test import TestResponse

from portal.domain.principals import Role
from portal.services.secrets import token_store
from portal.store.models import Server, UserCredential
from portal.store.oauth_tables import OAuthClientRegistration, ServerAuthorization, TemporaryServer
from tests.conftest import Client, Write
from tests.support.browsing import text_of
from tests.support.connecting import at_provider
from tests.support.factories import NOBODY_LISTENS, make_server, make_user
from tests.support.html import filled, parse
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth_peers import ProtectedServer

NEW = "/servers/new"


@pytest.fixture
def ada(signed_in: Callable[[str], Client]) -> Client:
    return signed_in("ada")


def typed(url: str, **changes: Any) -> dict[str, Any]:
    return {
        "server_name": "fresh",
        "description": "Typed before",
        "transport": "http",
        "url": url,
        "auth_type": "oauth2",
        "oauth2_flow": "authorization_code",
        "headers-0-name": "X-Team",
        "headers-0-value": "SECRET-header",
    } | changes


def form_at(browser: Client, path: str, status: int = 200) -> Any:
    return parse(browser.get(path), status).find("form", attrs={"data-guard": True})


def press(browser: Client, path: str, button: str, **fields: Any) -> TestResponse:
    """Fill in the form of the page at `path` and press a button."""
    form = form_at(browser, path)
    return browser.ask("POST", form["action"], data={**filled(form, **fields), button: "yes"})


def departed(response: TestResponse) -> str:
    """Where the page in between leads to."""
    page: Any = parse(response)
    link = page.find("a", string=re.compile("Continue to"))["href"]
    assert "no-referrer" in response.headers["Referrer-Policy"]
    return str(link)


def round_trip(browser: Client, response: TestResponse) -> str:
    """Through the provider and back; the address of the form."""
    back = browser.get(at_provider(departed(response)))
    assert back.status_code == 303, back.get_data(as_text=True)[:500]
    return back.headers["Location"]


def credential(write: Write, server_id: str) -> UserCredential | None:
    with write() as session:
        return session.get(UserCredential, ("ada", server_id, "oauth2"))


def saved(write: Write, name: str = "fresh") -> str:
    with write() as session:
        return str(
            session.scalars(select(Server.server_id).where(Server.server_name == name)).one()
        )


def test_tools_are_listed_before_anything_is_saved_and_the_token_is_stored_with_it(
    ada: Client,
    write: Write,
    protected_mcp_server: ProtectedServer,
    client: Callable[[str], Client],
) -> None:
    """UI-29: out from the form, back to what was typed, the tools; then saved, connected, and
    called as oneself."""
    protected_mcp_server.configure(user="adelaide")
    back = round_trip(ada, press(ada, NEW, "sign_in", **typed(protected_mcp_server.url)))
    assert re.fullmatch(r"/servers/new\?draft=[\w-]{20,}", back)
    page: Any = parse(ada.get(back))
    words = text_of(page.main)
    for expected in (
        "Signed in",
        "whoami",
        "echo",
        "admin_note",
        "Kept for 5 minutes, but not shown: Address, X-Team.",
    ):
        assert expected in words
    form = page.find("form", attrs={"data-guard": True})
    shown = {name: values[0] for name, values in filled(form).items()}
    assert (shown["server_name"], shown["description"].strip()) == ("fresh", "Typed before")
    assert (shown["auth_type"], shown["headers-0-name"]) == ("oauth2", "X-Team")
    assert shown["url"] == shown["headers-0-value"] == "", "what is secret stays on the server"
    with write() as session:
        assert [row.server_name for row in session.query(Server)] == ["notes"], (
            "nothing is saved yet"
        )
        assert session.query(UserCredential).count() == 0
    done = press(ada, back, "save", description="Changed since")
    assert done.status_code == 303
    server_id = saved(write)
    assert "You are connected to it" in ada.get(done.headers["Location"]).get_data(as_text=True)
    with write() as session:
        row = session.get(Server, server_id)
        assert row is not None
        assert (row.address, row.description) == (protected_mcp_server.issuer, "Changed since")
        assert [secret.name for secret in row.secrets if secret.field == "static_headers"] == [
            "X-Team"
        ]
        assert session.query(TemporaryServer).count() == 0
        registration = session.query(OAuthClientRegistration).one()
        assert (registration.server_id, registration.issuer) == (
            server_id,
            _issuer(session, server_id),
        )
    call = {"server_id": server_id, "name": "whoami", "arguments": {}}
    assert '"adelaide"' in str(client("ada").post("/v1/mcp/tools/call", call).json)
    protected_mcp_server.expire_access_tokens()
    with write() as session:
        held = session.get(UserCredential, ("ada", server_id, "oauth2"))
        assert held is not None
        assert held.expires_at is not None
        held.expires_at -= timedelta(hours=2)
    assert '"adelaide"' in str(client("ada").post("/v1/mcp/tools/call", call).json), (
        "renewed as the same client"
    )
    assert protected_mcp_server.counters().refresh_grants == 1


def _issuer(session: Any, server_id: str) -> str:
    known = session.get(ServerAuthorization, server_id)
    return str(known.issuer)


@pytest.mark.parametrize(
    ("granted", "stored"), [("read", ["read"]), ("", []), (None, ["read", "write"])]
)
def test_ui_30_the_scopes_are_those_that_were_granted(
    ada: Client, write: Write, recording_as: RecordingServer, granted: str | None, stored: list[str]
) -> None:
    recording_as.token_fields = {"scope": granted}
    form = typed(
        recording_as.url, client_id="typed-id", client_secret="SECRET-client", scopes="read\nwrite"
    )
    back = round_trip(ada, press(ada, NEW, "sign_in", **form))
    assert "not shown: Address, Client ID, Client secret, Scopes, X-Team." in text_of(
        parse(ada.get(back))
    )
    press(ada, back, "save")
    held = credential(write, saved(write))
    assert held is not None
    assert held.scopes == stored
    asked = recording_as.last("authorize").query
    assert (asked["client_id"], asked["scope"], asked["code_challenge_method"]) == (
        "typed-id",
        "read write",
        "S256",
    )
    sent = recording_as.last("token")
    assert sent.form.get("client_secret") == "SECRET-client" or "authorization" in sent.headers, (
        "what was held"
    )
    with write() as session:
        row = session.get(Server, saved(write))
        assert row is not None
        tokens = token_store.opened_tokens(session, token_store.place_of(row, "ada"), held.sealed)
        assert tokens is not None
        assert (tokens.access_token, tokens.client_id) == ("at-1", "typed-id")


def test_ui_31_a_token_that_cannot_be_stored_is_told_and_the_server_is_saved(
    ada: Client, write: Write, protected_mcp_server: ProtectedServer
) -> None:
    back = round_trip(ada, press(ada, NEW, "sign_in", **typed(protected_mcp_server.url)))
    done = press(ada, back, "save", url=f"{NOBODY_LISTENS}/elsewhere")
    assert done.status_code == 303
    page = ada.get(done.headers["Location"]).get_data(as_text=True)
    assert "Your sign-in could not be stored" in page
    assert "You are connected" not in page
    assert 'class="toast success"' not in page, "no plain success"
    assert credential(write, saved(write)) is None


def test_ui_32_without_a_token_nothing_is_stored(
    ada: Client, write: Write, recording_as: RecordingServer
) -> None:
    recording_as.authorize_error = "access_denied"
    back = round_trip(
        ada, press(ada, NEW, "sign_in", **typed(recording_as.url, client_id="typed-id"))
    )
    assert "You declined access at the provider." in text_of(parse(ada.get(back)))
    done = press(ada, back, "save")
    page = ada.get(done.headers["Location"]).get_data(as_text=True)
    assert "fresh added." in page
    assert "connected" not in text_of(parse(ada.get("/profile")))
    assert credential(write, saved(write)) is None


def test_ui_43_the_edit_page_comes_back_with_what_was_typed(
    ada: Client, write: Write, protected_mcp_server: ProtectedServer
) -> None:
    """What is stored and kept is used for the sign-in; the stored row changes when it is saved, not
    before."""
    with write() as session:
        server_id = make_server(
            session,
            "fresh",
            url=protected_mcp_server.url,
            auth_type="oauth2",
            static_headers={"X-Old": "SECRET-old"},
        )
    path = f"/servers/{server_id}/edit"
    back = round_trip(ada, press(ada, path, "sign_in", description="Typed while editing"))
    assert back.startswith(f"{path}?draft=")
    page: Any = parse(ada.get(back))
    assert "Signed in" in text_of(page.main)
    assert (
        page.find("textarea", attrs={"name": "description"}).text.strip() == "Typed while editing"
    )
    with write() as session:
        row = session.get(Server, server_id)
        assert row is not None
        assert row.description is None
    done = press(ada, back, "save")
    assert "You are connected to it" in ada.get(done.headers["Location"]).get_data(as_text=True)
    assert credential(write, server_id) is not None
    with write() as session:
        row = session.get(Server, server_id)
        assert row is not None
        assert row.description == "Typed while editing"
        assert [secret.name for secret in row.secrets if secret.field == "static_headers"] == [
            "X-Old"
        ]


def test_what_is_kept_is_over_after_five_minutes_and_nothing_is_saved_without_it(
    ada: Client, write: Write, protected_mcp_server: ProtectedServer
) -> None:
    back = round_trip(ada, press(ada, NEW, "sign_in", **typed(protected_mcp_server.url)))
    form = form_at(ada, back)
    with write() as session:
        session.query(TemporaryServer).one().expires_at -= timedelta(seconds=301)
    late = ada.ask("POST", NEW, data={**filled(form), "save": "yes"})
    assert "Your input has expired" in text_of(parse(late, 422))
    assert form_at(ada, back).find("input", attrs={"name": "draft"}) is None
    again = ada.ask("POST", NEW, data={**filled(form), "sign_in": "yes"})
    assert "input has expired" in text_of(parse(again, 422))
    with write() as session:
        assert session.query(Server).count() == 1


def test_a_draft_is_its_authors_alone(
    ada: Client,
    signed_in: Callable[[str], Client],
    write: Write,
    protected_mcp_server: ProtectedServer,
) -> None:
    back = round_trip(ada, press(ada, NEW, "sign_in", **typed(protected_mcp_server.url)))
    assert signed_in("mel").get(back).status_code == 404
    assert signed_in("vera").get(back).status_code == 404
    with write() as session:
        make_user(session, "second", Role.ADMIN)
    words = text_of(parse(signed_in("second").get(back)))
    assert "input has expired" in words
    assert "Typed before" not in words


def test_what_is_in_the_way_is_told_in_the_form_and_nothing_is_lost(
    ada: Client, write: Write, recording_as: RecordingServer
) -> None:
    del recording_as.metadata["registration_endpoint"]  # type: ignore[union-attr]
    answer = press(ada, NEW, "sign_in", **typed(recording_as.url, client_secret="SECRET-client"))
    page: Any = parse(answer, 422)
    assert "is not registered at the sign-in provider" in text_of(page.main)
    assert "Kept for 5 minutes" in text_of(page.main)
    form = page.find("form", attrs={"data-guard": True})
    data = {**filled(form, client_id="now-typed"), "sign_in": "yes"}
    assert "client_id=now-typed" in departed(ada.ask("POST", NEW, data=data)), (
        "the address was held"
    )
    answer = press(ada, NEW, "sign_in", **typed(f"{NOBODY_LISTENS}/mcp"))
    assert "Can’t reach the sign-in provider" in text_of(parse(answer))
    answer = press(ada, NEW, "sign_in", **typed("ftp://wrong.example/"))
    assert parse(answer, 422).select_one("[data-error-summary]")
    answer = press(ada, NEW, "sign_in", **typed(recording_as.url, auth_type="none"))
    assert "do not sign in to this type of server" in text_of(parse(answer, 422))


def test_htmx_is_told_to_navigate(ada: Client, protected_mcp_server: ProtectedServer) -> None:
    form = form_at(ada, NEW)
    data = {**filled(form, **typed(protected_mcp_server.url)), "sign_in": "yes"}
    answer = ada.ask("POST", NEW, data=data, headers={"HX-Request": "true"})
    assert answer.status_code == 204
    assert answer.headers["HX-Redirect"].startswith(f"{protected_mcp_server.issuer}/authorize?")


def test_a_way_back_that_was_used_or_belongs_to_another_changes_nothing(
    ada: Client,
    signed_in: Callable[[str], Client],
    protected_mcp_server: ProtectedServer,
    write: Write,
) -> None:
    back = at_provider(departed(press(ada, NEW, "sign_in", **typed(protected_mcp_server.url))))
    assert signed_in("mel").get(back).status_code == 400, "another browser"
    assert ada.get(back).status_code == 303
    assert ada.get(back).status_code == 400
    with write() as session:
        assert "SECRET" not in str(session.execute(text("select * from temporary_servers")).all())


def test_testing_and_mending_use_what_is_held(ada: Client, recording_as: RecordingServer) -> None:
    form = typed(recording_as.url, client_id="typed-id")
    back = round_trip(ada, press(ada, NEW, "sign_in", **form))
    page_form = form_at(ada, back)
    tried = ada.ask("POST", "/servers/test", data=filled(page_form))
    assert "sign-in required" in text_of(parse(tried)), "the held address was asked"
    wrong = ada.ask(
        "POST", NEW, data={**filled(page_form, server_name="no/slashes"), "save": "yes"}
    )
    assert "Kept for 5 minutes" in text_of(parse(wrong, 422))
    mended: Any = parse(wrong, 422).find("form", attrs={"data-guard": True})
    done = ada.ask("POST", NEW, data={**filled(mended, server_name="fresh"), "save": "yes"})
    assert "You are connected to it" in ada.get(done.headers["Location"]).get_data(as_text=True)
