"""Sessions and keys: begun under a new id, ended at once, and a header that is there decides
alone."""

import re

import pytest

from portal.domain.principals import OPERATOR
from portal.services.access import keys, sessions, users
from tests.conftest import KEYS, NOTES
from tests.support.factories import PASSWORD
from tests.support.security.callers import SPARE_KEY, Caller, World, token_in


def _cookie(caller: Caller) -> str:
    cookie = caller.client.get_cookie("portal")
    assert cookie is not None
    return cookie.value


def test_the_session_gets_a_new_id_at_sign_in_and_the_old_one_is_worth_nothing(
    fresh: World,
) -> None:
    client = fresh.app.test_client()
    token = token_in(client.get("/login"))
    planted = client.get_cookie("portal")
    client.post(
        "/login", data={"email": "mel@example.com", "password": PASSWORD, "csrf_token": token}
    )
    own = client.get_cookie("portal")
    assert planted is not None
    assert own is not None
    assert own.value != planted.value
    thief = fresh.app.test_client()
    thief.set_cookie("portal", planted.value)
    assert thief.get("/servers").status_code == 303
    with fresh.database.session() as session:
        assert sessions.load_session(session, planted.value) is None


def test_an_id_that_a_browser_was_given_by_somebody_else_is_not_taken_on(fresh: World) -> None:
    client = fresh.app.test_client()
    client.set_cookie("portal", "an-id-that-somebody-else-chose")
    token_in(client.get("/login"))
    cookie = client.get_cookie("portal")
    assert cookie is not None
    assert cookie.value != "an-id-that-somebody-else-chose"


def test_signing_out_ends_the_session_itself_not_only_the_cookie(fresh: World) -> None:
    caller = fresh.browser("member", "mel")
    stolen = _cookie(caller)
    assert caller.ask("POST", "/logout").status_code == 303
    thief = fresh.app.test_client()
    thief.set_cookie("portal", stolen)
    assert thief.get("/servers").status_code == 303
    assert thief.get("/v1/me").status_code == 401


def test_a_new_password_signs_out_the_other_browsers(fresh: World) -> None:
    here = fresh.browser("here", "otto")
    there = fresh.browser("there", "otto")
    new = "another horse staple"
    fields = {"current_password": PASSWORD, "new_password": new, "repeat_password": new}
    assert here.ask("POST", "/profile/password", data=fields).status_code == 303
    assert (here.ask("GET", "/servers").status_code, there.ask("GET", "/servers").status_code) == (
        200,
        303,
    )


def test_a_person_who_is_deactivated_is_out_with_the_next_request(fresh: World) -> None:
    with fresh.database.session(writes=True) as session:
        users.change_user(session, OPERATOR, "mel", {"is_active": False})
        session.commit()
    assert fresh.callers["member"].ask("GET", "/servers").status_code == 303
    for name in ("k-member", "k-restr"):
        assert fresh.callers[name].ask("GET", "/v1/me").status_code == 401
    again = {"email": "mel@example.com", "password": PASSWORD}
    assert fresh.callers["nobody"].ask("POST", "/login", data=again).status_code == 422


def test_a_role_that_is_lowered_holds_with_the_next_request(fresh: World) -> None:
    with fresh.database.session(writes=True) as session:
        users.change_user(
            session, OPERATOR, "gone", {"is_active": True}
        )  # somebody has to be the last Admin
        users.change_user(session, OPERATOR, "ada", {"role": "internal_user"})
        session.commit()
    assert fresh.callers["admin"].ask("GET", "/v1/users").status_code == 403
    assert fresh.callers["k-admin"].ask("DELETE", f"/v1/mcp/server/{NOTES}").status_code == 403


def test_a_key_that_is_revoked_opens_nothing_from_the_next_request_on(fresh: World) -> None:
    with fresh.database.session(writes=True) as session:
        issued = keys.issue_key(session, OPERATOR, keys.KeyDraft(user_id="mel"))
        session.commit()
    caller = fresh.with_key("spare", issued.key)
    assert caller.ask("GET", "/v1/me").status_code == 200
    revoked = fresh.callers["k-admin"].ask("DELETE", f"/v1/keys/{issued.view.key_id}")
    assert revoked.status_code == 204
    assert caller.ask("GET", "/v1/me").status_code == 401


def test_people_end_their_own_keys_and_nobody_elses(fresh: World) -> None:
    assert fresh.callers["k-outsider"].ask("DELETE", f"/v1/me/keys/{SPARE_KEY}").status_code == 403
    assert fresh.callers["k-member"].ask("DELETE", f"/v1/me/keys/{SPARE_KEY}").status_code == 204


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer sk-wrong"},
        {"Authorization": "Basic YWRhOng="},
        {"Authorization": ""},
        {"X-API-Key": "sk-wrong"},
        {"X-API-Key": ""},
        {"Authorization": "Bearer sk-wrong", "X-API-Key": KEYS["ada"]},
    ],
)
def test_a_header_that_is_there_decides_alone(world: World, headers: dict[str, str]) -> None:
    """A bad key is refused whatever cookie comes along (`1-system.md`, 6)."""
    admin = world.callers["admin"]
    assert Caller("admin", admin.client, headers).ask("GET", "/v1/me").status_code == 401


def test_a_key_opens_the_api_under_either_header_and_no_page(world: World) -> None:
    for headers in ({"X-API-Key": KEYS["ada"]}, {"Authorization": f"bearer {KEYS['ada']}"}):
        caller = Caller("key", world.app.test_client(use_cookies=False), headers)
        assert caller.ask("GET", "/v1/me").status_code == 200
        assert caller.ask("GET", "/servers").status_code == 303


def test_a_restricted_key_stays_on_its_routes(world: World) -> None:
    kit = world.callers["k-restr"]
    assert kit.ask("GET", "/v1/mcp/server").status_code == 200
    for path in ("/v1/users", "/v1/keys", "/v1/teams", "/v1/settings", "/v1/access-groups"):
        assert kit.ask("GET", path).status_code == 403
    for path in ("/v1/mcpx", "/v1/mcp/../users", "/v1//users", "/v1/mcp/%2e%2e/users"):
        assert kit.ask("GET", path).status_code in (308, 403, 404), path


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "javascript:x",
        "/servers\r\nX-Evil: 1",
        "evil.example",
        "",
    ],
)
def test_signing_in_leads_only_to_our_own_pages(fresh: World, target: str) -> None:
    client = fresh.app.test_client()
    token = token_in(client.get("/login", query_string={"next": target}))
    fields = {
        "email": "guest@example.com",
        "password": PASSWORD,
        "csrf_token": token,
        "next": target,
    }
    with_next = client.post("/login", data=fields, environ_base={"REMOTE_ADDR": "127.9.9.9"})
    assert (with_next.status_code, with_next.headers["Location"]) == (303, "/servers")
    assert "X-Evil" not in with_next.headers


def test_guessing_the_password_of_one_account_is_slowed_down_wherever_it_comes_from(
    fresh: World,
) -> None:
    nobody = fresh.callers["nobody"]
    guess = {"email": "victim@example.com", "password": "a guess"}
    answers = [nobody.ask("POST", "/login", data=guess).status_code for _ in range(11)]
    assert answers == [422] * 10 + [429]
    other = {"email": "other@example.com", "password": "a guess"}
    assert nobody.ask("POST", "/login", data=other).status_code == 422


def test_an_unknown_account_and_a_wrong_password_get_the_same_answer(fresh: World) -> None:
    texts = set()
    for email in ("otto@example.com", "nobody-of-this-name@example.com"):
        answer = fresh.callers["nobody"].ask(
            "POST", "/login", data={"email": email, "password": "a guess"}
        )
        text = answer.get_data(as_text=True).replace(email, "")
        texts.add((answer.status_code, re.sub(r'name="csrf_token" value="[^"]*"', "", text)))
    assert len(texts) == 1
    assert "Incorrect email or password." in text
