"""The picker of services with an OpenAPI document, the preview of any other, and the form that they
fill in."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from portal.services.catalog import openapi
from portal.services.catalog.openapi import FILE
from tests.conftest import Client, Write
from tests.support.browsing import CHANGED, Browser, look_at, text_of
from tests.support.described import Service, document, pet_store
from tests.support.factories import make_server
from tests.support.html import filled

PATH = "/servers/openapi"
NEW = "/servers/new"
Browsing = Callable[[str], Browser]


@pytest.fixture
def pets() -> Iterator[Service]:
    with pet_store() as service:
        yield service


def cards(page: Any) -> list[str]:
    return [card["id"].removeprefix("api-") for card in page.select("li.card")]


def one_each(form: Any) -> dict[str, str]:
    return {
        name: value[0] if isinstance(value, list) else value for name, value in filled(form).items()
    }


def error_at(page: Any, field: str) -> str:
    return text_of(page.select_one(f"#{field}-error"))


def test_admins_add_readers_look_and_others_find_nothing(browser: Browsing) -> None:
    ada = browser("ada").open(PATH)
    vera = browser("vera").open(PATH)
    assert cards(ada) == cards(vera)
    assert len(cards(ada)) == 10
    assert ada.find("a", href="/servers/new?from=openapi:figma")
    assert not vera.select('a[href^="/servers/new"], main form[method=post]')
    for name in ("mel", "vic", "otto"):
        browser(name).open(PATH, 404)
        assert not browser(name).open("/servers").select(f'a[href="{PATH}"]')


def test_the_search_is_in_the_address(browser: Browsing) -> None:
    assert cards(browser("ada").open(f"{PATH}?q=jql")) == ["atlassian"]
    assert "No matching services" in text_of(browser("ada").open(f"{PATH}?q=nonsense").main)


def test_dis_05_without_the_list_documents_can_still_be_looked_into(
    browser: Browsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openapi, "FILE", FILE.with_name("not-there.json"))
    page = browser("ada").open(PATH)
    assert "Catalog unavailable" in text_of(page.main)
    assert page.select_one("input[name=spec_url]")


def test_dis_06_a_well_known_service_fills_in_the_form(browser: Browsing) -> None:
    page = browser("ada").open(f"{NEW}?from=openapi:figma")
    given = one_each(page.select_one(f'main form[action^="{NEW}"]'))
    assert (given["transport"], given["auth_type"], given["base_url"]) == (
        "openapi",
        "oauth2",
        "https://api.figma.com",
    )
    assert given["spec_path"].endswith("/figma/rest-api-spec/main/openapi/openapi.yaml")
    assert given["token_url"] == "https://www.figma.com/api/oauth/token"
    assert given["oauth2_flow"] == "authorization_code"
    assert (
        browser("ada")
        .open(f"{NEW}?from=openapi:nonsense")
        .select_one("input[name=spec_path]")["value"]
        == ""
    )


def test_from_the_preview_to_a_server_whose_tools_are_called(
    browser: Browsing, pets: Service
) -> None:
    ada = browser("ada")
    page = look_at(ada.post(PATH, spec_url=pets.spec_url))
    assert "Pet store 1.4" in text_of(page.main)
    assert "4 tools. Listing them uses about" in text_of(page.main)
    assert [code.text for code in page.select("table code")] == [
        "list_pets",
        "addPet",
        "getPet",
        "delete_pets_id",
    ]
    sent = filled(page.select_one(f'main form[action="{NEW}"]'))
    form = look_at(ada.client.ask("POST", NEW, data={**sent, "add": "openapi"})).select_one(
        f'main form[action="{NEW}"]'
    )
    given = one_each(form)
    assert (given["server_name"], given["spec_path"]) == ("Pet_store", pets.spec_url)
    assert (given["base_url"], given["auth_type"]) == (f"{pets.origin}/api/v1", "bearer_token")
    saved = ada.client.ask("POST", NEW, data={**given, "auth_type": "none", "save": "yes"})
    assert saved.status_code == CHANGED, saved.get_data(as_text=True)
    server_id = saved.location.rsplit("/", 1)[-1]
    assert "delete_pets_id" in text_of(ada.open(f"/servers/{server_id}/tools?now=1").main)
    played = look_at(
        ada.post("/playground/call", server=server_id, tool="getPet", **{"argument-id": "7"})
    )
    assert "Rex" in text_of(played.main)


def test_a_file_is_looked_into_and_not_kept(browser: Browsing) -> None:
    upload = (
        io.BytesIO(json.dumps(document(info={"title": "Mine", "version": "1"})).encode()),
        "mine.json",
    )
    page = look_at(browser("ada").post(PATH, file=upload))
    assert "Mine" in text_of(page.select_one("#found"))
    assert not page.select(f'main form[action="{NEW}"]')


def test_what_is_wrong_is_told_on_its_field(browser: Browsing, pets: Service) -> None:
    ada = browser("ada")
    assert "Enter the address" in error_at(look_at(ada.post(PATH), 422), "spec_url")
    assert "begin with http" in error_at(
        look_at(ada.post(PATH, spec_url="file:///etc/passwd"), 422), "spec_url"
    )
    assert "not allowed" in error_at(
        look_at(ada.post(PATH, spec_url="http://169.254.169.254/"), 422), "spec_url"
    )
    pets.serve({"swagger": "2.0"})
    assert "Convert it" in error_at(
        look_at(ada.post(PATH, spec_url=pets.spec_url), 422), "spec_url"
    )
    broken = (io.BytesIO(b"openapi: [\n"), "broken.yaml")
    assert "error in line" in error_at(look_at(ada.post(PATH, file=broken), 422), "file")
    large = (io.BytesIO(b"x" * 5_500_000), "large.yaml")
    assert "larger than 5 MB" in error_at(look_at(ada.post(PATH, file=large), 422), "file")
    assert ada.post(PATH, file=(io.BytesIO(b"x" * 7_000_000), "huge.yaml")).status_code == 413


def test_hostile_words_of_a_document_stay_words(browser: Browsing, pets: Service) -> None:
    evil = "<script>alert(1)</script>"
    pets.serve(
        document(info={"title": evil, "version": evil}, paths={"/<b>": {"get": {"summary": evil}}})
    )
    page = look_at(browser("ada").post(PATH, spec_url=pets.spec_url))
    assert not page.select("main script, main b")
    assert evil in text_of(page.select_one("#found"))


def test_a_thousand_operations_make_a_page_of_400_kb(browser: Browsing, pets: Service) -> None:
    pets.serve(
        document(
            paths={
                f"/things/{n}/parts": {"get": {"summary": f"Parts of thing {n}"}}
                for n in range(1_000)
            }
        )
    )
    answer = browser("ada").post(PATH, spec_url=pets.spec_url)
    assert len(look_at(answer).select("table code")) == 1_000
    assert len(answer.get_data()) < 400_000


def test_the_form_asks_for_the_document_and_keeps_what_is_stored(
    browser: Browsing, write: Write, pets: Service, client: Callable[[str], Client]
) -> None:
    ada = browser("ada")
    page = look_at(ada.send(NEW, server_name="pets", transport="openapi"), 422)
    assert error_at(page, "spec_path") == "Enter the URL of the OpenAPI document."
    with write() as session:
        make_server(session, "pets", url=f"{pets.origin}/api/v1", spec_path=pets.spec_url)
    edit = "/servers/id-pets/edit"
    assert ada.send(edit, description="Dogs").status_code == CHANGED
    row = client("ada").get("/v1/mcp/server/id-pets").get_json()
    assert (row["spec_path"], row["url"], row["description"]) == (
        pets.spec_url,
        f"{pets.origin}/api/v1",
        "Dogs",
    )
    assert ada.send(edit, base_url__mode="clear").status_code == CHANGED
    row = client("ada").get("/v1/mcp/server/id-pets").get_json()
    assert (row["spec_path"], row["url"]) == (pets.spec_url, None)
    assert ada.send(edit, transport="http", url="https://mcp.example/mcp").status_code == CHANGED
    row = client("ada").get("/v1/mcp/server/id-pets").get_json()
    assert (row["spec_path"], row["url"]) == (None, "https://mcp.example/mcp")


def test_stored_secrets_are_not_tried_at_another_document(
    browser: Browsing, write: Write, pets: Service
) -> None:
    with write() as session:
        make_server(
            session,
            "pets",
            url=None,
            spec_path=pets.spec_url,
            auth_type="bearer_token",
            credentials={"auth_value": "SECRET-key"},
        )
    with pet_store() as other:
        other.locked = True
        form = filled(browser("ada").form("/servers/id-pets/edit"))
        ada = browser("ada")
        answer = ada.post(
            "/servers/test",
            **{k: v for k, v in form.items() if k != "csrf_token"} | {"spec_path": other.spec_url},
        )
        assert "Enter them again to test this change" in answer.get_data(as_text=True)
        assert other.seen == []


def test_a_member_submits_one_and_the_reviewer_sees_its_tools(
    browser: Browsing, pets: Service
) -> None:
    mel = browser("mel")
    ada = browser("ada")
    sent = mel.send(
        "/submissions/new", server_name="pets", transport="openapi", spec_path=pets.spec_url
    )
    assert sent.status_code == CHANGED, sent.get_data(as_text=True)
    queue = ada.open("/admin/submissions?status=waiting")
    link = queue.select_one('main a[href*="/submissions/"]:-soup-contains("pets")')
    assert link, text_of(queue.main)
    probe = next(
        f["action"]
        for f in ada.open(link["href"]).select("form[action]")
        if f["action"].endswith("/probe")
    )
    assert "getPet" in text_of(look_at(ada.post(probe)))
