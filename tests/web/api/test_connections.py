"""A person's OAuth tokens over the API (UOC), and the tokens that the portal gets by itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update

from portal.domain.errors import Conflict
from portal.domain.principals import OPERATOR
from portal.domain.servers import KEPT, AuthType, OAuthFlow, Transport
from portal.domain.upstream import HealthStatus
from portal.services.upstreams import connection_test
from portal.store.database import Database
from portal.store.models import Server, UserCredential
from portal.store.oauth_tables import SharedToken
from tests.conftest import CREW, Client, Write
from tests.support.connecting import connect
from tests.support.counting import counted
from tests.support.factories import make_key, make_server
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth.serving import Answer
from tests.support.oauth_peers import ProtectedServer

As = Callable[[str | None], Client]
SignedIn = Callable[[str], Client]
TOKEN = {
    "access_token": "SECRET-at",
    "refresh_token": "SECRET-rt",
    "expires_in": 3600,
    "scopes": ["read"],
}


def path(server_id: str, end: str = "") -> str:
    return f"/v1/mcp/server/{server_id}/oauth-user-credential{end}"


@pytest.fixture
def server(write: Write) -> str:
    """An OAuth server that nobody asks in these tests."""
    with write() as session:
        return make_server(session, "signed", auth_type="oauth2", allow_all_keys=True)


def test_uoc_01_a_token_is_stored(client: As, server: str) -> None:
    """The expiry is the one that was stored, read back; nothing of the token comes back."""
    answer = client("mel").post(path(server), TOKEN)
    assert answer.status_code == 200
    state = answer.get_json()
    assert "refresh token was not stored" in state.pop("note"), (
        "nobody is there who could tell whose it is"
    )
    expires = datetime.fromisoformat(state.pop("expires_at"))
    assert timedelta(seconds=3590) < expires - datetime.now(UTC) < timedelta(seconds=3610)
    assert state.pop("connected_at")
    assert state == {"server_id": server, "has_credential": True, "is_expired": False}
    again = client("mel").get(path(server, "/status")).get_json()
    assert datetime.fromisoformat(again["expires_at"]) == expires
    assert "SECRET" not in answer.get_data(as_text=True)


TYPED = {"authorization_url": "{url}/authorize", "token_url": "{url}/token"}
BOUND = [
    ({}, TOKEN, True),
    (TYPED, TOKEN, True),
    ({}, {**TOKEN, "refresh_token": None}, None),
    ({"auth_type": "bearer_token"}, TOKEN, False),
    ({"token_url": "https://other.example/token"}, TOKEN, False),
    ({"url": "http://127.0.0.1:9/mcp"}, TOKEN, False),
]


@pytest.mark.parametrize(("fields", "sent", "bound"), BOUND)
def test_a_refresh_token_goes_only_to_the_provider_that_it_was_stored_for(
    client: As,
    write: Write,
    database: Database,
    recording_as: RecordingServer,
    fields: dict[str, str],
    sent: dict[str, Any],
    bound: bool | None,
) -> None:
    """It is bound when it is stored; where nobody can tell whose it is, it is not stored, and the
    answer says so."""
    urls = {name: value.format(url=recording_as.issuer) for name, value in fields.items()}
    with write() as session:
        given = {"url": recording_as.url, "auth_type": "oauth2", "allow_all_keys": True, **urls}
        server_id = make_server(
            session, "bound", credentials={"client_id": "c", "client_secret": "SECRET-c"}, **given
        )
    answer = client("mel").post(path(server_id), sent).get_json()
    assert ("note" in answer) is (bound is False)
    with write() as session:
        held = session.get_one(UserCredential, ("mel", server_id, "oauth2"))
        assert (held.issuer, held.renewable) == (
            recording_as.issuer if bound else None,
            bool(bound),
        )
        held.expires_at = datetime.now(UTC) - timedelta(seconds=1)
        row = session.get_one(Server, server_id)
        row.auth_type = "oauth2"
    client("mel").post(
        "/v1/mcp/tools/call", {"server_id": server_id, "name": "whoami", "arguments": {}}
    )
    assert len(recording_as.seen("token")) == bool(bound)


@pytest.mark.parametrize(("method", "end"), [("POST", ""), ("DELETE", ""), ("GET", "/status")])
def test_uoc_02_unknown_servers_and_keys_of_nobody(
    client: As, write: Write, server: str, method: str, end: str
) -> None:
    with write() as session:
        nobody = make_key(session, team_id=CREW)
    body = {"json": TOKEN} if method == "POST" else {}
    assert client("ada").ask(method, path("nowhere", end), **body).status_code == 404
    assert client("mel").ask(method, path("nowhere", end), **body).status_code == 403
    assert client(nobody).ask(method, path(server, end), **body).status_code == 400
    assert client(nobody).get("/v1/mcp/user-credentials").status_code == 400


def test_uoc_04_removing_is_fine_twice_and_never_takes_a_key(client: As, write: Write) -> None:
    """A BYOK key lives beside it (`1-system.md`, 3)."""
    with write() as session:
        both = make_server(session, "both", auth_type="oauth2", is_byok=True, allow_all_keys=True)
    mel = client("mel")
    mel.post(f"/v1/mcp/server/{both}/user-credential", {"credential": "SECRET-key"})
    mel.post(path(both), TOKEN)
    for _ in range(2):
        answer = mel.delete(path(both))
        assert (answer.status_code, answer.get_json()["has_credential"]) == (200, False)
    assert mel.get(f"/v1/mcp/server/{both}").get_json()["has_user_credential"] is True
    assert client("otto").delete(path(both)).status_code == 200


def test_uoc_06_without_a_token(client: As, server: str) -> None:
    state = client("mel").get(path(server, "/status")).get_json()
    assert (state["has_credential"], state["is_expired"], state["expires_at"]) == (
        False,
        False,
        None,
    )


def test_uoc_07_the_list_has_ones_own_tokens_only(client: As, write: Write, server: str) -> None:
    mel = client("mel")
    mel.post(path(server), TOKEN)
    past = datetime.now(UTC) - timedelta(days=1)
    with write() as session:
        byok = make_server(session, "byok", is_byok=True, auth_type="api_key", allow_all_keys=True)
        session.execute(update(UserCredential).values(expires_at=past))
    mel.post(f"/v1/mcp/server/{byok}/user-credential", {"credential": "SECRET-key"})
    (row,) = mel.get("/v1/mcp/user-credentials").get_json()
    assert (row["server_id"], row["server_name"], row["alias"]) == (server, "signed", "signed")
    assert (row["credential_type"], row["has_credential"], row["is_expired"]) == (
        "oauth2",
        True,
        True,
    )
    assert datetime.fromisoformat(row["expires_at"]) == past.replace(microsecond=past.microsecond)
    assert client("otto").get("/v1/mcp/user-credentials").get_json() == []


def test_uoc_08_lists_take_as_many_statements_for_30_tokens_as_for_one(
    client: As, signed_in: SignedIn, write: Write, database: Database, server: str
) -> None:
    """The API's list, the grid and the credentials page alike."""
    browser = signed_in("mel")
    costs = []
    pages = (
        lambda: client("mel").get("/v1/mcp/user-credentials"),
        lambda: browser.get("/servers"),
        lambda: browser.get("/credentials"),
    )
    client("mel").post(path(server), TOKEN)
    for more in (0, 30):
        with write() as session:
            for number in range(more):
                make_server(session, f"more{number}", auth_type="oauth2", allow_all_keys=True)
        for number in range(more):
            client("mel").post(path(f"id-more{number}"), TOKEN)
        cost = []
        for page in pages:
            page()
            with counted(database) as statements:
                assert page().status_code == 200
            cost.append(len(statements))
        costs.append(cost)
    assert costs[0] == costs[1]


@pytest.mark.parametrize("origin", ["config", "database"])
def test_uoc_11_whoever_may_use_it_may_store_for_it(
    client: As, write: Write, server: str, origin: str
) -> None:
    with write() as session:
        session.execute(update(Server).where(Server.server_id == server).values(origin=origin))
    for name in ("mel", "ada", "vic", "vera", "kit"):
        assert client(name).post(path(server), TOKEN).status_code == 200, name


def test_uoc_15_a_newer_token_replaces_the_older(
    client: As, server: str, database: Database
) -> None:
    mel = client("mel")
    mel.post(path(server), TOKEN)
    answer = mel.post(path(server), {"access_token": "SECRET-second"})
    assert answer.get_json()["expires_at"] is None
    with database.session() as session:
        held = session.query(UserCredential).one()
        assert (held.version, held.scopes, held.renewable) == (2, [], False)


def test_uoc_16_status_says_expired_only_once_it_is(client: As, write: Write, server: str) -> None:
    mel = client("mel")
    for left, expired in ((30, False), (-1, True)):
        mel.post(path(server), {**TOKEN, "expires_in": 3600})
        with write() as session:
            session.execute(
                update(UserCredential).values(
                    expires_at=datetime.now(UTC) + timedelta(seconds=left)
                )
            )
        assert mel.get(path(server, "/status")).get_json()["is_expired"] is expired
    mel.post(path(server), {"access_token": "SECRET-for-good"})
    assert mel.get(path(server, "/status")).get_json()["is_expired"] is False


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01\x02k1 nonsense of somebody", b"\xff" * 40])
def test_uoc_18_what_cannot_be_read_counts_as_none(
    client: As, write: Write, server: str, sealed: bytes
) -> None:
    client("mel").post(path(server), TOKEN)
    with write() as session:
        session.execute(update(UserCredential).values(sealed=sealed))
    call = client("mel").post(
        "/v1/mcp/tools/call", {"server_id": server, "name": "x", "arguments": {}}
    )
    assert (call.status_code, call.get_json()["detail"]["error"]) == (401, "sign_in_needed")
    for answer in (
        client("mel").get(path(server, "/status")),
        client("mel").get("/v1/mcp/user-credentials"),
    ):
        assert answer.status_code == 200
    assert client("mel").delete(path(server)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"access_token": ""},
        {"access_token": 7},
        {"access_token": "a b"},
        {"access_token": "x\r\nY: z"},
        {"access_token": "x" * 20_000},
        {**TOKEN, "expires_in": -1},
        {**TOKEN, "expires_in": 1e300},
        {**TOKEN, "expires_in": "3600"},
        {**TOKEN, "scopes": "read"},
        {**TOKEN, "scopes": [None]},
    ],
)
def test_a_token_that_cannot_be_sent_is_refused(
    client: As, server: str, body: dict[str, Any]
) -> None:
    answer = client("mel").post(path(server), body)
    assert answer.status_code == 422, answer.get_json()
    assert "SECRET" not in answer.get_data(as_text=True)


def test_deleting_over_the_api_revokes_upstream(
    client: As, signed_in: SignedIn, write: Write, protected_mcp_server: ProtectedServer
) -> None:
    with write() as session:
        server_id = make_server(
            session,
            "guarded",
            url=protected_mcp_server.url,
            auth_type="oauth2",
            allow_all_keys=True,
        )
    connect(signed_in("mel"), server_id)
    assert client("mel").delete(path(server_id)).status_code == 200
    assert protected_mcp_server.counters().live_refresh == 0


# The portal's own tokens


def machine(write: Write, upstream: RecordingServer, **fields: Any) -> str:
    given: dict[str, Any] = {
        "auth_type": "oauth2",
        "oauth2_flow": "client_credentials",
        "token_url": upstream.endpoint("token"),
        "credentials": {"client_id": "portal", "client_secret": "SECRET-cc", "scopes": ["read"]},
    }
    with write() as session:
        return make_server(
            session, "machine", url=upstream.url, allow_all_keys=True, **(given | fields)
        )


def call(client: Client, server_id: str) -> Any:
    return client.post(
        "/v1/mcp/tools/call", {"server_id": server_id, "name": "whoami", "arguments": {}}
    )


def test_client_credentials_serve_everybody_with_one_token(
    client: As, signed_in: SignedIn, write: Write, recording_as: RecordingServer, database: Database
) -> None:
    """One grant for all people, kept sealed; nobody has to connect, and health is judged with
    it."""
    server_id = machine(write, recording_as)
    for name in ("mel", "otto"):
        assert (
            call(client(name), server_id).get_json()["content"][0]["text"] == "the bearer of at-1"
        )
    (asked,) = recording_as.seen("token")
    assert asked.form["grant_type"] == "client_credentials"
    assert asked.form["scope"] == "read"
    assert "refresh_token" not in asked.form
    seen = client("ada").get(f"/v1/mcp/server/{server_id}").get_json()
    assert seen["status"] == "healthy", (seen["health_check_reason"], seen["health_check_error"])
    assert "Sign-in needed" not in signed_in("mel").get("/servers").get_data(as_text=True)
    assert signed_in("mel").get(f"/credentials/{server_id}/connect").status_code == 400
    with database.session() as session:
        assert b"at-1" not in session.query(SharedToken).one().sealed


def test_client_credentials_are_asked_again_once_on_a_401(
    client: As, write: Write, recording_as: RecordingServer
) -> None:
    server_id = machine(write, recording_as)
    call(client("mel"), server_id)
    recording_as.valid_tokens.clear()
    assert call(client("mel"), server_id).get_json()["content"][0]["text"] == "the bearer of at-2"
    recording_as.answer("mcp", Answer(401))
    assert call(client("mel"), server_id).status_code == 502
    assert len(recording_as.seen("token")) == 3, "once for the 401, and no more"


def test_client_credentials_that_are_refused_are_said_so(
    client: As, write: Write, recording_as: RecordingServer
) -> None:
    recording_as.answer("token", Answer(401, {"error": "invalid_client"}))
    server_id = machine(write, recording_as)
    answer = call(client("mel"), server_id)
    assert (answer.status_code, "invalid_client" in answer.get_json()["detail"]["message"]) == (
        502,
        True,
    )
    server = client("ada").get(f"/v1/mcp/server/{server_id}").get_json()
    assert server["status"] == "unhealthy"
    assert "invalid_client" in server["health_check_error"]
    assert "SECRET" not in answer.get_data(as_text=True)


def test_no_other_credential_takes_the_place_of_a_missing_token(
    client: As, write: Write, recording_as: RecordingServer
) -> None:
    """R-OAUTH-43: a shared `auth_value` is never sent for somebody who is not connected."""
    recording_as.valid_tokens.add("SECRET-shared")
    with write() as session:
        server_id = make_server(
            session,
            "both",
            url=recording_as.url,
            auth_type="oauth2",
            allow_all_keys=True,
            credentials={"auth_value": "SECRET-shared"},
        )
    assert call(client("mel"), server_id).status_code == 401
    client("mel").get("/v1/mcp/tools")
    client("ada").get(f"/v1/mcp/server/{server_id}")
    assert recording_as.seen("mcp") == []


def test_a_persons_token_is_exchanged(
    client: As, signed_in: SignedIn, write: Write, recording_as: RecordingServer, database: Database
) -> None:
    """RFC 8693: the subject is the token that the person got by connecting; what comes is kept for
    that person."""
    server_id = machine(
        write,
        recording_as,
        auth_type="oauth2_token_exchange",
        oauth2_flow="authorization_code",
        authorization_url=recording_as.endpoint("authorize"),
        credentials={
            "client_id": "portal",
            "client_secret": "SECRET-cc",
            "audience": "the-api",
            "token_exchange_endpoint": recording_as.endpoint("token"),
        },
    )
    assert call(client("mel"), server_id).get_json()["detail"]["error"] == "sign_in_needed"
    connect(signed_in("mel"), server_id)
    first = call(client("mel"), server_id).get_json()["content"][0]["text"]
    asked = recording_as.last("token").form
    assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
    assert asked["subject_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert asked["audience"] == "the-api"
    assert asked["subject_token"].startswith("at-")
    assert first != f"the bearer of {asked['subject_token']}", (
        "the person's own token is not sent to the server"
    )
    assert call(client("mel"), server_id).get_json()["content"][0]["text"] == first
    grants = [seen.form["grant_type"] for seen in recording_as.seen("token")]
    assert len([grant for grant in grants if grant.endswith("token-exchange")]) == 1
    client("mel").delete(path(server_id))
    with database.session() as session:
        assert session.query(SharedToken).count() == 0
        session.execute(delete(SharedToken))


def test_client_credentials_are_tried_before_they_are_saved(
    write: Write, recording_as: RecordingServer, database: Database
) -> None:
    """*Test connection* gets a token with what is typed; a stored secret never goes to a token URL
    that was typed."""
    fields: Any = {
        "transport": Transport.HTTP, "url": recording_as.url, "auth_type": AuthType.OAUTH2,
        "oauth2_flow": OAuthFlow.CLIENT_CREDENTIALS, "token_url": recording_as.endpoint("token"),
        "credentials": {"client_id": "portal", "client_secret": "SECRET-typed"},
    }  # fmt: skip
    with database.session() as session:
        tried = connection_test.try_definition(session, OPERATOR, fields).result
        assert tried.status is HealthStatus.HEALTHY, tried.message
        assert [tool.name for tool in tried.tools or ()] == ["whoami"]
        assert session.query(SharedToken).count() == 0
    server_id = machine(write, recording_as)
    elsewhere = {**fields, "token_url": "http://127.0.0.1:9/token", "credentials": {}}
    kept = {**fields, "token_url": KEPT, "credentials": {}}
    with database.session() as session:
        with pytest.raises(Conflict, match=r"credentials\.client_secret"):
            connection_test.try_definition(session, OPERATOR, elsewhere, server_id=server_id)
        assert (
            connection_test.try_definition(
                session, OPERATOR, kept, server_id=server_id
            ).result.status
            is HealthStatus.HEALTHY
        )
    assert recording_as.last("token").form["client_secret"] == "SECRET-cc"
