"""A person in front of the pages, without a screen: opens them, fills in forms as they stand there,
sends them."""

import re
from typing import Any

from bs4 import BeautifulSoup, Tag
from werkzeug.test import TestResponse

from tests.conftest import Client
from tests.support.html import filled, parse

CHANGED = 303


class Browser:
    """What `signed_in("ada")` gives, with eyes and hands."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def open(self, path: str, status: int = 200, **options: Any) -> BeautifulSoup:
        """The page at `path`."""
        return look_at(self.client.get(path, **options), status)

    def form(self, path: str, action: str | None = None) -> Tag:
        """The form of the page at `path` that goes to `action` (itself): the last one, behind those
        in list rows."""
        forms = self.open(path).select(f'main form[method=post][action="{action or path}"]')
        assert forms, f"{path} has no form to {action or path}"
        return forms[-1]

    def send(
        self, path: str, action: str | None = None, press: str = "save", **changes: Any
    ) -> TestResponse:
        """Send that form with `changes` to what is filled in; None leaves a field out."""
        form = self.form(path, action)
        button = form.select_one(f"button[name={press}]")
        pressed = {press: button.get("value", "")} if button else {}
        return self.client.ask("POST", action or path, data={**filled(form, **changes), **pressed})

    def post(self, path: str, **fields: Any) -> TestResponse:
        """Send fields of one's own making, with a CSRF token of this session."""
        token = self.open("/profile").select_one("input[name=csrf_token]")
        assert token
        return self.client.ask("POST", path, data={"csrf_token": token["value"], **fields})


def look_at(answer: TestResponse, status: int = 200) -> BeautifulSoup:
    """The page, where everything to fill in has a label."""
    # A list of keys shows how each begins, and those of the tests begin with the word that no page
    # may hold.
    answer.set_data(re.sub(r"sk-SECRET-(?![\w-])", "sk-", answer.get_data(as_text=True)))
    page = parse(answer, status)
    labels = {label.get("for") for label in page.find_all("label")} - {None}
    for field in page.find_all(["input", "select", "textarea"]):
        if field.name == "input" and field.get("type") == "hidden":
            continue
        labeled = field.find_parent("label") or field.get("aria-label")
        assert labeled or field.get("id") in labels, field
    return page


def text_of(part: BeautifulSoup | Tag | None) -> str:
    """The words of a page or of a part of it, which must be there."""
    assert part is not None
    return " ".join(part.get_text(" ").split())


def sign_in(app: Any, email: str, password: str) -> str | None:
    """Where somebody who signs in is led when they open the servers; None where they are not let
    in."""
    browser = app.test_client()
    token = parse(browser.get("/login")).select_one("input[name=csrf_token]")
    assert token
    fields = {"email": email, "password": password, "csrf_token": token["value"]}
    if browser.post("/login", data=fields).status_code != CHANGED:
        return None
    place: str = browser.get("/servers").location
    return place
