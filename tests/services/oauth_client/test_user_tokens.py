"""Tokens that are renewed: once, however many ask; kept where the provider is silent; given up
where it says no."""

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.domain.errors import CredentialNeeded, UpstreamFailure
from portal.domain.oauth import TokenSet
from portal.services.oauth_client import service_tokens
from portal.services.oauth_client.user_tokens import own_token
from portal.services.secrets import token_store
from portal.services.servers import queries
from portal.store.database import Database
from portal.store.models import Server, UserCredential
from portal.store.oauth_tables import SharedToken
from tests.conftest import Client, Write
from tests.support.connecting import connect
from tests.support.factories import make_server
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth.serving import Answer
from tests.support.oauth_peers import ProtectedServer

SignedIn = Callable[[str], Client]


@pytest.fixture
def recorded(write: Write, recording_as: RecordingServer) -> str:
    """A server whose provider answers as it is told; Mel holds a token for it that ran out."""
    with write() as session:
        server_id = make_server(
            session,
            "recorded",
            url=recording_as.url,
            auth_type="oauth2",
            allow_all_keys=True,
            credentials={"client_id": "typed", "client_secret": "SECRET-typed"},
        )
        hold(session, server_id, expires_in=-1)
    return server_id


def hold(
    session: Session, server_id: str, *, expires_in: float | None, refresh: str = "SECRET-rt"
) -> None:
    """Give Mel tokens for a server."""
    at = datetime.now(UTC) + timedelta(seconds=expires_in) if expires_in is not None else None
    row = session.get(Server, server_id)
    assert row is not None
    token_store.keep(session, row, "mel", TokenSet("SECRET-at", refresh, at), issuer=row.address)


def server_of(session: Session, server_id: str) -> Server:
    return session.scalars(
        select(Server).where(Server.server_id == server_id).options(*queries.PARTS)
    ).one()


def token(database: Database, server_id: str, *, refused: str = "") -> str:
    """Mel's token as one request of one process asks for it."""
    with database.session() as session:
        return own_token(session, server_of(session, server_id), "mel", refused=refused)


def stored(database: Database, server_id: str) -> UserCredential:
    with database.session() as session:
        found = session.get(UserCredential, ("mel", server_id, "oauth2"))
        assert found is not None
        return found


def at_once(number: int, work: Callable[[], str]) -> list[Any]:
    """What `number` threads get that begin at the same moment, each with its own session."""
    found: list[Any] = []
    gate = threading.Barrier(number)

    def one() -> None:
        gate.wait()
        try:
            found.append(work())
        except (CredentialNeeded, UpstreamFailure) as error:
            found.append(error)

    threads = [threading.Thread(target=one) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_uoc_17_many_ask_at_once_and_one_renews(
    database: Database, signed_in: SignedIn, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    """R-OAUTH-45: a refresh token is spent once, and the others wait for what it brought."""
    connect(signed_in("mel"), guarded)
    old = token(database, guarded)
    protected_mcp_server.configure(token_delay_seconds=0.4)
    found = at_once(8, lambda: token(database, guarded, refused=old))
    assert len(set(found)) == 1, found
    assert found[0] != old
    counters = protected_mcp_server.counters()
    assert (counters.refresh_grants, counters.reused_refresh, counters.refused_grants) == (1, 0, 0)


@pytest.mark.parametrize(
    ("left", "renews"), [(3600.0, 0), (61.0, 0), (30.0, 1), (-5.0, 1), (None, 0)]
)
def test_uoc_16_a_token_is_renewed_within_a_minute_of_its_end(
    database: Database,
    write: Write,
    recorded: str,
    recording_as: RecordingServer,
    left: float | None,
    renews: int,
) -> None:
    with write() as session:
        hold(session, recorded, expires_in=left)
    assert (token(database, recorded) == "SECRET-at") is (renews == 0)
    assert len(recording_as.seen("token")) == renews


def test_what_is_sent_to_renew(
    database: Database, recorded: str, recording_as: RecordingServer
) -> None:
    """RFC 6749, 6 and RFC 8707: the grant, the client, the resource; and the rotated token is the
    next to be spent."""
    token(database, recorded)
    sent = recording_as.last("token")
    assert sent.form["grant_type"] == "refresh_token"
    assert sent.form["refresh_token"] == "SECRET-rt"
    assert sent.form["resource"] == recording_as.url
    assert "authorization" in sent.headers or sent.form["client_secret"] == "SECRET-typed"
    first = token(database, recorded)
    token(database, recorded, refused=first)
    assert recording_as.last("token").form["refresh_token"].startswith("rt-")


def test_a_refresh_token_that_is_not_replaced_lives_on(
    database: Database, recorded: str, recording_as: RecordingServer
) -> None:
    recording_as.token_fields = {"refresh_token": None}
    first = token(database, recorded)
    token(database, recorded, refused=first)
    assert [seen.form["refresh_token"] for seen in recording_as.seen("token")] == [
        "SECRET-rt",
        "SECRET-rt",
    ]


def test_uoc_17_a_refused_refresh_token_asks_to_connect_again(
    database: Database, recorded: str, recording_as: RecordingServer
) -> None:
    """invalid_grant is for good: the provider is asked once, and the person is told."""
    recording_as.answer("token", Answer(400, {"error": "invalid_grant"}))
    for _ in range(2):
        with pytest.raises(CredentialNeeded, match="Connect to recorded again at"):
            token(database, recorded)
    assert len(recording_as.seen("token")) == 1
    assert stored(database, recorded).reconnect_because == "revoked"


def test_uoc_17_an_expired_token_without_refresh_token_asks_to_connect_again(
    database: Database, write: Write, recorded: str, recording_as: RecordingServer
) -> None:
    with write() as session:
        hold(session, recorded, expires_in=-5, refresh="")
    with pytest.raises(CredentialNeeded, match="has expired"):
        token(database, recorded)
    assert recording_as.seen("token") == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(503),
        Answer.html(),
        Answer.garbage(),
        Answer.redirect("http://127.0.0.1:9/"),
        Answer(400, {"error": "x"}),
        Answer(200, {"access_token": "two\r\nlines"}),
        Answer(200, {"token_type": "Bearer"}),
    ],
)
def test_a_provider_that_fails_costs_nobody_their_connection(
    database: Database, write: Write, recorded: str, recording_as: RecordingServer, answer: Answer
) -> None:
    """R-OAUTH-47: the tokens stay, the next try comes later, and then all is well."""
    recording_as.answer("token", answer)
    for _ in range(2):
        with pytest.raises(UpstreamFailure, match="could not be renewed"):
            token(database, recorded)
    assert len(recording_as.seen("token")) == 1, "it is not asked again at once"
    assert stored(database, recorded).reconnect_because is None
    recording_as.answer("token", None)
    let_the_pause_pass(database, recorded)
    assert token(database, recorded).startswith("at-")


def test_a_token_that_still_lasts_is_used_while_the_provider_fails(
    database: Database, write: Write, recorded: str, recording_as: RecordingServer
) -> None:
    with write() as session:
        hold(session, recorded, expires_in=30)
    recording_as.answer("token", Answer(503))
    assert [token(database, recorded) for _ in range(2)] == ["SECRET-at"] * 2
    assert len(recording_as.seen("token")) == 1


def let_the_pause_pass(database: Database, server_id: str) -> None:
    """As if time had gone by since the provider failed."""
    with database.session(writes=True) as session:
        row = server_of(session, server_id)
        credential = session.get(UserCredential, ("mel", server_id, "oauth2"))
        assert credential is not None
        place = token_store.place_of(row, "mel")
        held = token_store.opened_tokens(session, place, credential.sealed)
        assert held is not None
        assert held.failures == 1
        again = token_store.HeldTokens(
            held.access_token, held.refresh_token, client_id=held.client_id
        )
        credential.sealed = token_store.sealed(session, place, again)
        session.commit()


def test_a_process_that_died_while_renewing_blocks_nobody_for_long(
    database: Database, write: Write, recorded: str, recording_as: RecordingServer
) -> None:
    """R-OAUTH-46: its lease runs out, and the next one tries the token that it may have spent."""
    with write() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(UserCredential).values(refresh_lease_until=past, version=7))
    assert token(database, recorded).startswith("at-")
    assert stored(database, recorded).refresh_lease_until is None


def test_whoever_connects_meanwhile_is_not_overwritten(
    database: Database, write: Write, recorded: str, recording_as: RecordingServer
) -> None:
    """The slow renewal finds that its version is gone, and answers with the newer token."""
    recording_as.answer(
        "token", Answer(200, {"access_token": "late", "expires_in": 60}, delay_seconds=0.6), times=1
    )
    found: list[str] = []
    renewing = threading.Thread(target=lambda: found.append(token(database, recorded)))
    renewing.start()
    while not recording_as.seen("token"):
        renewing.join(0.01)
    with write() as session:
        row = server_of(session, recorded)
        token_store.keep(
            session, row, "mel", TokenSet("newer", "SECRET-newer-rt"), issuer=row.address
        )
    renewing.join()
    assert found == ["newer"]
    assert token(database, recorded) == "newer"


def test_another_issuer_is_never_sent_the_old_refresh_token(
    database: Database, write: Write, recorded: str, recording_as: RecordingServer
) -> None:
    """R-OAUTH-22."""
    with write() as session:
        session.execute(update(UserCredential).values(issuer="https://elsewhere.example"))
    with pytest.raises(CredentialNeeded, match="another sign-in provider"):
        token(database, recorded)
    assert recording_as.seen("token") == []


# Tokens that have expired when they arrive, or soon after


LIVES = [0, 1, 4, 5, 6, 30, 60, "1", "0", 0.5]
"""What `expires_in` says where the token is due at once."""


@pytest.mark.parametrize("lives", LIVES)
@pytest.mark.parametrize("rotates", [True, False])
def test_a_token_that_is_due_on_arrival_is_used_and_not_renewed_again_at_once(
    database: Database, recorded: str, recording_as: RecordingServer, lives: object, rotates: bool
) -> None:
    recording_as.token_fields = {
        "expires_in": lives,
        **({} if rotates else {"refresh_token": None}),
    }
    found = at_once(6, lambda: token(database, recorded))
    assert len(recording_as.seen("token")) == 1
    got = [one for one in found if isinstance(one, str)]
    assert got, found
    assert set(got) != {"SECRET-at"}
    for _ in range(3):
        for refused in ("", got[0]):
            with contextlib.suppress(UpstreamFailure):
                assert token(database, recorded, refused=refused) == got[0]
    assert len(recording_as.seen("token")) == 1


@pytest.mark.parametrize("same", [True, False])
def test_the_pause_doubles_and_ends_with_a_token_that_lasts(
    database: Database, write: Write, recorded: str, recording_as: RecordingServer, same: bool
) -> None:
    """Whether the provider sends new tokens or the same one again."""
    recording_as.token_fields = {"expires_in": 0, **({"access_token": "SECRET-at"} if same else {})}
    pauses = []
    for number in range(1, 10):
        token(database, recorded)
        assert len(recording_as.seen("token")) == number
        pauses.append(
            math.ceil((held(database, recorded).retry_at - datetime.now(UTC).timestamp()) / 5) * 5
        )
        put(database, recorded, retry_at=0.0)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    recording_as.token_fields = {}
    token(database, recorded)
    assert (held(database, recorded).failures, held(database, recorded).retry_at) == (0, 0.0)


@pytest.mark.parametrize(
    "lives", [301, 3600, -1, 10**12, None, "soon", "3600", True, [], float("1e300")]
)
def test_a_token_that_lasts_is_renewed_when_it_is_due(
    database: Database, recorded: str, recording_as: RecordingServer, lives: object
) -> None:
    """What is no sensible number stands for no end."""
    recording_as.token_fields = {"expires_in": lives}
    first = token(database, recorded)
    assert [token(database, recorded) for _ in range(3)] == [first] * 3
    assert len(recording_as.seen("token")) == 1


@pytest.mark.parametrize("apart", [-600, 600])
def test_clocks_that_differ_cost_one_renewal_and_lock_nobody_out(
    database: Database, recorded: str, recording_as: RecordingServer, apart: int
) -> None:
    """Another process with another clock left the times in the row."""
    at = datetime.now(UTC).timestamp()
    recording_as.token_fields = {"expires_in": 1}
    put(database, recorded, retry_at=at + apart + 5, failures=1)
    for _ in range(5):
        with contextlib.suppress(UpstreamFailure):
            token(database, recorded)
    assert len(recording_as.seen("token")) == (1 if apart < 0 else 0)
    put(database, recorded, retry_at=at + 10_000_000)
    assert token(database, recorded).startswith("at-"), (
        "a time further off than any pause is nobody's"
    )


def held(database: Database, server_id: str) -> token_store.HeldTokens:
    with database.session() as session:
        place = token_store.place_of(server_of(session, server_id), "mel")
        credential = session.get(UserCredential, ("mel", server_id, "oauth2"))
        found = token_store.opened_tokens(session, place, credential.sealed if credential else None)
        assert found is not None
        return found


def put(database: Database, server_id: str, **values: Any) -> None:
    """Change what is kept with Mel's tokens."""
    changed = replace(held(database, server_id), **values)
    with database.session(writes=True) as session:
        credential = session.get(UserCredential, ("mel", server_id, "oauth2"))
        assert credential is not None
        place = token_store.place_of(server_of(session, server_id), "mel")
        credential.sealed = token_store.sealed(session, place, changed)
        session.commit()


# The portal's own tokens, and those in exchange for a person's


@pytest.mark.parametrize("lives", LIVES)
@pytest.mark.parametrize("kind", ["own", "exchanged"])
def test_a_shared_token_that_is_due_on_arrival_is_not_asked_for_again_at_once(
    database: Database, recorded: str, recording_as: RecordingServer, kind: str, lives: object
) -> None:
    recording_as.token_fields = {"expires_in": lives}
    recording_as.answer(
        "token", Answer(200, {"access_token": "shared", "expires_in": lives}, delay_seconds=0.3)
    )
    found = at_once(6, lambda: shared(database, recorded, kind))
    assert [one for one in found if one == "shared"], found
    for refused in ("", "shared", "", "shared"):
        with contextlib.suppress(UpstreamFailure):
            assert shared(database, recorded, kind, refused=refused) == "shared"
    assert len(recording_as.seen("token")) == 1
    with database.session(writes=True) as session:
        service_tokens.delete_expired_tokens(session)
        session.execute(update(SharedToken).values(wait_until=None))
        session.commit()
    shared(database, recorded, kind)
    assert len(recording_as.seen("token")) == 2


def shared(database: Database, server_id: str, kind: str, *, refused: str = "") -> str:
    with database.session() as session:
        row = server_of(session, server_id)
        if kind == "own":
            return service_tokens.machine_token(session, row, refused=refused)
        return service_tokens.exchanged_token(session, row, "mel", "SECRET-at", refused=refused)
