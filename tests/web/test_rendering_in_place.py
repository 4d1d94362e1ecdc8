"""Forms that htmx sends in the browser's place: they stay on the page where that is where the
answer leads."""

from collections.abc import Callable

import pytest

from tests.conftest import CREW, Client

SignedIn = Callable[[str], Client]
TEAM = f"/admin/teams/{CREW}"


def sent(current: str) -> dict[str, str]:
    return {
        "HX-Request": "true",
        "HX-Boosted": "true",
        "HX-Current-URL": f"http://127.0.0.1:8000{current}",
    }


@pytest.mark.parametrize(
    ("current", "in_place"),
    [(TEAM, True), (f"{TEAM}?find=no", True), ("/admin/teams", False), ("", False)],
)
def test_a_save_changes_the_page_in_place_where_the_person_is_on_it(
    signed_in: SignedIn, current: str, in_place: bool
) -> None:
    ada = signed_in("ada").with_csrf()
    answer = ada.post(
        TEAM,
        data={"team_alias": "Crew", "servers": "id-notes", "save": "yes"},
        headers=sent(current),
    )
    if in_place:
        assert (answer.status_code, answer.headers["Location"]) == (303, TEAM)
    else:
        assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, TEAM)


def test_an_error_goes_beside_the_form_and_not_in_its_place(signed_in: SignedIn) -> None:
    ada = signed_in("ada")
    answer = ada.post(
        TEAM, data={"team_alias": "Crew", "save": "yes", "csrf_token": "old"}, headers=sent(TEAM)
    )
    assert (answer.status_code, answer.headers["HX-Retarget"], answer.headers["HX-Reswap"]) == (
        400,
        "#alerts",
        "innerHTML",
    )
    assert "<html" not in answer.get_data(as_text=True)
