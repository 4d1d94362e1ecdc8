"""The pages of teams."""

from collections.abc import Callable
from urllib.parse import urlsplit

from portal.domain.principals import OPERATOR
from portal.services.access import keys, teams
from portal.services.access.keys import KeyDraft
from portal.services.servers import crud
from portal.services.servers.grants import ObjectPermission
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of
from tests.support.factories import make_server, make_team

SignedIn = Callable[[str], Client]
As = Callable[[str], Browser]


def test_team_is_added_by_name_and_opened(browser: As) -> None:
    ada = browser("ada")
    answer = ada.send("/admin/teams/new", team_alias="  Data  ")
    assert answer.status_code == CHANGED
    assert "Data" in text_of(ada.open(urlsplit(answer.location).path))


def test_taken_team_name_comes_back_beside_what_was_typed(browser: As) -> None:
    answer = browser("ada").send("/admin/teams/new", team_alias="crew")
    soup = look_at(answer, 422)
    assert soup.select_one("#team_alias")["value"] == "crew"
    assert "already" in text_of(soup.select_one("#team_alias-error"))


def test_team_without_a_name_is_refused(browser: As) -> None:
    answer = browser("ada").send(f"/admin/teams/{CREW}", team_alias=" ")
    assert "Enter a name for the team" in text_of(
        look_at(answer, 422).select_one("#team_alias-error")
    )


def test_team_is_granted_servers_and_groups(browser: As, write: Write, group_id: str) -> None:
    with write() as session:
        make_server(session, "wiki")
    path = f"/admin/teams/{CREW}"
    answer = browser("ada").send(
        path, team_alias="Crew 2", servers=[NOTES, "id-wiki"], groups=["writing"]
    )
    assert answer.status_code == CHANGED
    with write() as session:
        team = teams.get_team(session, OPERATOR, CREW)
    assert team.team_alias == "Crew 2"
    assert set(team.object_permission.mcp_servers) == {NOTES, "id-wiki"}
    assert team.object_permission.mcp_access_groups == ("writing",)
    assert {member.user_id for member in team.members_with_roles} == {"mel", "vic"}


def test_tool_permissions_are_shown_and_survive_a_save(browser: As, write: Write) -> None:
    with write() as session:
        permission = ObjectPermission(
            mcp_servers=(NOTES,), mcp_tool_permissions={NOTES: ("read_note",)}
        )
        teams.change_team(session, OPERATOR, CREW, {}, permission)
    ada = browser("ada")
    path = f"/admin/teams/{CREW}"
    assert "read_note" in text_of(ada.open(path))
    assert ada.send(path, servers=[]).status_code == CHANGED
    with write() as session:
        kept = teams.get_team(session, OPERATOR, CREW).object_permission
    assert kept.mcp_tool_permissions == {NOTES: ("read_note",)}
    assert kept.mcp_servers == ()


def test_saving_a_name_keeps_the_limit_of_a_deleted_server(
    browser: As, write: Write, client: SignedIn
) -> None:
    with write() as session:
        make_server(session, "wiki")
        make_team(session, "bound", members=("otto",), mcp_servers=("id-wiki",))
        draft = KeyDraft(
            user_id="otto",
            team_id="team-bound",
            object_permission=ObjectPermission(mcp_servers=(NOTES,)),
        )
        keys.issue_key(session, OPERATOR, draft, secret="sk-SECRET-of-otto-and-bound")
        crud.delete_server(session, OPERATOR, "id-wiki")
    assert browser("ada").send("/admin/teams/team-bound", team_alias="Bound").status_code == CHANGED
    assert client("sk-SECRET-of-otto-and-bound").get("/v1/mcp/server").json == []


def test_person_joins_changes_role_and_leaves(browser: As, write: Write) -> None:
    ada = browser("ada")
    path = f"/admin/teams/{CREW}"
    members = f"{path}/members"
    assert ada.send(path, members, user_id="otto", role="user").status_code == CHANGED
    assert ada.post(members, user_id="otto", role="admin").status_code == CHANGED
    with write() as session:
        roles = {
            m.user_id: m.role for m in teams.get_team(session, OPERATOR, CREW).members_with_roles
        }
    assert roles == {"mel": "user", "vic": "user", "otto": "admin"}
    assert ada.send(path, f"{members}/otto/remove").status_code == CHANGED
    with write() as session:
        assert len(teams.get_team(session, OPERATOR, CREW).members_with_roles) == 2


def test_member_form_without_a_person_says_so(browser: As) -> None:
    answer = browser("ada").send(f"/admin/teams/{CREW}", f"/admin/teams/{CREW}/members")
    assert "Select a user" in text_of(look_at(answer, 422).select_one("#user_id-error"))


def test_deleting_a_team_says_who_is_cut_off_and_does_it(browser: As) -> None:
    ada = browser("ada")
    path = f"/admin/teams/{CREW}/delete"
    said = text_of(ada.open(path))
    assert "Mel, Vic" in said
    assert "API keys deleted with the team 3" in said
    assert ada.send(path).status_code == CHANGED
    ada.open(f"/admin/teams/{CREW}", 404)


def test_lists_are_searched_and_say_when_nothing_matches(browser: As) -> None:
    ada = browser("ada")
    assert "crew" in text_of(ada.open("/admin/teams?q=CRE").select_one("#results"))
    assert "No matching teams" in text_of(ada.open("/admin/teams?q=%25"))
    assert (
        text_of(ada.open("/admin/users?q=otto").select_one("#results")).count("@example.com") == 1
    )
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
