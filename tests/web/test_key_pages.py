"""The pages of API keys: one's own, and everybody's."""

from collections.abc import Callable

from portal.domain.principals import OPERATOR
from portal.services import keys
from portal.services.keys import KeyDraft
from tests.conftest import CREW, KEYS, NOTES, Client, Write
from tests.factories import PASSWORD, make_server, make_team
from tests.web.browsing import CHANGED, Browser, look_at, text_of

SignedIn = Callable[[str], Client]
As = Callable[[str], Browser]


def test_own_key_is_shown_once_and_works(browser: As, client: SignedIn) -> None:
    mel = browser("mel")
    answer = mel.send("/keys/new", key_alias="Laptop", team_id=CREW)
    soup = look_at(answer)
    secret = text_of(soup.select_one("#secret"))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert f'Bearer {secret}" http://127.0.0.1:8000/v1/mcp/server' in text_of(soup.select_one("#curl"))
    assert [server["server_id"] for server in client(secret).get("/v1/mcp/server").json] == [NOTES]
    listed = mel.open("/keys")
    assert "Laptop" in text_of(listed)
    assert secret not in str(listed)


def test_own_key_needs_a_name_and_true_routes(browser: As) -> None:
    mel = browser("mel")
    assert "Name it" in text_of(look_at(mel.send("/keys/new", key_alias=""), 422).select_one("#key_alias-error"))
    soup = look_at(mel.send("/keys/new", key_alias="typed", allowed_routes="/admin\n"), 422)
    assert "/v1/" in text_of(soup.select_one("#allowed_routes-error"))
    assert soup.select_one("#key_alias")["value"] == "typed"


def test_own_key_reaches_no_further_than_its_maker(browser: As, write: Write) -> None:
    with write() as session:
        make_server(session, "wiki")
        make_team(session, "others")
    mel = browser("mel")
    for server_id in ("id-wiki", "id-nowhere"):  # the same answer, so that ids cannot be guessed
        assert mel.send("/keys/new", key_alias="x", servers=[server_id]).status_code == 403
    assert mel.send("/keys/new", key_alias="x", team_id="team-others").status_code == 422


def test_own_key_is_revoked_after_a_question(browser: As, client: SignedIn) -> None:
    mel = browser("mel")
    secret = text_of(look_at(mel.send("/keys/new", key_alias="Short-lived")).select_one("#secret"))
    row = next(row for row in mel.open("/keys").select("tbody tr") if "Short-lived" in text_of(row))
    path = str(row.select_one("a")["href"])
    mel.open(path)
    assert client(secret).get("/v1/mcp/server").status_code == 200
    assert mel.send(path).status_code == CHANGED
    assert client(secret).get("/v1/mcp/server").status_code == 401
    assert "Revoked" in text_of(mel.open("/keys"))


def test_key_of_somebody_else_is_not_there(browser: As, write: Write) -> None:
    with write() as session:
        draft = KeyDraft(key_alias="otto's", user_id="otto")
        key_id = keys.issue_key(session, OPERATOR, draft).view.key_id
    for who in ("mel", "ada"):
        browser(who).open(f"/keys/{key_id}/revoke", 404)
        assert browser(who).post(f"/keys/{key_id}/revoke").status_code == 404
    browser("vera").open(f"/admin/keys/{key_id}/revoke", 404)
    assert browser("vera").post(f"/admin/keys/{key_id}/revoke").status_code == 403
    assert browser("ada").send(f"/admin/keys/{key_id}/revoke").status_code == CHANGED


def test_admin_issues_a_key_for_anybody(browser: As, client: SignedIn) -> None:
    ada = browser("ada")
    answer = ada.send("/admin/keys/new", key_alias="Bot", user_id="otto", servers=[NOTES], expiry="never")
    secret = text_of(look_at(answer).select_one("#secret"))
    assert [server["server_id"] for server in client(secret).get("/v1/mcp/server").json] == [NOTES]
    listed = text_of(ada.open("/admin/keys"))
    assert "Bot" in listed
    assert "Otto" in listed


def test_key_of_nobody_is_refused(browser: As) -> None:
    answer = browser("ada").send("/admin/keys/new", key_alias="Bot")
    assert "belongs to" in text_of(look_at(answer, 422).select_one("#user_id-error"))


def test_no_page_shows_a_key(browser: As) -> None:
    ada = browser("ada")
    for path in ("/admin/keys", "/keys", "/admin/users/mel", f"/admin/teams/{CREW}"):
        shown = str(ada.open(path))
        assert not [key for key in KEYS.values() if key in shown]
        assert PASSWORD not in shown
