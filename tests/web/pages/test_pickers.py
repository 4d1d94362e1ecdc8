"""Find boxes in forms: they find, keep what is ticked and save nothing."""

from collections.abc import Callable

from portal.domain.principals import OPERATOR
from portal.services.access import access_groups, teams
from tests.conftest import CREW, NOTES, Write
from tests.support.browsing import Browser, look_at
from tests.support.factories import make_server

As = Callable[[str], Browser]


def test_find_box_shows_matches_keeps_ticks_and_saves_nothing(browser: As, write: Write) -> None:
    with write() as session:
        for number in range(60):
            make_server(session, f"s{number:02}")
        make_server(session, "zebra")
    ada = browser("ada")
    path = f"/admin/teams/{CREW}"
    offered = ada.open(path).select("#servers-options input")
    assert len(offered) == 50
    answer = ada.send(path, press="look", find="ZEB", team_alias="typed", servers=[NOTES, "id-s01"])
    form = look_at(answer)
    ticks = {
        str(box["value"]): box.has_attr("checked") for box in form.select("#servers-options input")
    }
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
    values = {
        str(box["value"])
        for box in browser("mel").open("/keys/new").select("#servers-options input")
    }
    assert values == {NOTES}
