"""Without a credential nobody finds out by trying names which servers there are: every address
answers the same."""

import re
from collections.abc import Callable
from itertools import count
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from sqlalchemy import update
from werkzeug.test import TestResponse

from portal.domain.principals import OPERATOR
from portal.services.tools import toolsets
from portal.store.database import Database
from portal.store.models import Server
from tests.conftest import Client, Write
from tests.support.counting import counted
from tests.support.factories import NOBODY_LISTENS, make_server
from tests.support.oauth.asking import ASKED, BACK

As = Callable[[str | None], Client]
OAUTH: dict[str, Any] = {
    "auth_type": "oauth2", "credentials": {"client_id": "portal", "scopes": ["one"]},
    "authorization_url": f"{NOBODY_LISTENS}/authorize", "token_url": f"{NOBODY_LISTENS}/token",
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "brokered": OAUTH,
    "machine": {**OAUTH, "oauth2_flow": "client_credentials"},
    "keyed": {"is_byok": True, "auth_type": "bearer_token"},
    "everyone": {**OAUTH, "allow_all_keys": True},
    "inside": {**OAUTH, "available_on_public_internet": False},
    "aliased": {**OAUTH, "alias": "nick"},
    "exchanged": {"auth_type": "oauth2_token_exchange"},
    "open_inside": {
        **OAUTH,
        "delegate_auth_to_upstream": True,
        "available_on_public_internet": False,
    },
}
STATES = {"pending": "pending_review", "refused": "rejected", "open_pending": "pending_review"}
NAMES = (*KINDS, *(f"id-{name}" for name in KINDS), *STATES, "nick", "chosen")
ODD = (
    "nowhere",
    "NOWHERE",
    "no where",
    "x" * 300,
    "ü",
    "a.b",
    "-",
    "0",
    "..;",
    "mcp",
    "toolset",
    "a'b\"<c>",
    "\u202ex",
    "%",
    "null",
    "id-nowhere",
    "__proto__",
    " plain",
    "plain ",
    "pl%61in",
)
_HOSTS = count(1)
REGISTRATION = {"redirect_uris": [BACK], "client_name": "Some app"}
CODE = {
    "grant_type": "authorization_code",
    "code": "x",
    "redirect_uri": BACK,
    "client_id": "c",
    "code_verifier": "v" * 43,
}
ADDRESSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "resource": ("GET", "/.well-known/oauth-protected-resource/{}/mcp", {}),
    "resource below /mcp": ("GET", "/.well-known/oauth-protected-resource/mcp/{}", {}),
    "issuer": ("GET", "/.well-known/oauth-authorization-server/{}", {}),
    "authorize, a program": ("GET", "/{}/authorize", {"query_string": ASKED}),
    "authorize, nothing asked": ("GET", "/{}/authorize", {}),
    "authorize, a browser": (
        "GET",
        "/{}/authorize",
        {"query_string": ASKED, "headers": {"Accept": "text/html"}},
    ),
    "authorize below /mcp": ("GET", "/mcp/{}/authorize", {"query_string": ASKED}),
    "token": ("POST", "/{}/token", {"data": CODE}),
    "token, nothing asked": ("POST", "/{}/token", {"data": {}}),
    "refresh": (
        "POST",
        "/{}/token",
        {"data": {"grant_type": "refresh_token", "refresh_token": "r"}},
    ),
    "register": ("POST", "/{}/register", {"json": REGISTRATION}),
    "register below /mcp": ("POST", "/mcp/{}/register", {"json": REGISTRATION}),
    "register without an address": ("POST", "/{}/register", {"json": {}}),
    "register, refused": (
        "POST",
        "/{}/register",
        {"json": {"redirect_uris": ["https://nobody.example/cb"]}},
    ),
    "by id: authorize": ("GET", "/v1/mcp/server/oauth/{}/authorize", {"query_string": ASKED}),
    "by id: token": ("POST", "/v1/mcp/server/oauth/{}/token", {"data": CODE}),
    "by id: register": ("POST", "/v1/mcp/server/oauth/{}/register", {"json": REGISTRATION}),
    "a server": ("GET", "/v1/mcp/server/{}", {}),
    "its page": ("GET", "/servers/{}", {}),
    "its values": ("GET", "/credentials/{}", {}),
    "its old link": ("GET", "/ui/?page=mcp-servers&fill_env_vars={}", {}),
    "keys": ("GET", "/oauth/authorize?server_id={}", {}),
    "a logo": ("GET", "/servers/{}/health", {}),
    "the registry": ("GET", "/v0.1/servers/{}/versions", {}),
}


@pytest.fixture
def servers(write: Write) -> None:
    with write() as session:
        for name, fields in KINDS.items():
            make_server(session, name, **fields)
        for name, status in STATES.items():
            make_server(
                session, name, **{**OAUTH, "delegate_auth_to_upstream": name == "open_pending"}
            )
            session.execute(
                update(Server).where(Server.server_name == name).values(approval_status=status)
            )
        toolsets.create_toolset(session, OPERATOR, "chosen", None, [])


def _outside() -> dict[str, str]:
    """Each request from an address of its own: the limits count by address, and are in nobody's
    way."""
    number = next(_HOSTS)
    return {"REMOTE_ADDR": f"198.18.{number >> 8 & 255}.{number & 255}"}


def answered(client: Client, address: str, name: str) -> TestResponse:
    method, path, options = ADDRESSES[address]
    return client.ask(method, path.format(quote(name, safe="")), **options, environ_base=_outside())


def look(answer: TestResponse, name: str) -> tuple[object, ...]:
    """All of an answer but the name that was asked for, and what differs from one answer to the
    next anyway."""
    text = answer.get_data(as_text=True)
    said = [
        f"{key}: {value}"
        for key, value in answer.headers.items()
        if key not in ("Content-Length", "Set-Cookie")
    ]
    cookies = [
        re.sub(r"=[^;]*", "=…", cookie, count=1) for cookie in answer.headers.getlist("Set-Cookie")
    ]
    whole = "\n".join([*said, *cookies, text])
    for spelled in (quote(quote(name, safe=""), safe=""), quote(name, safe=""), quote(name)):
        whole = whole.replace(spelled, "NAME")
    # A registration without an address answers the name itself, written as JSON.
    whole = whole.replace(f'"client_id":"{name}"', '"client_id":"NAME"')
    whole = re.sub(
        r'"client_id":"mcp-[^"]*"|"client_id_issued_at":\d+|name="csrf_token" value="[^"]*"',
        "",
        whole,
    )
    return answer.status_code, re.sub(r"\b[0-9a-f]{12,32}\b", "ID", whole)


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("address", ADDRESSES)
def test_every_name_is_answered_as_one_that_nobody_uses(app: Flask, address: str) -> None:
    program = Client(app.test_client(use_cookies=False), {})
    expected = look(answered(program, address, "nothing"), "nothing")
    for name in NAMES:
        assert look(answered(program, address, name), name) == expected, name


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("address", [a for a in ADDRESSES if a.startswith(("resource", "issuer"))])
def test_odd_spellings_are_answered_alike_too(client: As, address: str) -> None:
    expected = answered(client(None), address, "nothing")
    for name in ODD:
        found = answered(client(None), address, name)
        assert found.status_code == expected.status_code == 200, name
        assert found.get_json().keys() == expected.get_json().keys()
        assert dict(found.headers).keys() == dict(expected.headers).keys()


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(
    "address", ["resource", "issuer", "register", "token", "authorize, a program"]
)
def test_the_same_statements_are_sent_for_every_name(
    client: As, database: Database, address: str
) -> None:
    """What takes longer for a server that is there would tell as much."""
    counts = {}
    for name in ("nothing", "plain", "brokered", "keyed", "pending", "inside"):
        with counted(database) as statements:
            method, path, options = ADDRESSES[address]
            if address == "register":  # an equal registration is found, and not written again
                options = {"json": {**REGISTRATION, "client_name": f"An app for {name}"}}
            client(None).ask(method, path.format(name), **options, environ_base=_outside())
        counts[name] = len(statements)
    assert len(set(counts.values())) == 1, counts


@pytest.mark.usefixtures("servers")
def test_a_registration_does_not_tell_names_at_a_server_that_lets_strangers_in(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "open", **{**OAUTH, "delegate_auth_to_upstream": True})
    answers = set()
    for name in ("nothing", "brokered", "plain", "pending"):
        made = client(None).post(f"/{name}/register", REGISTRATION).get_json()
        asked = {**ASKED, "client_id": made["client_id"], "redirect_uri": BACK}
        answers.add(client(None).get("/open/authorize", query_string=asked).status_code)
    assert answers == {307}


@pytest.mark.usefixtures("servers")
def test_the_root_names_no_server(client: As, write: Write) -> None:
    paths = ("/.well-known/oauth-protected-resource", "/.well-known/oauth-authorization-server")
    before = [client(None).get(path).get_data() for path in paths]
    with write() as session:
        session.execute(
            update(Server)
            .where(Server.server_name != "brokered")
            .values(approval_status="rejected")
        )
    assert [client(None).get(path).get_data() for path in paths] == before
    assert client(None).ask("POST", "/token", data=CODE).status_code == 401
