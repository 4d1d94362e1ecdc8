"""The pages of access groups."""

from collections.abc import Callable
from urllib.parse import urlsplit

from portal.domain.principals import OPERATOR
from portal.services.access import access_groups, teams
from portal.services.servers.grants import ObjectPermission
from tests.conftest import CREW, NOTES, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of

As = Callable[[str], Browser]


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
        teams.change_team(
            session, OPERATOR, CREW, {}, ObjectPermission(mcp_access_groups=("writing",))
        )
    assert "Teams crew" in text_of(browser("vera").open(f"/admin/groups/{group_id}"))
    assert "Teams crew" in text_of(browser("ada").open(f"/admin/groups/{group_id}/delete"))


def test_server_that_is_gone_lands_on_its_field(browser: As) -> None:
    answer = browser("ada").send("/admin/groups/new", name="Typed", servers=["gone"])
    soup = look_at(answer, 422)
    assert "no MCP server called gone" in text_of(soup.select_one("#servers-error"))
    assert soup.select_one("#name")["value"] == "Typed"
