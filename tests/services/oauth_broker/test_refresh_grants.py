"""What an MCP client holds for a person ends with what the person may: codes, and refresh
tokens."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, inspect, select, text, update

from portal.domain.oauth import TokenSet
from portal.domain.principals import OPERATOR
from portal.services.access import teams, users
from portal.services.secrets import token_store
from portal.services.servers import crud
from portal.store.models import Server, UserCredential, now
from portal.store.oauth_tables import Consent, RefreshGrant
from tests.conftest import Client, Write
from tests.support.factories import make_key, make_team
from tests.support.html import parse
from tests.support.oauth.asking import (
    ASKED,
    BASE,
    came_back,
    code_for,
    decided,
    onward,
    query_of,
    redeem,
)
from tests.support.oauth.recording import RecordingServer
from tests.support.security.callers import token_in

As = Callable[[str | None], Client]
SignedIn = Callable[[str], Client]
Add = Callable[..., str]
APP = ASKED["client_id"]
OTHER_APP = "https://other.example/mcp.json"


@pytest.fixture(params=[False])
def delegated(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def ownerless(write: Write, add: Add, delegated: bool) -> str:
    """A key of a team that may use `guarded`, which belongs to nobody. Mel and Vic may by another
    team, and have keys for that: `sk-mel` and `sk-vic`."""
    add(delegate_auth_to_upstream=delegated)
    with write() as session:
        for name, members in (("users", ("mel", "vic")), ("owners", ())):
            make_team(session, name, members=members, mcp_servers=("id-guarded",))
        for name in ("mel", "vic"):
            make_key(session, user_id=name, team_id="team-users", secret=f"sk-{name}")
        return make_key(session, team_id="team-owners", secret="sk-ownerless")


def renewed(asking: Client, token: str, client_id: str | None = APP, base: str = BASE) -> Any:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": token,
        **({"client_id": client_id} if client_id else {}),
    }
    return asking.ask("POST", f"{base}/token", data=form)


def assert_refused(answer: Any, said: str) -> None:
    body = answer.get_json()
    assert (answer.status_code, body.get("error")) == (400, "invalid_grant"), body
    assert said in body["error_description"]


def stored(write: Write, name: str) -> bool:
    with write() as session:
        return session.get(UserCredential, (name, "id-guarded", "oauth2")) is not None


def forget_connections(write: Write) -> None:
    with write() as session:
        session.execute(delete(UserCredential))


def removed(write: Write) -> None:
    with write() as session:
        teams.remove_member(session, OPERATOR, "team-users", "mel")


def deactivated(write: Write) -> None:
    with write() as session:
        users.change_user(session, OPERATOR, "mel", {"is_active": False})


def deleted(write: Write) -> None:
    with write() as session:
        users.delete_user(session, OPERATOR, "mel")


ENDS = [removed, deactivated, deleted]


# Refresh tokens


def test_a_refresh_token_renews_for_its_person_and_rotates(
    client: As, ownerless: str, write: Write, recording_as: RecordingServer
) -> None:
    first = redeem(client("sk-mel"), code_for(client("sk-mel"))).get_json()["refresh_token"]
    second = renewed(client("sk-mel"), first)
    assert second.status_code == 200, second.get_json()
    third = renewed(client(ownerless), second.get_json()["refresh_token"])
    assert third.status_code == 200, "the app may ask with a key of its own"
    assert recording_as.last("token").form["refresh_token"] == second.get_json()["refresh_token"]
    assert renewed(client("sk-mel"), first).status_code == 200, "an answer may have got lost"
    with write() as session:
        long_ago = now() - timedelta(hours=1)
        session.execute(
            update(RefreshGrant).where(RefreshGrant.spent_at.is_not(None)).values(spent_at=long_ago)
        )
    before = len(recording_as.seen("token"))
    assert_refused(renewed(client("sk-mel"), first), "Sign in again")
    assert len(recording_as.seen("token")) == before
    forget_connections(write)
    assert renewed(client(ownerless), third.get_json()["refresh_token"]).status_code == 200
    assert stored(write, "mel")


def test_an_upstream_that_does_not_rotate_is_asked_with_the_same_token_again(
    client: As, ownerless: str, recording_as: RecordingServer
) -> None:
    token = redeem(client("sk-mel"), code_for(client("sk-mel"))).get_json()["refresh_token"]
    recording_as.token_fields = {"refresh_token": token}
    assert renewed(client("sk-mel"), token).status_code == 200
    recording_as.token_fields = {"refresh_token": None}
    assert [renewed(client("sk-mel"), token).status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("end", ENDS)
def test_a_refresh_token_of_a_person_whose_access_ended_is_refused(
    client: As,
    ownerless: str,
    write: Write,
    recording_as: RecordingServer,
    end: Callable[[Write], None],
) -> None:
    token = redeem(client("sk-mel"), code_for(client("sk-mel"))).get_json()["refresh_token"]
    forget_connections(write)
    end(write)
    before = len(recording_as.seen("token"))
    for asking, client_id in ((ownerless, APP), (ownerless, None), ("ada", APP), ("sk-vic", APP)):
        assert_refused(renewed(client(asking), token, client_id), "This refresh token is unknown")
    assert len(recording_as.seen("token")) == before
    assert not any(stored(write, name) for name in ("mel", "ada", "vic"))


@pytest.mark.parametrize(
    ("asking", "client_id"),
    [
        ("sk-vic", APP),
        ("sk-vic", None),
        ("ada", APP),
        ("sk-mel", OTHER_APP),
        ("sk-ownerless", OTHER_APP),
        ("sk-ownerless", None),
    ],
)
def test_a_refresh_token_is_good_for_its_client_and_person_alone(
    client: As,
    ownerless: str,
    write: Write,
    recording_as: RecordingServer,
    asking: str,
    client_id: str | None,
) -> None:
    token = redeem(client("sk-mel"), code_for(client("sk-mel"))).get_json()["refresh_token"]
    forget_connections(write)
    before = len(recording_as.seen("token"))
    said = renewed(client(asking), token, client_id)
    made_up = renewed(client(asking), "rt-made-up", client_id)
    for answer in (said, made_up):
        assert_refused(answer, "This refresh token is unknown")
    assert said.get_data() == made_up.get_data()
    assert len(recording_as.seen("token")) == before
    assert not any(stored(write, name) for name in ("mel", "ada", "vic"))


def test_a_registered_client_cannot_use_the_refresh_token_of_another(
    client: As, ownerless: str, recording_as: RecordingServer
) -> None:
    back = [ASKED["redirect_uri"]]
    made = [
        client(None).post("/guarded/register", {"client_name": n, "redirect_uris": back})
        for n in ("One", "Two")
    ]
    one, two = (answer.get_json()["client_id"] for answer in made)
    code = code_for(client("sk-mel"), client_id=one)
    token = redeem(client("sk-mel"), code, client_id=one).get_json()["refresh_token"]
    before = len(recording_as.seen("token"))
    assert_refused(renewed(client("sk-mel"), token, two, "/guarded"), "another client")
    assert len(recording_as.seen("token")) == before
    assert renewed(client("sk-mel"), token, one, "/guarded").status_code == 200


def test_a_refresh_token_ends_with_the_consent(
    client: As, signed_in: SignedIn, ownerless: str, write: Write, recording_as: RecordingServer
) -> None:
    mel = signed_in("mel")
    token = redeem(client("sk-mel"), code_for(client("sk-mel"))).get_json()["refresh_token"]
    forget_connections(write)
    profile = mel.get("/profile")
    button = parse(profile).select_one('form[action="/profile/apps/remove"] input[name="app"]')
    assert button is not None, "an app that began with a key is listed, too"
    mel.ask(
        "POST",
        "/profile/apps/remove",
        data={"csrf_token": token_in(profile), "app": str(button["value"])},
    )
    before = len(recording_as.seen("token"))
    for asking in ("sk-mel", ownerless):
        assert_refused(renewed(client(asking), token), "This refresh token is unknown")
    assert len(recording_as.seen("token")) == before
    assert not stored(write, "mel")


def test_a_refresh_token_is_worth_nothing_at_another_server_or_provider(
    client: As, ownerless: str, add: Add, write: Write, recording_as: RecordingServer
) -> None:
    token = redeem(client("ada"), code_for(client("ada"))).get_json()["refresh_token"]
    add("second")
    before = len(recording_as.seen("token"))
    assert_refused(
        renewed(client("ada"), token, APP, "/v1/mcp/server/oauth/id-second"), "token is unknown"
    )
    with write() as session:
        session.execute(update(RefreshGrant).values(issuer="https://before.example"))
    assert_refused(renewed(client("ada"), token), "token is unknown")
    with write() as session:
        crud.delete_server(session, OPERATOR, "id-guarded")
        assert session.scalars(select(RefreshGrant)).all() == []
    assert len(recording_as.seen("token")) == before


def test_who_is_let_in_without_an_account_gets_no_refresh_token_and_is_promised_none(
    client: As, add: Add, recording_as: RecordingServer
) -> None:
    add(delegate_auth_to_upstream=True)
    described = client(None).get("/.well-known/oauth-authorization-server/guarded").get_json()
    assert described["grant_types_supported"] == ["authorization_code"]
    browser = client(None)._client.application.test_client()
    answer = redeem(client(None), consented(browser))
    assert answer.status_code == 200, answer.get_json()
    assert "refresh_token" not in answer.get_json()
    other = client(None).get("/.well-known/oauth-authorization-server/nothing").get_json()
    assert other["grant_types_supported"] == ["authorization_code", "refresh_token"]


def disallowed(write: Write) -> None:
    with write() as session:
        session.execute(delete(Consent))


def changed(write: Write) -> None:
    with write() as session:
        crud.update_server(session, OPERATOR, "id-guarded", {"description": "changed"})


def unwritable(write: Write) -> None:
    with write() as session:
        session.execute(text("ALTER TABLE refresh_grants RENAME TO refresh_grants_gone"))


def nothing(write: Write) -> None:
    """Nothing happens."""


@pytest.fixture
def meanwhile(
    write: Write, recording_as: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[Write], None]], None]]:
    """`meanwhile(removed)` has that happen while the provider answers the next token request."""
    tokens = recording_as.tokens

    def during(happens: Callable[[Write], None]) -> None:
        def answering(scope: str | None) -> dict[str, Any]:
            monkeypatch.setattr(recording_as, "tokens", tokens)
            happens(write)
            return tokens(scope)

        monkeypatch.setattr(recording_as, "tokens", answering)

    yield during
    with write() as session:
        if inspect(session.connection()).has_table("refresh_grants_gone"):
            session.execute(text("ALTER TABLE refresh_grants_gone RENAME TO refresh_grants"))


@pytest.mark.parametrize("grant", ["authorization_code", "refresh_token"])
@pytest.mark.parametrize("happens", [*ENDS, disallowed, changed, unwritable, nothing])
def test_a_refresh_token_that_would_be_unknown_here_is_not_handed_out(
    client: As,
    ownerless: str,
    write: Write,
    meanwhile: Callable[[Callable[[Write], None]], None],
    happens: Callable[[Write], None],
    grant: str,
) -> None:
    """RFC 6749, 5.1: it is optional. The access token was given, and goes on to the app."""
    code = code_for(client("sk-mel"))
    if grant == "authorization_code":
        meanwhile(happens)
        answer = redeem(client(ownerless), code)
    else:
        token = redeem(client(ownerless), code).get_json()["refresh_token"]
        meanwhile(happens)
        answer = renewed(client(ownerless), token)
    assert (answer.status_code, "access_token" in answer.get_json()) == (200, True)
    assert ("refresh_token" in answer.get_json()) is (happens is nothing)
    if grant == "authorization_code":
        # Of a consent that ended the person has their connection all the same: it is their own.
        assert stored(write, "mel") is (happens in (nothing, disallowed))


@pytest.mark.parametrize("anew", [False, True])
def test_a_server_that_is_gone_meanwhile_gets_nothing_of_what_it_was_given(
    client: As,
    ownerless: str,
    write: Write,
    add: Add,
    meanwhile: Callable[[Callable[[Write], None]], None],
    anew: bool,
) -> None:
    """Nor does the one that was made under its id meanwhile."""

    def gone(_: Write) -> None:
        with write() as session:
            crud.delete_server(session, OPERATOR, "id-guarded")
        if anew:
            add()

    code = code_for(client("sk-mel"))
    meanwhile(gone)
    assert_refused(redeem(client(ownerless), code), "no longer has access to this server")
    assert not stored(write, "mel")


def test_a_refresh_token_is_known_where_a_connection_of_their_own_is_kept(
    client: As, ownerless: str, write: Write
) -> None:
    """What is noted of it stays, although no token is stored."""
    with write() as session:
        row = session.get_one(Server, "id-guarded")
        issuer = row.address
        own = TokenSet("SECRET-at", "SECRET-rt", now() + timedelta(hours=1))
        token_store.keep(session, row, "mel", own, issuer=issuer)
    token = redeem(client("sk-mel"), code_for(client("sk-mel"))).get_json()["refresh_token"]
    assert renewed(client("sk-mel"), token).status_code == 200
    with write() as session:
        kept = session.get_one(UserCredential, ("mel", "id-guarded", "oauth2"))
        assert kept.renewable


# Codes


def consented(browser: Any) -> str:
    """A code for whoever is signed in there, or for a stranger."""
    return query_of(browser.get(left(browser)).location)["code"]


def left(browser: Any) -> str:
    """The way back from the upstream, after the consent in that browser."""
    asked = browser.get(f"{BASE}/authorize", query_string=ASKED)
    return came_back(onward(decided(browser, asked.location)))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("by_key", [True, False])
def test_a_code_of_a_person_whose_access_ended_is_refused(
    client: As,
    signed_in: SignedIn,
    ownerless: str,
    write: Write,
    recording_as: RecordingServer,
    end: Callable[[Write], None],
    by_key: bool,
) -> None:
    code = code_for(client("sk-mel")) if by_key else consented(signed_in("mel")._client)
    end(write)
    said = (
        "This code is unknown"
        if end is deleted
        else "The user no longer has access to this server."
    )
    assert_refused(redeem(client(ownerless), code), said)
    assert recording_as.seen("token") == []
    assert not stored(write, "mel")


@pytest.mark.parametrize("delegated", [True], indirect=True)
@pytest.mark.parametrize("end", ENDS)
def test_without_any_key_a_code_of_a_person_whose_access_ended_is_refused(
    client: As,
    signed_in: SignedIn,
    ownerless: str,
    write: Write,
    recording_as: RecordingServer,
    end: Callable[[Write], None],
) -> None:
    code = consented(signed_in("mel")._client)
    end(write)
    answer = redeem(client(None), code)
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_grant")
    assert recording_as.seen("token") == []
    assert not stored(write, "mel")


@pytest.mark.parametrize("delegated", [False, True], indirect=True)
@pytest.mark.parametrize("end", ENDS)
def test_who_comes_back_after_their_access_ended_gets_no_code(
    signed_in: SignedIn, ownerless: str, write: Write, end: Callable[[Write], None]
) -> None:
    browser = signed_in("mel")._client
    way_back = left(browser)
    end(write)
    answer = browser.get(way_back)
    assert answer.status_code == 400
    assert "Location" not in answer.headers
