"""UI-16: what stands for a server on its card: a picture of ours that an Admin chose, else two
letters."""

from collections.abc import Callable

import pytest

from tests.conftest import NOTES, Client, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of
from tests.support.factories import make_server

Browsing = Callable[[str], Browser]
As = Callable[[str], Client]
EDIT = f"/servers/{NOTES}/edit"


@pytest.mark.parametrize(
    "url",
    [
        "https://pictures.example/a.png",
        "/static/missing.png",
        "/static/portal.css",
        "/static/icons.svg#nothing",
        "/static/../secrets.svg",
        "//pictures.example/a.png",
        "javascript:alert(1)",
        "",
        None,
        7,
        ["/static/favicon.svg"],
    ],
)
def test_ui_16_what_is_no_picture_of_ours_is_two_letters(
    browser: Browsing, write: Write, url: object
) -> None:
    with write() as session:
        make_server(session, "elsewhere", mcp_info={"logo_url": url})
    for path in ("/servers", "/servers?view=table", "/servers/id-elsewhere"):
        page = browser("ada").open(path)
        assert (
            text_of(
                page.select_one(
                    f"{'.head' if path.endswith('elsewhere') else '#server-id-elsewhere'} .logo"
                )
            )
            == "EL"
        )
        assert not page.select("img")


def test_ui_16_a_picture_of_ours_is_shown(browser: Browsing, write: Write) -> None:
    with write() as session:
        make_server(session, "pictured", mcp_info={"logo_url": "/static/favicon.svg"})
    page = browser("ada").open("/servers")
    assert page.select_one("#server-id-pictured img.logo")["src"] == "/static/favicon.svg"
    assert text_of(page.select_one(f"#server-{NOTES} .logo")) == "NO"


def test_ui_16_choosing_one_sets_it_and_choosing_letters_removes_it(
    browser: Browsing, client: As
) -> None:
    ada = browser("ada")
    client("ada").put("/v1/mcp/server", {"server_id": NOTES, "mcp_info": {"owner": "docs team"}})
    assert ada.send(EDIT, logo="database").status_code == CHANGED
    info = client("ada").get(f"/v1/mcp/server/{NOTES}").get_json()["mcp_info"]
    assert (info["logo_url"], info["owner"]) == ("/static/icons.svg#database", "docs team")
    symbol = browser("mel").open("/servers").select_one(f"#server-{NOTES} .logo use")
    assert symbol is not None
    assert symbol["href"].endswith("#database")
    assert ada.open(EDIT).select_one("input[name=logo][checked]")["value"] == "database"
    assert ada.send(EDIT, logo="").status_code == CHANGED
    info = client("ada").get(f"/v1/mcp/server/{NOTES}").get_json()["mcp_info"]
    assert "logo_url" not in info
    assert info["owner"] == "docs team"


def test_ui_16_an_address_set_over_the_api_stays_until_another_is_chosen(
    browser: Browsing, client: As
) -> None:
    ada = browser("ada")
    url = "https://pictures.example/a.png"
    client("ada").put("/v1/mcp/server", {"server_id": NOTES, "mcp_info": {"logo_url": url}})
    assert ada.open(EDIT).select_one("input[name=logo][checked]")["value"] == "other"
    assert ada.send(EDIT, description="changed").status_code == CHANGED
    assert client("ada").get(f"/v1/mcp/server/{NOTES}").get_json()["mcp_info"]["logo_url"] == url
    assert ada.send(EDIT, logo="cloud").status_code == CHANGED
    saved = client("ada").get(f"/v1/mcp/server/{NOTES}").get_json()
    assert saved["mcp_info"]["logo_url"] == "/static/icons.svg#cloud"


def test_a_new_server_can_have_one_and_nothing_else_is_a_choice(
    browser: Browsing, client: As
) -> None:
    ada = browser("ada")
    new = {"server_name": "fresh", "url": "https://a.example"}
    assert "Not a valid choice" in text_of(
        look_at(ada.send("/servers/new", **new, logo="../x"), 422)
    )
    assert ada.send("/servers/new", **new, logo="chat").status_code == CHANGED
    assert (
        client("ada").get("/v1/mcp/server/fresh").get_json()["mcp_info"]["logo_url"]
        == "/static/icons.svg#chat"
    )
