"""The pages of people: who may open them and change what, and what they do with users."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from portal.domain.principals import OPERATOR
from portal.services.access import access_groups, teams, users
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.browsing import CHANGED, Browser, look_at, sign_in, text_of
from tests.support.factories import PASSWORD

SignedIn = Callable[[str], Client]
As = Callable[[str], Browser]


PAGES = [
    "/admin/teams",
    f"/admin/teams/{CREW}",
    "/admin/users",
    "/admin/users/mel",
    "/admin/groups",
    "/admin/keys",
]
CONTROLS = [
    "/admin/teams/new",
    f"/admin/teams/{CREW}/delete",
    "/admin/users/new",
    "/admin/users/mel/delete",
    "/admin/groups/new",
    "/admin/keys/new",
]
CHANGES = [
    "/admin/teams/new",
    f"/admin/teams/{CREW}",
    f"/admin/teams/{CREW}/members",
    f"/admin/teams/{CREW}/members/mel/remove",
    f"/admin/teams/{CREW}/delete",
    "/admin/users/new",
    "/admin/users/mel",
    "/admin/users/mel/password",
    "/admin/users/mel/delete",
    "/admin/groups/new",
    "/admin/keys/new",
]
NOBODY = [
    "/admin/teams/nobody",
    "/admin/teams/nobody/delete",
    "/admin/users/nobody",
    "/admin/users/nobody/delete",
    "/admin/groups/nobody",
    "/admin/groups/nobody/delete",
    "/admin/keys/nobody/revoke",
    "/keys/nobody/revoke",
]


def test_admin_opens_every_page(browser: As) -> None:
    ada = browser("ada")
    for path in (*PAGES, *CONTROLS):
        ada.open(path)


def test_read_only_admin_sees_pages_without_controls(browser: As, group_id: str) -> None:
    vera = browser("vera")
    for path in (*PAGES, f"/admin/groups/{group_id}"):
        main = vera.open(path).select_one("main")
        assert main
        assert not main.select("form[method=post]"), path
        assert not main.select("a[href$='/new'], a[href$='/delete'], a[href$='/revoke']"), path


def test_pages_that_only_change_are_not_there_for_a_read_only_admin(browser: As) -> None:
    vera = browser("vera")
    for path in CONTROLS:
        vera.open(path, 404)


def test_read_only_admin_is_refused_every_change(browser: As) -> None:
    vera = browser("vera")
    fields = {
        "team_alias": "x",
        "email": "x@example.com",
        "name": "x",
        "role": "user",
        "user_id": "otto",
    }
    for path in CHANGES:
        # What she sees she may not change; pages that are only there to change something are not
        # there.
        is_hers = not path.endswith(("/new", "/delete"))
        assert vera.post(path, **fields).status_code == (403 if is_hers else 404), path


@pytest.mark.parametrize("who", ["mel", "vic"])
def test_for_members_and_viewers_there_is_no_administration(browser: As, who: str) -> None:
    person = browser(who)
    for path in (*PAGES, *CONTROLS):
        person.open(path, 404)
    paths = [*CHANGES, "/admin/find/people", "/admin/find/teams"]
    assert {path: person.post(path).status_code for path in paths} == dict.fromkeys(paths, 404)


def test_wrong_id_is_not_found(browser: As) -> None:
    ada = browser("ada")
    for path in NOBODY:
        ada.open(path, 404)
    assert {path: ada.post(path).status_code for path in NOBODY} == dict.fromkeys(NOBODY, 404)


def test_every_change_needs_a_csrf_token(signed_in: SignedIn) -> None:
    ada = signed_in("ada")
    assert {path: ada.ask("POST", path, data={}).status_code for path in CHANGES} == dict.fromkeys(
        CHANGES, 400
    )


def test_opening_confirmation_pages_changes_nothing(
    browser: As, write: Write, group_id: str
) -> None:
    ada = browser("ada")
    for path in (
        f"/admin/teams/{CREW}/delete",
        "/admin/users/mel/delete",
        f"/admin/groups/{group_id}/delete",
    ):
        ada.open(path)
    with write() as session:
        assert teams.get_team(session, OPERATOR, CREW)
        assert users.get_user(session, OPERATOR, "mel")
        assert access_groups.get_group(session, OPERATOR, group_id)


# Users


def test_new_user_signs_in_with_the_made_password_and_must_change_it(browser: As, app: Any) -> None:
    answer = browser("ada").send(
        "/admin/users/new", email=" New@Example.com ", display_name="New", role="internal_user"
    )
    password = text_of(look_at(answer).select_one("#one-time-password"))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert re.fullmatch(r"([a-z2-9]{5}-){3}[a-z2-9]{5}", password)
    assert sign_in(app, "new@example.com", password) == "/profile/password"


def test_typed_password_is_never_sent_back(browser: As) -> None:
    answer = browser("ada").send(
        "/admin/users/new", email="mel@example.com", password="typed SECRET words"
    )
    assert "This email is already in use" in text_of(
        look_at(answer, 422).select_one("#email-error")
    )
    assert "typed SECRET words" not in answer.get_data(as_text=True)


def test_short_password_and_odd_mail_land_on_their_fields(browser: As) -> None:
    ada = browser("ada")
    short = look_at(ada.send("/admin/users/new", email="a@b.local", password="short"), 422)
    assert "10 characters" in text_of(short.select_one("#password-error"))
    odd = look_at(ada.send("/admin/users/new", email="nobody"), 422)
    assert "ada@example.com" in text_of(odd.select_one("#email-error"))


def test_user_is_changed_and_granted_a_server(browser: As, write: Write) -> None:
    answer = browser("ada").send(
        "/admin/users/otto", display_name="Ottilie", role="internal_user_viewer", servers=[NOTES]
    )
    assert answer.status_code == CHANGED
    with write() as session:
        otto = users.get_user(session, OPERATOR, "otto")
    assert (otto.display_name, otto.role, otto.is_active) == (
        "Ottilie",
        "internal_user_viewer",
        True,
    )
    assert otto.object_permission.mcp_servers == (NOTES,)


def test_switching_a_person_off_signs_them_out(browser: As) -> None:
    mel = browser("mel")
    ada = browser("ada")
    assert ada.send("/admin/users/mel", is_active=None).status_code == CHANGED
    assert mel.client.get("/servers").status_code == CHANGED


def test_last_admin_stays_admin(browser: As) -> None:
    answer = browser("ada").send("/admin/users/ada", role="internal_user")
    assert "last Admin" in text_of(look_at(answer, 422).select_one("#role"))


def test_new_one_time_password_replaces_the_old(browser: As, app: Any) -> None:
    answer = browser("ada").send("/admin/users/otto", "/admin/users/otto/password")
    password = text_of(look_at(answer).select_one("#one-time-password"))
    assert sign_in(app, "otto@example.com", password) == "/profile/password"
    assert sign_in(app, "otto@example.com", PASSWORD) is None


def test_person_without_a_mail_can_be_edited(browser: As, write: Write) -> None:
    with write() as session:
        users.create_user(session, OPERATOR, {"user_id": "sso", "display_name": "Sso"})
    assert browser("ada").send("/admin/users/sso", display_name="Saved").status_code == CHANGED


def test_deleting_a_user_says_what_goes_and_does_it(browser: As) -> None:
    ada = browser("ada")
    path = "/admin/users/mel/delete"
    said = text_of(ada.open(path))
    assert "Removed from teams crew" in said
    assert "API keys deleted 2" in said
    assert ada.send(path).status_code == CHANGED
    ada.open("/admin/users/mel", 404)
