"""What ends here with a server or a person is revoked upstream by the worker, once, and nobody
waits for it."""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.services.credentials import providers
from portal.store.database import Database
from portal.store.models import AuditEvent, UserCredential
from portal.store.oauth_tables import OAuthFlow, ServerAuthorization
from tests.conftest import Client, Write
from tests.support.connecting import connect
from tests.support.oauth_peers import ProtectedServer

As = Callable[[str | None], Client]
SignedIn = Callable[[str], Client]


def tidy(write: Write) -> None:
    with write() as session:
        providers.clean_up_tokens(session, OPERATOR)


def told(database: Database) -> list[tuple[str, int]]:
    with database.session() as session:
        events = session.scalars(
            select(AuditEvent).where(AuditEvent.action.startswith("connections "))
        )
        return [(event.action, event.details["connections"]) for event in events]


@pytest.mark.parametrize("path", ["/v1/mcp/server/{guarded}", "/v1/users/mel"])
def test_tokens_end_upstream_after_their_server_or_person(
    path: str,
    signed_in: SignedIn,
    client: As,
    guarded: str,
    protected_mcp_server: ProtectedServer,
    write: Write,
    database: Database,
) -> None:
    connect(signed_in("mel"), guarded)
    assert client("ada").delete(path.format(guarded=guarded)).status_code in (202, 204)
    with database.session() as session:
        assert session.query(UserCredential).count() == 0, "gone here at once"
        assert [
            flow.sealed.find(b"access_token")
            for flow in session.query(OAuthFlow).filter_by(kind="revoke")
        ] == [-1]
    assert protected_mcp_server.counters().revocations == 0
    for _ in range(2):
        tidy(write)
    counters = protected_mcp_server.counters()
    assert (counters.live_access, counters.live_refresh) == (0, 0)
    assert told(database) == [("connections revoked", 1)]


def test_a_provider_that_is_gone_is_asked_once(
    signed_in: SignedIn, client: As, guarded: str, write: Write, database: Database
) -> None:
    connect(signed_in("mel"), guarded)
    with write() as session:
        known = session.get(ServerAuthorization, guarded)
        assert known
        known.found = {
            **known.found,
            "server": {**known.found["server"], "revocation_endpoint": "http://127.0.0.1:9/"},
        }
    client("ada").delete(f"/v1/mcp/server/{guarded}")
    for _ in range(2):
        tidy(write)
    assert told(database) == [("connections not revoked", 1)]


def test_what_stays_is_not_revoked(
    signed_in: SignedIn,
    client: As,
    guarded: str,
    protected_mcp_server: ProtectedServer,
    write: Write,
) -> None:
    for name in ("mel", "ada"):
        connect(signed_in(name), guarded)
    client("ada").delete("/v1/users/mel")
    tidy(write)
    call = client("ada").post(
        "/v1/mcp/tools/call", {"server_id": guarded, "name": "whoami", "arguments": {}}
    )
    assert (call.status_code, protected_mcp_server.counters().live_access) == (200, 1)
