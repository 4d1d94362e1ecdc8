"""What people stored for a server stays theirs to remove after they lost access to it; to others it
looks missing."""

from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from portal.store.models import UserCredential, UserVariable
from tests.conftest import Client, Write
from tests.support.browsing import CHANGED, Browser, text_of
from tests.support.factories import make_key, make_server

As = Callable[[str | None], Client]
SERVER = "/v1/mcp/server/id-lost"
PARTS = {
    "user-env-vars": {"values": {"TOKEN": "SECRET-value"}},
    "user-credential": {"credential": "SECRET-key"},
    "oauth-user-credential": {"access_token": "SECRET-token"},
}


@pytest.fixture
def lost(client: As, write: Write) -> None:
    """Mel stored a value, a key and a token for a server that only Admins reach now."""
    with write() as session:
        make_server(
            session,
            "lost",
            auth_type="oauth2",
            is_byok=True,
            allow_all_keys=True,
            static_headers={"X-Token": "${TOKEN}"},
            env_vars=[{"name": "TOKEN", "scope": "user"}],
        )
    for part, body in PARTS.items():
        assert client("mel").post(f"{SERVER}/{part}", body).status_code == 200
    assert (
        client("ada")
        .put("/v1/mcp/server", {"server_id": "id-lost", "allow_all_keys": False})
        .status_code
        == 202
    )
    assert client("mel").get(SERVER).status_code == 403


def stored(write: Write) -> int:
    with write() as session:
        return sum(
            session.scalar(select(func.count()).select_from(kind)) or 0
            for kind in (UserVariable, UserCredential)
        )


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("lost")
def test_it_is_removed_once_and_then_nothing_is_known_of_the_server(
    client: As, write: Write, part: str
) -> None:
    answer = client("mel").delete(f"{SERVER}/{part}")
    found = answer.get_json()
    assert (answer.status_code, found["server_id"], stored(write)) == (200, "id-lost", 2)
    assert not any(
        found.get(name)
        for name in ("has_credential", "server_name", "alias", "required", "setup_url")
    )
    for other in set(PARTS) - {part}:
        assert client("mel").delete(f"{SERVER}/{other}").status_code == 200
    gone, unknown = (
        client("mel").delete(f"/v1/mcp/server/{i}/{part}") for i in ("id-lost", "nowhere")
    )
    assert (gone.status_code, gone.get_json()) == (unknown.status_code, unknown.get_json())


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("lost")
def test_nobody_else_and_no_narrowed_key_removes_it(client: As, write: Write, part: str) -> None:
    with write() as session:
        narrowed = make_key(session, user_id="mel", mcp_servers=("notes",))
    for who in ("otto", "vic", "kit", narrowed):
        assert client(who).delete(f"{SERVER}/{part}").status_code == 403
        assert client(who).delete(f"{SERVER}/{part}?user_id=mel").status_code == 403
    assert client("mel").post(f"{SERVER}/{part}", PARTS[part]).status_code == 403, (
        "nothing new is stored"
    )
    assert stored(write) == 3


@pytest.mark.usefixtures("lost")
def test_my_credentials_lists_it_and_removes_it(
    signed_in: Callable[[str], Client], write: Write
) -> None:
    mel = Browser(signed_in("mel"))
    mel.open("/credentials/id-lost", 404)
    for text in ("Remove 1 value", "Remove my key", "Disconnect"):
        forms = mel.open("/credentials").select("section[aria-labelledby=left] form")
        action = next(str(form["action"]) for form in forms if text in form.text)
        answer = mel.send("/credentials", action)
        assert (answer.status_code, answer.location) == (CHANGED, "/credentials")
    assert (stored(write), "lost" in text_of(mel.open("/credentials").main)) == (0, False)
