"""An Admin does not approve what they submitted themselves before they became one, unless there is
no other Admin."""

from collections.abc import Callable

import pytest
from sqlalchemy import select, update

from portal.domain.principals import OPERATOR
from portal.services.access import users
from portal.store.models import AuditEvent, Server
from tests.conftest import Client, Write
from tests.support.browsing import Browser, text_of
from tests.support.factories import make_key

As = Callable[[str | None], Client]
BODY = {"server_name": "wiki", "transport": "http", "url": "http://127.0.0.1:9/wiki"}


def submitted(client: As) -> str:
    answer = client("mel").post("/v1/mcp/server/register", BODY)
    assert answer.status_code == 201, answer.get_data(as_text=True)
    return str(answer.get_json()["server_id"])


def role_of(write: Write, name: str, role: str) -> None:
    with write() as session:
        users.change_user(session, OPERATOR, name, {"role": role}, None)


def status_of(write: Write, server_id: str) -> str:
    with write() as session:
        return session.scalars(
            select(Server.approval_status).where(Server.server_id == server_id)
        ).one()


def test_the_promoted_do_not_approve_their_own_by_any_key_of_theirs(
    client: As, write: Write
) -> None:
    server_id = submitted(client)
    role_of(write, "mel", "proxy_admin")
    with write() as session:
        bare = make_key(session, user_id="mel")
    for asking in (client("mel"), client(bare)):
        refused = asking.put(f"/v1/mcp/server/{server_id}/approve", {})
        detail = refused.get_json()["detail"]
        assert (refused.status_code, detail["error"]) == (403, "forbidden")
        assert "You submitted this yourself" in detail["message"]
        assert "Ada" in detail["message"]
    assert status_of(write, server_id) == "pending_review"
    assert client("ada").put(f"/v1/mcp/server/{server_id}/approve", {}).status_code == 200


def test_a_change_that_they_proposed_for_a_live_server_is_not_theirs_to_approve(
    client: As, write: Write
) -> None:
    server_id = submitted(client)
    assert client("ada").put(f"/v1/mcp/server/{server_id}/approve", {}).status_code == 200
    change = client("mel").put(f"/v1/mcp/server/register/{server_id}", {"description": "changed"})
    assert change.status_code == 200
    role_of(write, "mel", "proxy_admin")
    assert client("mel").put(f"/v1/mcp/server/{server_id}/approve", {}).status_code == 403
    assert client("ada").get(f"/v1/mcp/server/{server_id}").get_json()["description"] is None
    assert (
        client("mel").put(f"/v1/mcp/server/{server_id}/reject", {"only_change": True}).status_code
        == 200
    )


def key_by(issuer: Client, owner: str) -> str:
    """A key for `owner` that another's key issues."""
    issued = issuer.post("/v1/keys", {"user_id": owner})
    assert issued.status_code in (200, 201), issued.get_json()
    return str(issued.get_json()["key"])


def promoted(client: As, write: Write) -> Client:
    """Mel as an Admin, with a key of her own."""
    role_of(write, "mel", "proxy_admin")
    with write() as session:
        return client(make_key(session, user_id="mel"))


@pytest.mark.parametrize("waits", ["a server", "a change"])
def test_nobody_approves_their_own_by_a_key_that_they_issued_for_somebody_else(
    client: As, write: Write, waits: str
) -> None:
    server_id = submitted(client)
    if waits == "a change":
        assert client("ada").put(f"/v1/mcp/server/{server_id}/approve", {}).status_code == 200
        change = {"description": "changed"}
        path = f"/v1/mcp/server/register/{server_id}"
        assert client("mel").put(path, change).status_code == 200
    adas = client(key_by(promoted(client, write), "ada"))
    further = client(key_by(adas, "ada"))
    for key in (adas, further):
        refused = key.put(f"/v1/mcp/server/{server_id}/approve", {})
        assert refused.status_code == 403, refused.get_json()
        message = refused.get_json()["detail"]["message"]
        assert "The author of this submission issued this API key" in message
    assert client("ada").get(f"/v1/mcp/server/{server_id}").get_json()["description"] is None
    own = client(key_by(client("ada"), "ada"))
    assert own.put(f"/v1/mcp/server/{server_id}/approve", {}).status_code == 200


def test_a_key_that_another_admin_issued_approves_what_is_not_the_issuer_s(
    client: As, write: Write
) -> None:
    """Vera gets one from Ada: she approves what Mel submitted, and what was Ada's not."""
    role_of(write, "vera", "proxy_admin")
    veras = client(key_by(client("ada"), "vera"))
    server_id = submitted(client)
    assert veras.put(f"/v1/mcp/server/{server_id}/approve", {}).status_code == 200
    with write() as session:
        event = session.scalars(
            select(AuditEvent).where(AuditEvent.action == "server approved")
        ).one()
        assert (event.actor_id, event.details["key_issued_by"]) == ("vera", "ada")


def test_what_nobody_signed_as_author_is_approved_by_any_key_of_an_admin(
    client: As, write: Write
) -> None:
    """Its author is not taken for the issuer of a key that nobody issued."""
    server_id = submitted(client)
    with write() as session:
        session.execute(
            update(Server).where(Server.server_id == server_id).values(submitted_by=None)
        )
    assert client("ada").put(f"/v1/mcp/server/{server_id}/approve", {}).status_code == 200


def test_a_key_that_another_issued_does_not_make_an_author_somebody_else(
    client: As, write: Write
) -> None:
    server_id = submitted(client)
    promoted(client, write)
    refused = client(key_by(client("ada"), "mel")).put(f"/v1/mcp/server/{server_id}/approve", {})
    assert refused.status_code == 403
    assert "You submitted this yourself" in refused.get_json()["detail"]["message"]


def test_what_is_done_by_a_key_names_the_key_and_who_issued_it(client: As, write: Write) -> None:
    issued = client("ada").post("/v1/keys", {"user_id": "vera", "key_alias": "lent"}).get_json()
    own = client("ada").post("/v1/keys", {"user_id": "ada"}).get_json()
    role_of(write, "vera", "proxy_admin")
    for key, name in ((issued, "by-lent"), (own, "by-own")):
        assert client(key["key"]).post("/v1/teams", {"team_alias": name}).status_code in (200, 201)
    with write() as session:
        made = (
            select(AuditEvent)
            .where(AuditEvent.action == "team created")
            .order_by(AuditEvent.sequence.desc())
        )
        by_own, by_lent = session.scalars(made.limit(2)).all()
        assert (by_lent.actor_id, by_lent.key_id) == ("vera", issued["key_id"])
        assert by_lent.details["key_issued_by"] == "ada"
        assert (by_own.actor_id, by_own.key_id) == ("ada", own["key_id"])
        assert "key_issued_by" not in by_own.details


@pytest.mark.parametrize("other", ["no", "deactivated"])
def test_the_only_admin_may_and_the_record_says_so(client: As, write: Write, other: str) -> None:
    server_id = submitted(client)
    role_of(write, "mel", "proxy_admin")
    if other == "no":
        role_of(write, "ada", "internal_user")
    else:
        with write() as session:
            users.change_user(session, OPERATOR, "ada", {"is_active": False}, None)
    assert client("mel").put(f"/v1/mcp/server/{server_id}/approve", {}).status_code == 200
    with write() as session:
        event = session.scalars(
            select(AuditEvent).where(AuditEvent.action == "server approved")
        ).one()
        assert event.details["own_submission"] == "There was no other Admin."


def test_pages_say_who_can_in_place_of_the_button_and_several_at_once_leave_it_out(
    client: As, browser: Callable[[str], Browser], write: Write
) -> None:
    server_id = submitted(client)
    role_of(write, "mel", "proxy_admin")
    mel = browser("mel")
    for path in (f"/admin/submissions/{server_id}", "/admin/submissions"):
        page = mel.open(path)
        assert "another Admin has to approve it: Ada" in text_of(page)
        assert not page.select(f'a[href*="verdict=approve&chosen={server_id}"]')
        assert page.select(f'a[href*="verdict=reject&chosen={server_id}"]')
    asked = mel.open(f"/admin/submissions/decide?verdict=approve&chosen={server_id}")
    assert not asked.select("#decision button.primary")
    mel.post("/admin/submissions/decide", verdict="approve", chosen=[server_id])
    assert "You submitted this yourself" in text_of(mel.open("/admin/submissions"))
    assert status_of(write, server_id) == "pending_review"
    assert (
        browser("ada").open(f"/admin/submissions/{server_id}").select('a[href*="verdict=approve"]')
    )
