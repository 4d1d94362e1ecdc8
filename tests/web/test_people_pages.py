"""The pages of teams, users, access groups and API keys: what they do, who may look, who may change."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup, Tag
from werkzeug.test import TestResponse

from portal.domain.principals import OPERATOR
from portal.services import access_groups, keys, people, servers, teams
from portal.services.inner.grants import ObjectPermission
from portal.services.keys import KeyDraft
from tests.conftest import CREW, KEYS, NOTES, Client, Write
from tests.factories import PASSWORD, make_server, make_team

SignedIn = Callable[[str], Client]
CHANGED = 303


class Browser:
    """A person in front of the pages: opens them, fills in forms as they stand there, and sends them."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def open(self, path: str, status: int = 200, **options: Any) -> BeautifulSoup:
        """The page at `path`, after a look at what every page must have."""
        answer = self.client.get(path, **options)
        assert answer.status_code == status, answer.get_data(as_text=True)
        return look_at(answer)

    def send(self, path: str, action: str | None = None, press: str = "save", **changes: Any) -> TestResponse:
        """Send the form at `path` that goes to `action` (itself), with `changes` to what is filled in there."""
        forms = self.open(path).select(f'main form[method=post][action="{action or path}"]')
        assert forms, f"{path} has a form to {action or path}"
        form = forms[-1]  # behind those of the rows of a list
        fields = filled_in(form)
        for name, value in changes.items():
            fields[name] = value
        pressed = form.select_one(f"button[name={press}]")
        if pressed is not None:
            fields[press] = pressed.get("value", "")
        return self.client.ask("POST", action or path, data=fields)

    def post(self, path: str, **fields: Any) -> TestResponse:
        """Send fields of one's own making, with a CSRF token of this session."""
        token = self.open("/keys/new").select_one("input[name=csrf_token]")
        assert token
        return self.client.ask("POST", path, data={"csrf_token": token["value"], **fields})


def look_at(answer: TestResponse) -> BeautifulSoup:
    """The page, which has a title and one heading, unique ids, a label for each field, and nothing inline."""
    soup = BeautifulSoup(answer.get_data(as_text=True), "html.parser")
    assert soup.title
    assert len(soup.select("main h1")) == 1
    ids = [str(tag["id"]) for tag in soup.select("[id]")]
    assert len(ids) == len(set(ids)), [i for i in ids if ids.count(i) > 1]
    for field in soup.select("input:not([type=hidden]), select, textarea"):
        assert field.find_parent("label") or field.get("aria-label") or soup.select_one(f"label[for={field['id']}]")
    assert not soup.select("[style], style, script:not([src])")
    return soup


def filled_in(form: Tag) -> dict[str, Any]:
    """What a browser would send of a form, buttons aside."""
    fields: dict[str, Any] = {}
    for field in form.select("input[name], select[name], textarea[name]"):
        name, kind = str(field["name"]), field.get("type")
        if kind in ("checkbox", "radio") and not field.has_attr("checked"):
            continue
        if field.name == "select":
            chosen = field.select_one("option[selected]") or field.select_one("option")
            value = chosen["value"] if chosen else ""
        else:
            value = field.get_text() if field.name == "textarea" else field.get("value", "")
        if kind == "checkbox":
            fields.setdefault(name, []).append(value)
        else:
            fields[name] = value
    return fields


def text_of(soup: BeautifulSoup | Tag) -> str:
    return " ".join(soup.get_text(" ").split())


@pytest.fixture
def browser(signed_in: SignedIn) -> Callable[[str], Browser]:
    """`browser("ada")` is Ada's, in which she has signed in."""
    return lambda name: Browser(signed_in(name))


@pytest.fixture
def group_id(write: Write) -> str:
    """An access group that holds the server `notes`."""
    with write() as session:
        return access_groups.create_group(session, OPERATOR, "writing", "Texts", [NOTES]).access_group_id


As = Callable[[str], Browser]

PAGES = ["/admin/teams", f"/admin/teams/{CREW}", "/admin/users", "/admin/users/mel", "/admin/groups", "/admin/keys"]
CONTROLS = ["/admin/teams/new", f"/admin/teams/{CREW}/delete", "/admin/users/new", "/admin/users/mel/delete",
            "/admin/groups/new", "/admin/keys/new"]  # fmt: skip
CHANGES = ["/admin/teams/new", f"/admin/teams/{CREW}", f"/admin/teams/{CREW}/members",
           f"/admin/teams/{CREW}/members/mel/remove", f"/admin/teams/{CREW}/delete", "/admin/users/new",
           "/admin/users/mel", "/admin/users/mel/password", "/admin/users/mel/delete", "/admin/groups/new",
           "/admin/keys/new"]  # fmt: skip
NOBODY = ["/admin/teams/nobody", "/admin/teams/nobody/delete", "/admin/users/nobody", "/admin/users/nobody/delete",
          "/admin/groups/nobody", "/admin/groups/nobody/delete", "/admin/keys/nobody/revoke",
          "/keys/nobody/revoke"]  # fmt: skip


@pytest.mark.parametrize("path", [*PAGES, *CONTROLS])
def test_admin_opens_every_page(browser: As, path: str) -> None:
    browser("ada").open(path)


@pytest.mark.parametrize("path", PAGES)
def test_read_only_admin_sees_pages_without_controls(browser: As, path: str) -> None:
    main = browser("vera").open(path).select_one("main")
    assert main
    assert not main.select("form[method=post]")
    assert not main.select("a[href$='/new'], a[href$='/delete'], a[href$='/revoke']")


def test_read_only_admin_sees_a_group_without_controls(browser: As, group_id: str) -> None:
    main = browser("vera").open(f"/admin/groups/{group_id}").select_one("main")
    assert main
    assert "notes" in text_of(main)
    assert not main.select("form[method=post]")


@pytest.mark.parametrize("path", CONTROLS)
def test_pages_that_only_change_are_not_there_for_a_read_only_admin(browser: As, path: str) -> None:
    browser("vera").open(path, 404)


@pytest.mark.parametrize("path", CHANGES)
def test_read_only_admin_is_refused_every_change(browser: As, path: str) -> None:
    assert browser("vera").post(path, team_alias="x", email="x@example.com", name="x", role="user").status_code == 403


@pytest.mark.parametrize("path", [*PAGES, *CONTROLS])
@pytest.mark.parametrize("who", ["mel", "vic"])
def test_for_members_and_viewers_there_is_no_administration(browser: As, who: str, path: str) -> None:
    browser(who).open(path, 404)


@pytest.mark.parametrize("path", [*CHANGES, "/admin/find/people", "/admin/find/teams"])
def test_members_change_nothing_there(browser: As, path: str) -> None:
    assert browser("mel").post(path).status_code == 404


@pytest.mark.parametrize("path", NOBODY)
def test_wrong_id_is_not_found(browser: As, path: str) -> None:
    browser("ada").open(path, 404)
    assert browser("ada").post(path).status_code == 404


@pytest.mark.parametrize("path", CHANGES)
def test_every_change_needs_a_csrf_token(signed_in: SignedIn, path: str) -> None:
    assert signed_in("ada").ask("POST", path, data={"team_alias": "x"}).status_code == 400


def test_opening_confirmation_pages_changes_nothing(browser: As, write: Write, group_id: str) -> None:
    ada = browser("ada")
    for path in (f"/admin/teams/{CREW}/delete", "/admin/users/mel/delete", f"/admin/groups/{group_id}/delete"):
        ada.open(path)
    with write() as session:
        assert teams.get_team(session, OPERATOR, CREW)
        assert people.get_user(session, OPERATOR, "mel")
        assert access_groups.get_group(session, OPERATOR, group_id)


# Teams


def test_team_is_added_by_name_and_opened(browser: As) -> None:
    ada = browser("ada")
    answer = ada.send("/admin/teams/new", team_alias="  Data  ")
    assert answer.status_code == CHANGED
    assert "Data" in text_of(ada.open(urlsplit(answer.location).path))


def test_taken_team_name_comes_back_beside_what_was_typed(browser: As) -> None:
    answer = browser("ada").send("/admin/teams/new", team_alias="crew")
    soup = look_at(answer)
    assert answer.status_code == 422
    assert soup.select_one("#team_alias")["value"] == "crew"
    assert "already" in text_of(soup.select_one("#team_alias-error"))


def test_team_without_a_name_is_refused(browser: As) -> None:
    answer = browser("ada").send(f"/admin/teams/{CREW}", team_alias=" ")
    assert answer.status_code == 422
    assert "needs a name" in text_of(look_at(answer).select_one("#team_alias-error"))


def test_team_is_granted_servers_and_groups(browser: As, write: Write, group_id: str) -> None:
    with write() as session:
        make_server(session, "wiki")
    path = f"/admin/teams/{CREW}"
    answer = browser("ada").send(path, team_alias="Crew 2", servers=[NOTES, "id-wiki"], groups=["writing"])
    assert answer.status_code == CHANGED
    with write() as session:
        team = teams.get_team(session, OPERATOR, CREW)
    assert team.team_alias == "Crew 2"
    assert set(team.object_permission.mcp_servers) == {NOTES, "id-wiki"}
    assert team.object_permission.mcp_access_groups == ("writing",)
    assert {member.user_id for member in team.members_with_roles} == {"mel", "vic"}


def test_tool_permissions_are_shown_and_survive_a_save(browser: As, write: Write) -> None:
    with write() as session:
        permission = ObjectPermission(mcp_servers=(NOTES,), mcp_tool_permissions={NOTES: ("read_note",)})
        teams.change_team(session, OPERATOR, CREW, {}, permission)
    ada, path = browser("ada"), f"/admin/teams/{CREW}"
    assert "read_note" in text_of(ada.open(path))
    assert ada.send(path, servers=[]).status_code == CHANGED
    with write() as session:
        kept = teams.get_team(session, OPERATOR, CREW).object_permission
    assert kept.mcp_tool_permissions == {NOTES: ("read_note",)}
    assert kept.mcp_servers == ()


def test_saving_a_name_keeps_the_limit_of_a_deleted_server(browser: As, write: Write, client: SignedIn) -> None:
    with write() as session:
        make_server(session, "wiki")
        make_team(session, "bound", members=("otto",), mcp_servers=("id-wiki",))
        draft = KeyDraft(user_id="otto", team_id="team-bound", object_permission=ObjectPermission(mcp_servers=(NOTES,)))
        keys.issue_key(session, OPERATOR, draft, secret="sk-SECRET-of-otto-and-bound")
        servers.delete_server(session, OPERATOR, "id-wiki")
    assert browser("ada").send("/admin/teams/team-bound", team_alias="Bound").status_code == CHANGED
    assert client("sk-SECRET-of-otto-and-bound").get("/v1/mcp/server").json == []


def test_person_joins_changes_role_and_leaves(browser: As, write: Write) -> None:
    ada, path = browser("ada"), f"/admin/teams/{CREW}"
    members = f"{path}/members"
    assert ada.send(path, members, user_id="otto", role="user").status_code == CHANGED
    assert ada.post(members, user_id="otto", role="admin").status_code == CHANGED
    with write() as session:
        roles = {m.user_id: m.role for m in teams.get_team(session, OPERATOR, CREW).members_with_roles}
    assert roles == {"mel": "user", "vic": "user", "otto": "admin"}
    assert ada.send(path, f"{members}/otto/remove").status_code == CHANGED
    with write() as session:
        assert len(teams.get_team(session, OPERATOR, CREW).members_with_roles) == 2


def test_member_form_without_a_person_says_so(browser: As) -> None:
    answer = browser("ada").send(f"/admin/teams/{CREW}", f"/admin/teams/{CREW}/members")
    assert answer.status_code == 422
    assert "Choose a person" in text_of(look_at(answer).select_one("#user_id-error"))


def test_deleting_a_team_says_who_is_cut_off_and_does_it(browser: As) -> None:
    ada, path = browser("ada"), f"/admin/teams/{CREW}/delete"
    said = text_of(ada.open(path))
    assert "Mel, Vic" in said
    assert "API keys deleted with it 3" in said
    assert ada.send(path).status_code == CHANGED
    ada.open(f"/admin/teams/{CREW}", 404)


def test_lists_are_searched_and_say_when_nothing_matches(browser: As) -> None:
    ada = browser("ada")
    assert "crew" in text_of(ada.open("/admin/teams?q=CRE").select_one("#results"))
    assert "No team matches" in text_of(ada.open("/admin/teams?q=%25"))
    assert text_of(ada.open("/admin/users?q=otto").select_one("#results")).count("@example.com") == 1
    assert "No access groups yet" in text_of(ada.open("/admin/groups"))


def test_long_list_goes_on_behind_its_cursor(browser: As, write: Write) -> None:
    with write() as session:
        for number in range(60):
            make_team(session, f"t{number:02}")
    ada = browser("ada")
    first = ada.open("/admin/teams")
    after = first.select_one("a[rel=next]")
    assert after
    second = ada.open(str(after["href"]))
    names = {text_of(row) for soup in (first, second) for row in soup.select("tbody th")}
    assert len(names) == 61


def test_htmx_gets_the_results_only(browser: As) -> None:
    answer = browser("ada").client.get("/admin/teams?q=cr", headers={"HX-Request": "true"})
    assert "<html" not in answer.get_data(as_text=True)
    assert "crew" in answer.get_data(as_text=True)


# Find boxes


def test_find_box_shows_matches_keeps_ticks_and_saves_nothing(browser: As, write: Write) -> None:
    with write() as session:
        for number in range(60):
            make_server(session, f"s{number:02}")
        make_server(session, "zebra")
    ada, path = browser("ada"), f"/admin/teams/{CREW}"
    offered = ada.open(path).select("#servers-options input")
    assert len(offered) == 50
    answer = ada.send(path, press="look", find="ZEB", team_alias="typed", servers=[NOTES, "id-s01"])
    form = look_at(answer)
    ticks = {str(box["value"]): box.has_attr("checked") for box in form.select("#servers-options input")}
    assert answer.status_code == 200
    assert ticks == {NOTES: True, "id-s01": True, "id-zebra": False}
    assert form.select_one("#team_alias")["value"] == "typed"
    with write() as session:
        assert teams.get_team(session, OPERATOR, CREW).team_alias == "crew"


def test_enter_in_a_find_box_finds_and_does_not_save(browser: As, write: Write) -> None:
    answer = browser("ada").send("/admin/groups/new", press="nothing", name="typed", find="not")
    assert answer.status_code == 200
    with write() as session:
        assert not access_groups.list_groups(session, OPERATOR).items


def test_find_boxes_answer_while_one_types(browser: As) -> None:
    ada = browser("ada")
    assert "Otto" in ada.post("/admin/find/people", find_person="ott").get_data(as_text=True)
    assert "crew" in ada.post("/admin/find/teams", find_team="cr").get_data(as_text=True)
    assert "notes" in ada.post("/keys/find/servers", find="no").get_data(as_text=True)


def test_find_box_offers_members_only_what_they_can_use(browser: As, write: Write) -> None:
    with write() as session:
        make_server(session, "wiki")
    values = {str(box["value"]) for box in browser("mel").open("/keys/new").select("#servers-options input")}
    assert values == {NOTES}


# Users


def test_new_user_signs_in_with_the_made_password_and_must_change_it(browser: As, app: Any) -> None:
    answer = browser("ada").send(
        "/admin/users/new", email=" New@Example.com ", display_name="New", role="internal_user"
    )
    password = text_of(look_at(answer).select_one("#one-time-password"))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert re.fullmatch(r"([a-z2-9]{5}-){3}[a-z2-9]{5}", password)
    assert signed_in_place(app, "new@example.com", password) == "/profile/password"


def test_typed_password_is_never_sent_back(browser: As) -> None:
    answer = browser("ada").send("/admin/users/new", email="mel@example.com", password="typed SECRET words")
    assert answer.status_code == 422
    assert "Somebody has this e-mail" in text_of(look_at(answer).select_one("#email-error"))
    assert "typed SECRET words" not in answer.get_data(as_text=True)


def test_short_password_and_odd_mail_land_on_their_fields(browser: As) -> None:
    ada = browser("ada")
    short = look_at(ada.send("/admin/users/new", email="a@b.local", password="short"))
    assert "10 characters" in text_of(short.select_one("#password-error"))
    odd = look_at(ada.send("/admin/users/new", email="nobody"))
    assert "ada@example.com" in text_of(odd.select_one("#email-error"))


def test_user_is_changed_and_granted_a_server(browser: As, write: Write) -> None:
    answer = browser("ada").send(
        "/admin/users/otto", display_name="Ottilie", role="internal_user_viewer", servers=[NOTES]
    )
    assert answer.status_code == CHANGED
    with write() as session:
        otto = people.get_user(session, OPERATOR, "otto")
    assert (otto.display_name, otto.role, otto.is_active) == ("Ottilie", "internal_user_viewer", True)
    assert otto.object_permission.mcp_servers == (NOTES,)


def test_switching_a_person_off_signs_them_out(browser: As) -> None:
    mel, ada = browser("mel"), browser("ada")
    form = filled_in(ada.open("/admin/users/mel").select_one('form[action="/admin/users/mel"]'))
    del form["is_active"]
    assert ada.client.ask("POST", "/admin/users/mel", data=form).status_code == CHANGED
    assert mel.client.get("/servers").status_code == CHANGED


def test_last_admin_stays_admin(browser: As) -> None:
    answer = browser("ada").send("/admin/users/ada", role="internal_user")
    assert answer.status_code == 422
    assert "last Admin" in text_of(look_at(answer).select_one("#role"))


def test_new_one_time_password_replaces_the_old(browser: As, app: Any) -> None:
    answer = browser("ada").send("/admin/users/otto", "/admin/users/otto/password")
    password = text_of(look_at(answer).select_one("#one-time-password"))
    assert signed_in_place(app, "otto@example.com", password) == "/profile/password"
    assert signed_in_place(app, "otto@example.com", PASSWORD) is None


def test_person_without_a_mail_can_be_edited(browser: As, write: Write) -> None:
    with write() as session:
        people.create_user(session, OPERATOR, {"user_id": "sso", "display_name": "Sso"})
    assert browser("ada").send("/admin/users/sso", display_name="Saved").status_code == CHANGED


def test_deleting_a_user_says_what_goes_and_does_it(browser: As) -> None:
    ada, path = browser("ada"), "/admin/users/mel/delete"
    said = text_of(ada.open(path))
    assert "Teams they leave crew" in said
    assert "API keys deleted 2" in said
    assert ada.send(path).status_code == CHANGED
    ada.open("/admin/users/mel", 404)


# Access groups


def test_group_is_added_changed_and_deleted(browser: As, write: Write) -> None:
    ada = browser("ada")
    answer = ada.send("/admin/groups/new", name="Writing", description="Texts", servers=[NOTES])
    path = urlsplit(answer.location).path
    assert "notes" in text_of(ada.open(path))
    assert ada.send(path, name="Texts", description="", servers=[]).status_code == CHANGED
    with write() as session:
        (group,) = access_groups.list_groups(session, OPERATOR).items
    assert (group.name, group.description, group.mcp_server_ids) == ("Texts", None, ())
    assert ada.send(f"{path}/delete").status_code == CHANGED
    ada.open(path, 404)


def test_group_page_names_who_has_it(browser: As, write: Write, group_id: str) -> None:
    with write() as session:
        teams.change_team(session, OPERATOR, CREW, {}, ObjectPermission(mcp_access_groups=("writing",)))
    assert "Teams crew" in text_of(browser("vera").open(f"/admin/groups/{group_id}"))
    assert "Teams crew" in text_of(browser("ada").open(f"/admin/groups/{group_id}/delete"))


def test_server_that_is_gone_lands_on_its_field(browser: As) -> None:
    answer = browser("ada").send("/admin/groups/new", name="Typed", servers=["gone"])
    soup = look_at(answer)
    assert answer.status_code == 422
    assert "no MCP server gone" in text_of(soup.select_one("#servers-error"))
    assert soup.select_one("#name")["value"] == "Typed"


# API keys


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
    assert "Name it" in text_of(look_at(mel.send("/keys/new", key_alias="")).select_one("#key_alias-error"))
    soup = look_at(mel.send("/keys/new", key_alias="typed", allowed_routes="/admin\n"))
    assert "/v1/" in text_of(soup.select_one("#allowed_routes-error"))
    assert soup.select_one("#key_alias")["value"] == "typed"


def test_own_key_reaches_no_further_than_its_maker(browser: As, write: Write) -> None:
    with write() as session:
        make_server(session, "wiki")
        make_team(session, "others")
    mel = browser("mel")
    assert mel.send("/keys/new", key_alias="x", servers=["id-wiki"]).status_code == 403
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
    assert answer.status_code == 422
    assert "belongs to" in text_of(look_at(answer).select_one("#user_id-error"))


def test_no_page_shows_a_key(browser: As) -> None:
    ada = browser("ada")
    for path in ("/admin/keys", "/keys", "/admin/users/mel", f"/admin/teams/{CREW}"):
        shown = str(ada.open(path))
        assert not [key for key in KEYS.values() if key in shown]
        assert PASSWORD not in shown


def signed_in_place(app: Any, email: str, password: str) -> str | None:
    """Where a person who signs in ends up; None where they are not let in."""
    browser = app.test_client()
    token = BeautifulSoup(browser.get("/login").get_data(as_text=True), "html.parser").select_one(
        "input[name=csrf_token]"
    )
    fields = {"email": email, "password": password, "csrf_token": token["value"]}
    if browser.post("/login", data=fields).status_code != CHANGED:
        return None
    return urlsplit(browser.get("/servers").location).path
