"""The pages of API keys: one's own, and everybody's."""

from collections.abc import Callable

from portal.domain.principals import OPERATOR
from portal.services.access import keys
from portal.services.access.keys import KeyDraft
from portal.services.instance_settings import update_preferences
from tests.conftest import CREW, KEYS, NOTES, Client, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of
from tests.support.factories import PASSWORD, make_server, make_team

SignedIn = Callable[[str], Client]
As = Callable[[str], Browser]


def test_own_key_is_shown_once_and_works(browser: As, client: SignedIn) -> None:
    mel = browser("mel")
    answer = mel.send("/keys/new", key_alias="Laptop", team_id=CREW)
    soup = look_at(answer)
    secret = text_of(soup.select_one("#secret"))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert f'Bearer {secret}" http://127.0.0.1:8000/v1/mcp/server' in text_of(
        soup.select_one("#curl")
    )
    assert [server["server_id"] for server in client(secret).get("/v1/mcp/server").json] == [NOTES]
    listed = mel.open("/keys")
    assert "Laptop" in text_of(listed)
    assert secret not in str(listed)


def test_the_form_says_what_the_key_will_reach_and_keeps_what_was_typed(
    browser: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "wiki", allow_all_keys=True)
    mel = browser("mel")
    assert "This key can use the same 2 servers as you" in text_of(mel.open("/keys/new"))
    assert "its access changes with yours: notes, wiki." in text_of(mel.open("/keys/new"))
    typed = {"key_alias": "Laptop", "team_id": CREW, "servers": [NOTES]}
    without_script = look_at(mel.send("/keys/new", press="look", **typed))
    assert "This key can use 2 servers of team crew" in text_of(without_script)
    assert without_script.select_one("#key_alias")["value"] == "Laptop"
    assert without_script.select_one(f"input[name=servers][value={NOTES}]").has_attr("checked")
    token = mel.open("/profile").select_one("input[name=csrf_token]")["value"]
    asked = {"csrf_token": token, **typed}
    piece = mel.client.ask("POST", "/keys/reach", data=asked, headers={"HX-Request": "true"})
    assert "This key can use 2 servers of team crew" in text_of(look_at(piece))
    assert "<html" not in piece.get_data(as_text=True)
    assert "This key can use the same 2 servers as you" in text_of(
        look_at(mel.send("/keys/new", key_alias=""), 422)
    )


def test_lists_say_what_each_key_reaches_and_are_sorted_and_narrowed(
    browser: As, write: Write
) -> None:
    mel = browser("mel")
    mel.send("/keys/new", key_alias="Mine", expiry="never")
    assert "Follows you: everything you can use." in text_of(mel.open("/keys"))
    assert "Follows Mel: everything Mel can use." in text_of(browser("ada").open("/admin/keys"))
    for query in ("?sort=age", "?sort=last_used&unused=true", "?sort=nonsense"):
        assert "Mine" in text_of(mel.open(f"/keys{query}"))
    with write() as session:
        update_preferences(session, OPERATOR, {"key_max_age_days": 30})
    assert "Expiry date required" in text_of(mel.open("/keys"))
    offered = [option["value"] for option in mel.open("/keys/new").select("#expiry option")]
    assert offered == ["30"]
    refused = look_at(mel.send("/keys/new", key_alias="Long", expiry="never"), 422)
    assert refused.select_one("#key_alias")["value"] == "Long"


def test_own_key_needs_a_name_and_true_routes(browser: As) -> None:
    mel = browser("mel")
    assert "Enter a name" in text_of(
        look_at(mel.send("/keys/new", key_alias=""), 422).select_one("#key_alias-error")
    )
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
    answer = ada.send(
        "/admin/keys/new", key_alias="Bot", user_id="otto", servers=[NOTES], expiry="never"
    )
    secret = text_of(look_at(answer).select_one("#secret"))
    assert [server["server_id"] for server in client(secret).get("/v1/mcp/server").json] == [NOTES]
    listed = text_of(ada.open("/admin/keys"))
    assert "Bot" in listed
    assert "Otto" in listed


def test_key_of_nobody_is_refused(browser: As) -> None:
    answer = browser("ada").send("/admin/keys/new", key_alias="Bot")
    assert "Choose a user, a team, or both" in text_of(
        look_at(answer, 422).select_one("#user_id-error")
    )


def test_no_page_shows_a_key(browser: As) -> None:
    ada = browser("ada")
    for path in ("/admin/keys", "/keys", "/admin/users/mel", f"/admin/teams/{CREW}"):
        shown = str(ada.open(path))
        assert not [key for key in KEYS.values() if key in shown]
        assert PASSWORD not in shown
