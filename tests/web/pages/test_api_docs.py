"""The API to read: every operation is in the list and has a page that tells how it is called."""

from collections.abc import Callable

import pytest
from flask import Flask

from portal.web import openapi
from tests.support.browsing import Browser, text_of

Browsing = Callable[[str], Browser]


def test_every_operation_is_listed_under_its_tag_and_has_a_page(
    browser: Browsing, app: Flask
) -> None:
    vic = browser("vic")
    listed = vic.open("/docs/api")
    addresses = {link["href"] for link in listed.select("#results a")}
    said = {
        f"/docs/api/{found['operationId']}"
        for methods in openapi.document(app)["paths"].values()
        for found in methods.values()
    }
    assert addresses == said
    for address in sorted(said):
        page = vic.open(address)
        ids = [tag["id"] for tag in page.select("[id]")]
        assert len(ids) == len(set(ids)), address
        for link in page.select('main a[href^="#"]'):
            assert page.find(id=link["href"][1:]), (address, link["href"])


def test_a_page_tells_path_parameters_body_answers_and_a_call_that_can_be_pasted(
    browser: Browsing,
) -> None:
    page = browser("mel").open("/docs/api/teams_put_member")
    curl = text_of(page.find(id="curl"))
    assert curl.startswith("curl -X POST http://127.0.0.1:8000/v1/teams/TEAM_ID/members")
    assert '-H "Authorization: Bearer $PORTAL_KEY"' in curl
    assert """-d '{"user_id": "ada", "role": "user"}'""" in curl
    text = text_of(page)
    for said in (
        "team_id Required path",
        "Member . For example:",
        "201 Created Team",
        "422",
        "not_found",
        "TeamMember",
    ):
        assert said in text, said


def test_what_needs_no_key_says_so_and_its_call_sends_none(browser: Browsing) -> None:
    page = browser("mel").open("/docs/api/registry_gateway")
    assert "No credentials needed" in text_of(page)
    assert "Bearer" not in text_of(page.find(id="curl"))


@pytest.mark.parametrize(
    ("q", "found"), [("put toolset", 1), ("AUDIT", 2), ("/v1/mcp/tools/call", 1), ("zebra", 0)]
)
def test_the_search_wants_every_word_and_needs_no_script(
    browser: Browsing, q: str, found: int
) -> None:
    page = browser("mel").open(f"/docs/api?q={q}")
    assert len(page.select("#results tbody tr")) == found
    assert page.find("input", id="q")["value"] == q
    assert ("No matching operations" in text_of(page)) is (found == 0)


def test_an_operation_that_does_not_exist_is_not_found(browser: Browsing) -> None:
    browser("mel").open("/docs/api/users_conquer", 404)
