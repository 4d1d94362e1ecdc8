"""LiteLLM's dashboard links lead to the pages that show the same here, and nowhere else."""

from collections.abc import Callable

import pytest
from flask import Flask

from portal.web.pages.old_addresses import PAGES
from tests.conftest import Client, _csrf_token
from tests.support.factories import PASSWORD

SignedIn = Callable[[str], Client]


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("/ui/?page=mcp-servers&fill_env_vars=id-notes", "/credentials/id-notes"),
        ("/ui?page=mcp-servers&fill_env_vars=id-notes", "/credentials/id-notes"),
        ("/ui/index.html?page=mcp-servers&fill_env_vars=id-notes", "/credentials/id-notes"),
        ("/ui/?fill_env_vars=notes", "/credentials/notes"),
        ("/ui/mcp-servers?fill_env_vars=no-such-id", "/credentials/no-such-id"),
        (
            "/ui/?x=1&fill_env_vars=a%26b%3Fc%23d&page=mcp-servers&next=//evil.example",
            "/credentials/a&b%3Fc%23d",
        ),
        ("/ui/?page=mcp-servers&fill_env_vars=%C3%BC", "/credentials/%C3%BC"),
        ("/ui/?page=mcp-servers", "/servers"),
        ("/ui/", "/servers"),
        ("/ui", "/servers"),
        ("/ui/?page=mcp-servers&fill_env_vars=", "/servers"),
        ("/ui/mcp-servers/", "/servers"),
        ("/ui/?page=api-keys", "/keys"),
        ("/ui/?page=api-keys&fill_env_vars=x", "/keys"),
        ("/ui/?page=users", "/admin/users"),
        ("/ui/logs.html", "/admin/audit"),
    ],
)
def test_an_old_address_leads_to_its_page(signed_in: SignedIn, address: str, target: str) -> None:
    answer = signed_in("mel").get(address)
    assert (answer.status_code, answer.headers["Location"]) == (302, target)


@pytest.mark.parametrize(
    "address",
    [
        "/ui/?page=nothing",
        "/ui/nothing",
        "/ui/?page=//evil.example",
        "/ui/?page=..",
        *(
            f"/ui/?page=mcp-servers&fill_env_vars={bad}"
            for bad in (
                "..",
                ".",
                "//evil.example",
                "%2F%2Fevil.example",
                "a%2F..%2Fb",
                "%0d%0aX:1",
                "a%20b",
                "x" * 200,
            )
        ),
    ],
)
def test_what_is_no_page_is_not_there(signed_in: SignedIn, address: str) -> None:
    answer = signed_in("mel").get(address)
    assert answer.status_code == 404
    assert "evil" not in answer.headers.get("Location", "")


def test_every_target_is_a_page_that_an_admin_can_open(signed_in: SignedIn, app: Flask) -> None:
    ada = signed_in("ada")
    for name in PAGES:
        target = ada.get(f"/ui/?page={name}").headers["Location"]
        assert ada.get(target).status_code == (404 if target == "/hub" else 200), name


def test_who_is_signed_out_signs_in_first_and_is_led_on(app: Flask) -> None:
    browser = app.test_client()
    address = "/ui/?page=mcp-servers&fill_env_vars=id-notes"
    asked = browser.get(address)
    assert asked.status_code == 303
    page = browser.get(asked.headers["Location"])
    fields = {
        "email": "mel@example.com",
        "password": PASSWORD,
        "csrf_token": _csrf_token(page),
        "next": address,
    }
    answer = browser.post(asked.headers["Location"], data=fields)
    assert (answer.status_code, answer.headers["Location"]) == (303, address)
    assert browser.get(address).headers["Location"] == "/credentials/id-notes"
