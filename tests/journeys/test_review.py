"""From a Member's wish to a server on their grid, in a real browser (issue 3, point 1)."""

from playwright.sync_api import Page, expect

from tests.journeys.conftest import Portal, SignIn

PASSWORD = "a member's long password"
NAME = "weather"


def add_member(portal: Portal) -> None:
    """Mel, a Member of the team crew."""
    mel = {
        "user_id": "mel",
        "email": "mel@example.com",
        "display_name": "Mel",
        "password": PASSWORD,
    }
    assert portal.api("POST", "/v1/users", mel)[0] == 201
    crew = {"team_alias": "crew", "members_with_roles": [{"user_id": "mel", "role": "user"}]}
    assert portal.api("POST", "/v1/teams", crew)[0] == 201


def press_on_the_first(page: Page, key: str, heading: str) -> None:
    """Go to the first submission of the queue by keyboard, and press `key`; its question comes
    up."""
    page.get_by_role("link", name="Review queue").click()
    expect(page.get_by_role("heading", name="Review queue", exact=True)).to_be_visible()
    page.keyboard.press("j")
    expect(page.get_by_role("link", name=NAME, exact=True)).to_be_focused()
    page.keyboard.press(key)
    expect(page.locator("dialog").get_by_role("heading", name=heading)).to_be_visible()


def test_submit_reject_mend_approve(portal: Portal, sign_in: SignIn, echo_server: str) -> None:
    """Mel submits, an Admin rejects with notes, Mel mends, the Admin approves by keyboard, Mel has
    the server."""
    add_member(portal)
    assert portal.api("PATCH", "/v1/settings", {"mcp_required_fields": ["description"]})[0] == 200
    admin = sign_in()
    mel = sign_in("mel@example.com", PASSWORD)

    mel.get_by_role("link", name="My submissions").click()
    mel.get_by_role("link", name="Submit server").click()
    checks = mel.locator("#required-checks")
    expect(checks).to_contain_text("Required")
    mel.get_by_label("Name", exact=True).first.fill(NAME)
    mel.get_by_label("Description").first.fill("Rain")
    expect(checks).to_contain_text("Passed")
    mel.get_by_label("Address").fill(echo_server)
    mel.get_by_role("button", name="Submit for review").click()
    expect(mel.get_by_text("Waiting for review")).to_be_visible()

    press_on_the_first(admin, "r", f"Reject {NAME}?")
    admin.get_by_label("Notes").fill("Say where the numbers come from")
    admin.locator("dialog").get_by_role("button", name="Reject").click()
    expect(admin.get_by_role("heading", name="All done")).to_be_visible()

    mel.reload()
    expect(mel.get_by_text("Say where the numbers come from")).to_be_visible()
    mel.get_by_role("link", name="Edit and submit again").click()
    mel.get_by_label("Description").first.fill("Rain, from the national service")
    mel.get_by_role("button", name="Submit again").click()
    expect(mel.get_by_text("Waiting for review")).to_be_visible()

    press_on_the_first(admin, "a", f"Approve {NAME}?")
    admin.keyboard.press("Enter")
    expect(admin.get_by_role("heading", name="All done")).to_be_visible()

    mel.get_by_role("link", name="Servers", exact=True).click()
    expect(mel.get_by_role("link", name=NAME, exact=True)).to_be_visible()
