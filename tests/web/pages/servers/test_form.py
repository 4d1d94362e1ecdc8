"""The server form by the numbers of its behaviours: what it shows for each choice, and what it
sends."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Client, Write
from tests.support.browsing import text_of
from tests.support.factories import make_server
from tests.support.html import filled, parse
from tests.support.server_forms import (
    EDIT,
    NEW,
    by_name,
    choosing,
    form_of,
    save,
    shown_text,
    shows,
    stored,
)

SignedIn = Callable[[str], Client]
As = Callable[[str | None], Client]
ENDPOINTS = {
    "authorization_url": "https://id.example/authorize",
    "token_url": "https://id.example/token",
    "registration_url": "https://id.example/register",
}


def test_ui_17_the_add_form_says_what_it_is(signed_in: SignedIn) -> None:
    page = parse(signed_in("ada").get(NEW))
    assert page.find("h1").text == "Add server"


def test_ui_19_each_transport_shows_its_fields(stdio_portal: tuple[Client, As]) -> None:
    ada, _ = stdio_portal
    http = choosing(ada, transport="http")
    assert shows(http, "url")
    assert shows(http, "auth_type")
    assert not shows(http, "command")
    stdio = choosing(ada, transport="stdio")
    assert shows(stdio, "command")
    assert shows(stdio, "args")
    assert stdio.find(attrs={"data-add-row": "env"})
    assert not shows(stdio, "url")
    assert not shows(stdio, "auth_type")


@pytest.mark.parametrize("auth", ["api_key", "bearer_token"])
def test_ui_20_a_value_is_offered_and_optional(signed_in: SignedIn, client: As, auth: str) -> None:
    ada = signed_in("ada")
    assert shows(choosing(ada, auth_type=auth), "auth_value")
    assert not shows(choosing(ada, auth_type="none"), "auth_value")
    save(ada, NEW, server_name="plain", url="https://a.example", auth_type=auth)
    assert by_name(client, "plain")["auth_type"] == auth


def test_ui_20_21_the_value_is_sent_and_without_sign_in_it_is_not(
    signed_in: SignedIn, client: As, echo_server: str
) -> None:
    ada = signed_in("ada")
    common = {"url": echo_server, "auth_value": "typed-value", "allow_all_keys": "y"}
    save(ada, NEW, server_name="with", auth_type="bearer_token", **common)
    save(ada, NEW, server_name="without", auth_type="none", **common)
    for name, arrived in (("with", "Bearer typed-value"), ("without", None)):
        call = {"server_id": name, "name": "show_headers"}
        headers = client("otto").post("/v1/mcp/tools/call", call).get_json()["structuredContent"]
        assert headers.get("authorization") == arrived


def test_ui_22_each_flow_shows_its_fields(signed_in: SignedIn) -> None:
    ada = signed_in("ada")
    person = choosing(ada, auth_type="oauth2", oauth2_flow="authorization_code")
    for name in (
        "oauth2_flow",
        "authorization_url",
        "registration_url",
        "token_validation",
        "scopes",
    ):
        assert shows(person, name), name
    machine = choosing(ada, auth_type="oauth2", oauth2_flow="client_credentials")
    for name in ("client_id", "client_secret", "token_url"):
        assert shows(machine, name), name
    for name in ("authorization_url", "registration_url", "token_validation"):
        assert not shows(machine, name), name
    assert not shows(choosing(ada, auth_type="none"), "oauth2_flow")


@pytest.mark.parametrize("typed", ["{", "[1]", '"text"', "{'a': 1}", '{"a": NaN}', "[" * 5000])
def test_ui_23_rules_that_are_no_json_object_are_refused(
    signed_in: SignedIn, client: As, typed: str
) -> None:
    ada = signed_in("ada")
    data = {
        "server_name": "ruled",
        "url": "https://a.example",
        "auth_type": "oauth2",
        "token_validation": typed,
    }
    page = parse(save(ada, NEW, 422, **data), 422)
    assert "Must be valid JSON" in text_of(page.find(id="token_validation-error"))
    assert page.find(id="token_validation")["aria-invalid"] == "true"
    assert "ruled" not in client("ada").get("/v1/mcp/server").get_data(as_text=True)


def test_ui_23_24_25_rules_are_stored_shown_and_cleared(
    signed_in: SignedIn, client: As, changes: Any
) -> None:
    ada = signed_in("ada")
    data = {"server_name": "ruled", "url": "https://a.example", "auth_type": "oauth2"}
    rules = {"iss": "https://id.example", "org.id": [1, 2]}
    save(ada, NEW, **data, token_validation=json.dumps(rules))
    server_id = by_name(client, "ruled")["server_id"]
    edit = f"/servers/{server_id}/edit"
    assert stored(client, server_id)["token_validation"] == rules
    assert json.loads(form_of(ada.get(edit)).find(id="token_validation").text) == rules
    save(ada, edit, description="else")
    assert changes() == ["description"]
    save(ada, edit, token_validation="   ")
    assert stored(client, server_id)["token_validation"] is None
    assert changes() == ["token_validation"]
    save(ada, edit, token_validation=" ", description="again")
    assert changes() == ["description"]


def test_ui_24_the_api_keeps_the_rules(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "s", auth_type="oauth2")
    for rules in ({"iss": "x"}, None):
        answer = client("ada").put(
            "/v1/mcp/server", {"server_id": "id-s", "token_validation": rules}
        )
        assert (answer.status_code, answer.get_json()["token_validation"]) == (202, rules)


def test_ui_26_names_and_addresses(signed_in: SignedIn, client: As) -> None:
    """No hyphen; an underscore is fine, a space becomes one; the address must be one."""
    ada = signed_in("ada")
    for typed in ({"server_name": "has-dash"}, {"url": "nonsense"}):
        save(ada, NEW, 422, **{"server_name": "right_name", "url": "https://a.example", **typed})
    save(ada, NEW, server_name="right_name", url="https://a.example")
    save(ada, NEW, server_name="two words", url="https://b.example")
    assert {"right_name", "two_words"} <= {
        s["server_name"] for s in client("ada").get("/v1/mcp/server").get_json()
    }


def test_ui_26_an_address_may_be_left_out_where_a_document_is_used(
    signed_in: SignedIn, client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "s", url=None, spec_path="https://a.example/openapi.json")
    save(signed_in("ada"), description="changed")
    assert (stored(client)["url"], stored(client)["description"]) == (None, "changed")


def test_ui_34_a_stdio_server_is_edited_by_its_command(
    stdio_portal: tuple[Client, As],
) -> None:
    ada, client = stdio_portal
    answer = client("ada").post(
        "/v1/mcp/server",
        {
            "server_id": "id-s",
            "server_name": "s",
            "transport": "stdio",
            "command": "npx",
            "args": ["-y", "one"],
            "env": {"A": "SECRET-a", "B": "SECRET-b"},
        },
    )
    assert answer.status_code == 201
    form = form_of(ada.get(EDIT))
    assert shows(form, "command")
    assert not shows(form, "url")
    assert [form.find(id=f"env-{i}-name")["value"] for i in (0, 1)] == ["A", "B"]
    # Another command gets the stored value because the person says so.
    said = {"env-0-delete": "y", "env-1-value__mode": "keep", "keep_credentials": "keep"}
    save(ada, command="uvx", args="two\n--three", **said)
    server = stored(client)
    assert (server["command"], server["args"], server["env"]) == (
        "uvx",
        ["two", "--three"],
        {"B": "SECRET-b"},
    )


def test_ui_35_flags_go_with_their_sign_in(signed_in: SignedIn, client: As, write: Write) -> None:
    with write() as session:
        make_server(
            session, "s", auth_type="oauth2", delegate_auth_to_upstream=True, oauth_passthrough=True
        )
    ada = signed_in("ada")
    save(ada, description="x")
    assert (stored(client)["delegate_auth_to_upstream"], stored(client)["oauth_passthrough"]) == (
        True,
        False,
    )
    save(ada, auth_type="bearer_token")
    assert stored(client)["delegate_auth_to_upstream"] is False


def test_ui_36_endpoints_go_with_oauth(signed_in: SignedIn, client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "s", auth_type="oauth2", **ENDPOINTS)
    ada = signed_in("ada")
    save(ada, description="x")
    assert {name: stored(client)[name] for name in ENDPOINTS} == ENDPOINTS
    save(
        ada,
        token_url__mode="replace",
        token_url="https://id.example/t2",
        registration_url__mode="clear",
    )
    assert (stored(client)["token_url"], stored(client)["registration_url"]) == (
        "https://id.example/t2",
        None,
    )
    save(ada, auth_type="api_key")
    assert {stored(client)[name] for name in ENDPOINTS} == {None}


def test_stored_oauth_details_are_kept_replaced_and_cleared(
    signed_in: SignedIn, write: Write, held: Any
) -> None:
    with write() as session:
        make_server(
            session,
            "s",
            auth_type="oauth2",
            credentials={
                "client_id": "SECRET-id",
                "client_secret": "SECRET-s",
                "scopes": ["SECRET-a"],
            },
        )
    save(
        signed_in("ada"),
        client_id__mode="keep",
        client_secret__mode="clear",
        scopes__mode="replace",
        scopes="read  w",
    )
    assert held() == {"client_id": "SECRET-id", "scopes": ["read", "w"]}


def test_ui_42_a_flow_is_warned_about_until_it_is_chosen(
    signed_in: SignedIn, client: As, write: Write, changes: Any
) -> None:
    with write() as session:
        make_server(session, "s", auth_type="oauth2")
    ada = signed_in("ada")
    form = form_of(ada.get(EDIT))
    assert not form.select("#oauth2_flow option[selected][value]:not([value=''])")
    assert "Until you select a flow" in shown_text(form)
    save(ada, description="x")
    assert changes() == ["description"]
    save(ada, oauth2_flow="client_credentials")
    assert stored(client)["oauth2_flow"] == "client_credentials"
    form = form_of(ada.get(EDIT))
    assert form.select_one("#oauth2_flow option[selected]")["value"] == "client_credentials"
    assert "Until you select a flow" not in shown_text(form)


def test_ui_44_the_delegate_switch_says_what_it_opens(
    signed_in: SignedIn, client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "s", auth_type="oauth2")
    ada = signed_in("ada")
    form = form_of(ada.get(EDIT))
    assert not form.find(id="delegate_auth_to_upstream").has_attr("checked")
    assert "without signing in to the portal" not in shown_text(form)
    save(ada, delegate_auth_to_upstream="y")
    form = form_of(ada.get(EDIT))
    assert form.find(id="delegate_auth_to_upstream").has_attr("checked")
    words = shown_text(form)
    assert "without signing in to the portal" in words
    assert "internal network only, but" not in words
    save(ada, available_on_public_internet=None)
    assert "internal network only, but" in shown_text(form_of(ada.get(EDIT)))


def test_ui_45_46_each_switch_stands_by_its_sign_in(
    signed_in: SignedIn, client: As, write: Write
) -> None:
    ada = signed_in("ada")
    oauth = choosing(ada, auth_type="oauth2", extra_headers="Authorization")
    assert (shows(oauth, "delegate_auth_to_upstream"), shows(oauth, "oauth_passthrough")) == (
        True,
        False,
    )
    passing = choosing(
        ada, auth_type="none", extra_headers="X-A\nauthorization", oauth_passthrough="y"
    )
    assert (shows(passing, "delegate_auth_to_upstream"), shows(passing, "oauth_passthrough")) == (
        False,
        True,
    )
    assert "does not authenticate clients of this server" in shown_text(passing)
    for neither in ({"auth_type": "none", "extra_headers": "X-A"}, {"auth_type": "basic"}):
        form = choosing(ada, **neither)
        assert not shows(form, "delegate_auth_to_upstream")
        assert not shows(form, "oauth_passthrough")
    assert not form_of(ada.get(NEW)).find(id="allow_all_keys").has_attr("checked")
    with write() as session:
        make_server(session, "s", allow_all_keys=True, extra_headers=["Authorization"])
    form = form_of(ada.get(EDIT))
    assert form.find(id="allow_all_keys").has_attr("checked")
    save(ada, oauth_passthrough="y")
    assert stored(client)["oauth_passthrough"] is True
    save(ada, extra_headers="X-A")
    assert stored(client)["oauth_passthrough"] is False


def test_ui_47_another_sign_in_warns_of_what_is_discarded(
    signed_in: SignedIn, write: Write, held: Any
) -> None:
    with write() as session:
        make_server(session, "s", auth_type="bearer_token", credentials={"auth_value": "SECRET-x"})
    ada = signed_in("ada")
    assert "deletes the stored credentials" not in shown_text(form_of(ada.get(EDIT)))
    changed = form_of(
        ada.post(EDIT, data=filled(form_of(ada.get(EDIT)), add="form", auth_type="oauth2"))
    )
    assert "deletes the stored credentials" in shown_text(changed)
    save(ada, auth_type="oauth2")
    assert held() == {}
