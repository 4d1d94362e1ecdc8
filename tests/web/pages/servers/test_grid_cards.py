"""What a card says of its server, by the numbers of the behaviours."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from portal.services.access.principals import principal_for_user
from portal.services.credentials import self_service
from portal.store.models import Server, now
from tests.conftest import Client, Write
from tests.support.browsing import text_of
from tests.support.factories import make_server
from tests.support.html import parse

SignedIn = Callable[[str], Client]
As = Callable[[str | None], Client]
UNSET = "OAuth flow not set"


def card(client: Client, server_id: str = "id-s") -> Any:
    return parse(client.get("/servers")).find(id=f"server-{server_id}")


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({"auth_type": "oauth2"}, True),
        ({"auth_type": "oauth2", "oauth2_flow": "client_credentials"}, False),
        ({"auth_type": "oauth2", "oauth2_flow": "authorization_code"}, False),
        ({"auth_type": "oauth2", "delegate_auth_to_upstream": True}, False),
        ({"auth_type": "bearer_token"}, False),
        ({}, False),
    ],
)
def test_ui_06_07_an_oauth_server_without_a_flow_is_marked(
    signed_in: SignedIn, write: Write, fields: dict[str, Any], warned: bool
) -> None:
    """For those with admin view, who can mend it; nobody else is bothered."""
    with write() as session:
        make_server(session, "s", allow_all_keys=True, **fields)
    assert (UNSET in card(signed_in("ada")).text) is warned
    assert UNSET not in card(signed_in("otto")).text


def test_ui_08_a_card_says_how_its_server_is_reached(signed_in: SignedIn, write: Write) -> None:
    with write() as session:
        make_server(session, "s", auth_type="api_key", mcp_access_groups=["a", "b", "c", "d"])
        make_server(
            session,
            "doc",
            url=None,
            spec_path="https://spec.example/openapi.json",
            available_on_public_internet=False,
            mcp_access_groups=["a", "b"],
        )
    ada = signed_in("ada")
    traits = text_of(card(ada).select_one(".traits"))
    assert traits == "HTTP API key header Any network a, b +2"
    assert (
        text_of(card(ada, "id-doc").select_one(".traits"))
        == "OPENAPI No authentication Internal network a, b"
    )


def test_ui_10_a_card_says_where_its_server_is(
    stdio_portal: tuple[Client, As], write: Write
) -> None:
    """The command without its arguments and the document's origin: the rest is sealed (1-system.md,
    5)."""
    ada, client = stdio_portal
    with write() as session:
        make_server(session, "doc", url=None, spec_path="https://spec.example/SECRET/openapi.json")
    body = {
        "server_id": "id-s",
        "server_name": "s",
        "transport": "stdio",
        "command": "npx",
        "args": ["SECRET"],
    }
    assert client("ada").post("/v1/mcp/server", body).status_code == 201
    assert "npx" in card(ada).find("header").text
    assert "spec.example" in card(ada, "id-doc").find("header").text


def test_ui_11_a_card_connects_and_updates_ones_own_key(signed_in: SignedIn, write: Write) -> None:
    with write() as session:
        make_server(session, "s", auth_type="api_key", is_byok=True, allow_all_keys=True)
    otto = signed_in("otto")
    way = card(otto).find(id="missing-id-s")
    assert "Your key needed" in way.text
    assert text_of(way.find("a", href="/credentials/id-s")) == "Connect s"
    with write() as session:
        self_service.save_key(
            session, principal_for_user(session, "otto", None), "id-s", "SECRET-key"
        )
    way = card(otto).find(id="missing-id-s")
    assert "connected" in way.text
    assert text_of(way.find("a", href="/credentials/id-s")) == "Update s"


def test_ui_52_a_machine_account_asks_nobody_to_sign_in(signed_in: SignedIn, write: Write) -> None:
    with write() as session:
        make_server(
            session, "s", auth_type="oauth2", oauth2_flow="client_credentials", allow_all_keys=True
        )
        make_server(
            session,
            "each",
            auth_type="oauth2",
            oauth2_flow="authorization_code",
            allow_all_keys=True,
        )
    otto = signed_in("otto")
    assert "Sign-in needed" not in card(otto).text
    assert "Sign-in needed" in card(otto, "id-each").text
    mine = parse(otto.get("/credentials")).find("main").text
    assert "each" in mine
    assert "id-s" not in mine


def test_a_card_that_was_drawn_before_is_drawn_anew_when_it_says_something_else(
    signed_in: SignedIn, write: Write
) -> None:
    """Drawn cards are kept by all that they show, the time since the last look among it, and are
    never out of date."""
    looked = now() - timedelta(minutes=30)
    with write() as session:
        row = session.get(
            Server, make_server(session, "s", allow_all_keys=True, description="first")
        )
        row.health_status, row.health_reason, row.health_checked_at = "healthy", "ok", looked
    otto = signed_in("otto")
    ada = signed_in("ada")
    assert str(card(otto)) == str(card(otto))
    assert "30 min ago" in card(otto).text
    assert "Internal network" not in card(otto).text
    assert card(ada).find("a", href="/servers/id-s/edit")
    assert not card(otto).find("a", href="/servers/id-s/edit")
    with write() as session:
        row = session.get(Server, "id-s")
        row.description, row.available_on_public_internet, row.is_public = "second", False, True
        row.health_checked_at = looked - timedelta(hours=3)
    assert "3 h ago" in card(otto).text
    assert "Internal network" in card(otto).text
    assert "second" in card(otto).text
