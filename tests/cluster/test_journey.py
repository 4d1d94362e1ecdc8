"""A person before a browser does not see that there are several portals."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.cluster.topology import Cluster
from tests.support.factories import PASSWORD


@pytest.mark.usefixtures("database")
def test_sign_in_edit_a_server_and_see_it(
    running: Cluster, browser_page_factory: Callable[..., Page]
) -> None:
    served: set[str] = set()
    page = browser_page_factory()
    page.on("response", lambda answer: served.add(answer.headers.get("x-served-by", "")))
    page.goto(f"{running.url}/login")
    page.get_by_label("Email").fill("ada@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.goto(f"{running.url}/servers/id-notes/edit")
    page.get_by_label("Description").first.fill("Seen through two portals")
    page.get_by_role("button", name="Save").first.click()
    page.wait_for_url(f"{running.url}/servers/id-notes*")
    page.reload()
    expect(page.get_by_text("Seen through two portals").first).to_be_visible()
    assert {f"127.0.0.1:{member.port}" for member in running.web} <= served
