"""Client secrets, codes and refresh tokens stay with the provider that they belong to, whatever
metadata say later."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from portal.domain.oauth import TokenSet
from portal.services.secrets import token_store
from portal.store.models import Server, UserCredential
from portal.store.oauth_tables import OAuthClientRegistration, ServerAuthorization, SharedToken
from tests.conftest import Client, Write
from tests.support.connecting import connect
from tests.support.factories import make_server
from tests.support.html import filled, parse
from tests.support.oauth.asking import authorize
from tests.support.oauth.recording import RecordingServer, recording_server

As = Callable[[str | None], Client]
SignedIn = Callable[[str], Client]
PATH = "/v1/mcp/server"
CLIENT = {"client_id": "typed", "client_secret": "SECRET-typed", "scopes": ["read"]}
MACHINE = {"auth_type": "oauth2", "oauth2_flow": "client_credentials", "credentials": CLIENT}
ENDPOINTS = (
    "token_endpoint",
    "revocation_endpoint",
    "registration_endpoint",
    "authorization_endpoint",
)


@pytest.fixture
def evil() -> Iterator[RecordingServer]:
    """Another host, which takes whatever it is sent."""
    with recording_server() as server:
        yield server


@pytest.fixture
def machine(write: Write, recording_as: RecordingServer) -> str:
    """A server that the portal signs in to by itself, at a provider that discovery finds."""
    with write() as session:
        return make_server(session, "machine", url=recording_as.url, allow_all_keys=True, **MACHINE)


def changes(server_id: str, client: As, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        answer = client("ada").put(PATH, {"server_id": server_id, **body})
        assert answer.status_code == 202, answer.get_json()


def tokens_of(client: As, server_id: str) -> Any:
    call = {"server_id": server_id, "name": "whoami", "arguments": {}}
    return client("mel").post("/v1/mcp/tools/call", call).get_json()


def named(origin: RecordingServer, **elsewhere: str) -> dict[str, Any]:
    assert origin.metadata is not None
    return {**origin.metadata, **elsewhere}


AWAY_AND_BACK = [
    [
        {"auth_type": "none", "keep_credentials": True},
        {"auth_type": "oauth2", "keep_credentials": True},
    ],
    [
        {"auth_type": "bearer_token", "keep_credentials": True},
        {"auth_type": "oauth2", "keep_credentials": True},
    ],
    [{"credentials": {"scopes": ["other"]}}],
    [{"oauth2_flow": "authorization_code"}, {"oauth2_flow": "client_credentials"}],
    [{"url": "{url}/"}, {"url": "{url}"}],
    [{"transport": "sse"}, {"transport": "http"}],
    [
        {"clear_secrets": ["credentials.client_id"]},
        {"credentials": {"client_id": "typed", "scopes": ["x"]}},
    ],
    [
        {"auth_type": "none", "keep_credentials": True},
        {"credentials": {"scopes": ["z"]}},
        {"auth_type": "oauth2", "keep_credentials": True},
    ],
]


@pytest.mark.parametrize("bodies", AWAY_AND_BACK)
def test_no_change_frees_a_stored_secret_from_its_issuer(
    client: As,
    write: Write,
    machine: str,
    recording_as: RecordingServer,
    evil: RecordingServer,
    bodies: list[dict[str, Any]],
) -> None:
    tokens_of(client, machine)
    assert recording_as.seen("token")
    recording_as.resource_metadata = {
        "resource": recording_as.url,
        "authorization_servers": [evil.issuer],
    }
    urls = [
        {n: v.format(url=recording_as.url) if n == "url" else v for n, v in body.items()}
        for body in bodies
    ]
    changes(machine, client, *urls)
    tokens_of(client, machine)
    assert evil.seen("token") == []
    with write() as session:
        assert session.get_one(ServerAuthorization, machine).issuer == recording_as.issuer


@pytest.mark.parametrize("body", [{"credentials": {"scopes": ["other"]}}, {"url": "{url}/"}, {}])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_at_another_origin_waits_for_an_admin(
    client: As,
    signed_in: SignedIn,
    write: Write,
    machine: str,
    recording_as: RecordingServer,
    evil: RecordingServer,
    endpoint: str,
    body: dict[str, Any],
) -> None:
    """After a change and after natural expiry; once an Admin has accepted it, it is used."""
    tokens_of(client, machine)
    recording_as.metadata = named(recording_as, **{endpoint: f"{evil.issuer}/token"})
    if body:
        changes(
            machine,
            client,
            {n: v.format(url=recording_as.url) if n == "url" else v for n, v in body.items()},
        )
    else:
        with write() as session:
            session.query(SharedToken).delete()
            known = session.get_one(ServerAuthorization, machine)
            known.found = {**known.found, "stale": True}
    before = len(recording_as.seen("token"))
    answer = tokens_of(client, machine)
    assert evil.requests == []
    assert len(recording_as.seen("token")) == before, answer
    ada = signed_in("ada")
    form = parse(ada.get(f"/servers/{machine}/credentials")).find(
        "form", action=f"/servers/{machine}/sign-in/forget"
    )
    assert ada.post(f"/servers/{machine}/sign-in/forget", data=filled(form)).status_code in (
        200,
        303,
    )
    tokens_of(client, machine)
    assert (
        evil.seen("token")
        if endpoint == "token_endpoint"
        else len(recording_as.seen("token")) > before
    )


def test_a_person_is_told_and_their_refresh_token_stays(
    client: As,
    signed_in: SignedIn,
    write: Write,
    recording_as: RecordingServer,
    evil: RecordingServer,
) -> None:
    with write() as session:
        server_id = make_server(
            session,
            "p",
            url=recording_as.url,
            auth_type="oauth2",
            allow_all_keys=True,
            credentials=CLIENT,
        )
    mel = signed_in("mel")
    connect(mel, server_id)
    recording_as.metadata = named(recording_as, token_endpoint=f"{evil.issuer}/token")
    with write() as session:
        known = session.get_one(ServerAuthorization, server_id)
        known.discovered_at = datetime.now(UTC) - timedelta(days=2)
        session.execute(
            update(UserCredential).values(expires_at=datetime.now(UTC) - timedelta(minutes=1))
        )
    before = len(recording_as.seen("token"))
    tokens_of(client, server_id)
    assert len(recording_as.seen("token")) == before + 1, "the remembered endpoint renews it"
    page = mel.get(f"/credentials/{server_id}/connect")
    form = parse(page).find("form", action=f"/credentials/{server_id}/connect")
    refused = mel.post(f"/credentials/{server_id}/connect", data=filled(form))
    assert refused.status_code == 409
    assert evil.issuer in refused.get_data(as_text=True)
    assert evil.requests == []


@pytest.mark.parametrize("path", ["test", "session"])
def test_definitions_under_test_are_held_to_it(
    client: As,
    signed_in: SignedIn,
    machine: str,
    recording_as: RecordingServer,
    evil: RecordingServer,
    path: str,
) -> None:
    tokens_of(client, machine)
    recording_as.metadata = named(recording_as, token_endpoint=f"{evil.issuer}/token")
    if path == "session":
        body = {
            "server_id": machine,
            "server_name": "m",
            "url": recording_as.url,
            "transport": "http",
            **MACHINE,
        }
        del body["credentials"]
        answer = client("ada").post(f"{PATH}/oauth/session", body)
        assert answer.status_code == 200, answer.get_json()
        tokens_of(client, machine)
        authorize(client("ada"), f"/v1/mcp/server/oauth/{machine}")
    else:
        ada = signed_in("ada")
        form = parse(ada.get(f"/servers/{machine}/edit")).find(
            "form", action=f"/servers/{machine}/edit"
        )
        page = ada.post("/servers/test", data={**filled(form), "server_id": machine}).get_data(
            as_text=True
        )
        assert evil.issuer in page
    assert evil.requests == []


MIXED = [
    ({"token_url": "{evil}/token"}, True),
    ({"authorization_url": "{evil}/authorize"}, True),
    ({"registration_url": "{evil}/register"}, True),
    ({"authorization_url": "{own}/other"}, False),
    ({"token_url": "{own}/token"}, False),
    ({"registration_url": "{own}/register"}, False),
    ({"token_url": "{evil}/token", "registration_url": "{own}/register"}, True),
    ({"authorization_url": "{evil}/authorize", "token_url": "{evil}/token"}, False),
]


@pytest.mark.parametrize("where", ["saved", "temporary"])
@pytest.mark.parametrize(("typed", "refused"), MIXED)
def test_half_of_the_addresses_typed_has_to_be_of_the_same_provider(
    client: As,
    signed_in: SignedIn,
    write: Write,
    recording_as: RecordingServer,
    evil: RecordingServer,
    typed: dict[str, str],
    refused: bool,
    where: str,
) -> None:
    urls = {
        name: value.format(evil=evil.issuer, own=recording_as.issuer)
        for name, value in typed.items()
    }
    body = {
        "server_name": "half",
        "url": recording_as.url,
        "transport": "http",
        "auth_type": "oauth2",
        "allow_all_keys": True,
        "credentials": CLIENT,
        **urls,
    }
    path = PATH if where == "saved" else f"{PATH}/oauth/session"
    server_id = client("ada").post(path, body).get_json()["server_id"]
    answer = authorize(client("ada"), f"/v1/mcp/server/oauth/{server_id}")
    assert answer.status_code == (400 if refused else 307), answer.get_data(as_text=True)
    if refused:
        detail = answer.get_json()["detail"]
        assert (detail["error"], detail["field"] in urls) == ("mixed_providers", True)
        assert evil.issuer in detail["message"]
        assert recording_as.issuer in detail["message"]
        if where == "saved":
            check = client("ada").get(f"{PATH}/{server_id}/oauth-check").get_data(as_text=True)
            assert "own sign-in provider is at" in check
    assert evil.requests == []


SPLIT = [
    ("token_endpoint", True),
    ("registration_endpoint", True),
    ("authorization_endpoint", False),
    ("revocation_endpoint", False),
]


@pytest.mark.parametrize(("endpoint", "refused"), SPLIT)
def test_what_one_host_registered_is_not_sent_to_another(
    signed_in: SignedIn,
    write: Write,
    recording_as: RecordingServer,
    evil: RecordingServer,
    endpoint: str,
    refused: bool,
) -> None:
    """Providers whose authorization endpoint is elsewhere, as with Google, work; a split
    registration does not."""
    kind = (
        endpoint.removesuffix("_endpoint")
        .replace("authorization", "authorize")
        .replace("revocation", "revoke")
    )
    kind = kind.replace("registration", "register")
    recording_as.metadata = named(recording_as, **{endpoint: evil.endpoint(kind)})
    with write() as session:
        server_id = make_server(
            session, "split", url=recording_as.url, auth_type="oauth2", allow_all_keys=True
        )
    mel = signed_in("mel")
    form = parse(mel.get(f"/credentials/{server_id}/connect")).find(
        "form", action=f"/credentials/{server_id}/connect"
    )
    answer = mel.post(f"/credentials/{server_id}/connect", data=filled(form))
    assert (answer.status_code == 400) is refused, answer.get_data(as_text=True)[:2000]
    if refused:
        assert evil.issuer in answer.get_data(as_text=True)
    assert evil.seen("token") == evil.seen("register") == []


def test_a_registration_from_before_is_not_used_where_the_token_endpoint_is_elsewhere(
    client: As,
    signed_in: SignedIn,
    write: Write,
    recording_as: RecordingServer,
    evil: RecordingServer,
) -> None:
    """An older version registered and stored it."""
    with write() as session:
        server_id = make_server(
            session, "old", url=recording_as.url, auth_type="oauth2", allow_all_keys=True
        )
    connect(signed_in("mel"), server_id)
    with write() as session:
        known = session.get_one(ServerAuthorization, server_id)
        known.found = {
            **known.found,
            "server": {**known.found["server"], "token_endpoint": evil.endpoint("token")},
        }
        session.execute(
            update(UserCredential).values(expires_at=datetime.now(UTC) - timedelta(minutes=1))
        )
        assert session.query(OAuthClientRegistration).count() == 1
    tokens_of(client, server_id)
    assert evil.requests == []


def test_a_revoked_connection_goes_to_its_own_provider_only(
    client: As, write: Write, machine: str, recording_as: RecordingServer
) -> None:
    """A token of which nobody knows who issued it is sent nowhere, not even to be revoked."""
    changes(machine, client, {"oauth2_flow": "authorization_code"})
    with write() as session:
        row = session.get_one(Server, machine)
        token_store.keep(session, row, "mel", TokenSet("SECRET-at", "SECRET-rt"), issuer=None)
    answer = client("mel").delete(f"{PATH}/{machine}/oauth-user-credential")
    assert answer.status_code == 200
    assert recording_as.seen("revoke") == []
