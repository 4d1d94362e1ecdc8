"""What somebody stored for a server is still listed when they were removed from it, but not under
its new name."""

from collections.abc import Callable

from portal.domain.principals import OPERATOR
from portal.services.access import teams
from portal.store.models import Server, now
from portal.store.oauth_tables import Consent
from tests.conftest import CREW, NOTES, Client, Write

As = Callable[[str | None], Client]


def test_a_person_who_was_removed_sees_the_id_and_no_new_name(
    client: As, signed_in: As, write: Write
) -> None:
    mel = signed_in("mel")
    with write() as session:
        row = session.get(Server, NOTES)
        row.auth_type, row.is_byok = "oauth2", False
    token = {"access_token": "SECRET", "expires_in": 3600}
    assert (
        client("mel").post(f"/v1/mcp/server/{NOTES}/oauth-user-credential", token).status_code
        == 200
    )
    with write() as session:
        session.add(
            Consent(
                user_id="mel",
                server_id=NOTES,
                client_hash="0" * 64,
                client_id="https://app.example/a",
                scopes=[],
                redirect_uri="https://app.example/cb",
                given_at=now(),
            )
        )
    pages = ("/credentials", "/profile")
    assert all("notes" in mel.get(page).get_data(as_text=True) for page in pages)
    with write() as session:
        teams.remove_member(session, OPERATOR, CREW, "mel")
        row = session.get(Server, NOTES)
        row.server_name = row.alias = "merger_with_initech"
        row.sort_key = row.server_name
    for page in pages:
        text = mel.get(page).get_data(as_text=True)
        assert "merger_with_initech" not in text, page
        assert NOTES in text, page
    listed = mel.get("/v1/mcp/user-credentials")
    assert listed.status_code == 200
    assert [row["server_id"] for row in listed.get_json()] == [NOTES]
    assert "merger" not in listed.get_data(as_text=True)
