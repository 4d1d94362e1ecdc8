"""The settings page: what it saves, what it refuses, and how one looks to the portal."""

from collections.abc import Callable
from typing import Any

import pytest

from portal.app import open_database
from portal.domain.principals import OPERATOR
from portal.services import instance_settings
from portal.services.access import sso
from portal.services.audit import trail
from portal.services.instance_settings import Preferences, load_preferences
from portal.store.database import Database
from tests.conftest import Client, Portal, Write, make_settings
from tests.support.browsing import CHANGED, Browser, look_at, text_of
from tests.support.html import filled

Browsers = Callable[[str], Browser]
PAGE = "/admin/settings"


def stored(database: Database) -> Preferences:
    with database.session() as session:
        return load_preferences(session)


def sent(browser: Browser, **changes: Any) -> Any:
    """The form with changes, on the page that answers."""
    form = browser.form(PAGE)
    return browser.client.ask("POST", PAGE, data=filled(form, **changes))


def test_ui_56_the_rules_of_submissions_stand_in_four_groups(browser: Browsers) -> None:
    page = browser("ada").open("/admin/settings")
    groups = page.select("#mcp_required_fields fieldset")
    assert [group.legend.text for group in groups] == [
        "Documentation",
        "Source",
        "Connection",
        "Security",
    ]
    offered = [box["value"] for box in page.select("input[name=mcp_required_fields]")]
    assert sorted(offered) == sorted(instance_settings.REQUIRABLE_FIELDS)


def test_an_admin_changes_every_setting(browser: Browsers, database: Database) -> None:
    ada = browser("ada")
    answer = sent(
        ada,
        user_mcp_management_mode="view_all",
        mcp_required_fields=["description", "source_url"],
        mcp_internal_ip_ranges="10.0.0.0/8\r\n\r\n 127.0.0.0/8 ",
        trusted_proxies="192.0.2.1",
        trusted_redirect_origins="https://app.example.com\r\n*.example.org",
        enable_mcp_registry="y",
    )
    assert answer.status_code == CHANGED
    expected = Preferences(
        "view_all",
        ("description", "source_url"),
        True,
        ("10.0.0.0/8", "127.0.0.0/8"),
        ("192.0.2.1",),
        ("https://app.example.com", "*.example.org"),
    )
    assert stored(database) == expected
    page = ada.open(PAGE)
    assert "Settings saved." in text_of(page)
    assert [box["value"] for box in page.select("input[name=mcp_required_fields][checked]")] == [
        "description",
        "source_url",
    ]
    assert sent(ada, mcp_required_fields=None, enable_mcp_registry=None).status_code == CHANGED
    assert (stored(database).mcp_required_fields, stored(database).enable_mcp_registry) == (
        (),
        False,
    )


def test_what_is_not_changed_leaves_no_event(browser: Browsers, database: Database) -> None:
    assert sent(browser("ada")).status_code == CHANGED
    with database.session() as session:
        wanted = trail.EventFilter(action="settings changed")
        assert trail.list_events(session, OPERATOR, wanted).items == ()


@pytest.mark.parametrize(
    ("field", "typed", "says"),
    [
        ("mcp_internal_ip_ranges", "10.0.0.0/99", "Enter ranges in CIDR notation"),
        ("mcp_internal_ip_ranges", "0.0.0.0/0", "every address"),
        ("trusted_proxies", "::/0", "every address"),
        ("trusted_proxies", "proxy.example.com", "Enter ranges in CIDR notation"),
        ("trusted_redirect_origins", "http://app.example.com", "Enter app.example.com"),
        ("trusted_redirect_origins", "https://me@app.example.com", "Enter app.example.com"),
        ("trusted_redirect_origins", "https://app.example.com:99999", "Enter app.example.com"),
        ("trusted_redirect_origins", "*", "Enter app.example.com"),
        ("mcp_required_fields", ["descripton"], "Did you mean description?"),
    ],
)
def test_what_cannot_be_is_said_beside_its_field(
    browser: Browsers, database: Database, field: str, typed: Any, says: str
) -> None:
    before = stored(database)
    page = look_at(sent(browser("ada"), **{field: typed}), 422)
    assert says in text_of(page.select_one(f"#{field}-error"))
    assert says in text_of(page.select_one("[data-error-summary]"))
    assert stored(database) == before


def test_a_typo_is_refused_over_the_api_and_kept_from_a_config_file(
    client: Callable[[str], Client], database: Database, write: Write
) -> None:
    answer = client("ada").patch("/v1/settings", {"mcp_required_fields": ["source_ulr"]})
    assert answer.status_code == 422
    assert answer.get_json()["detail"]["message"] == (
        "Servers have no field called source_ulr. Did you mean source_url?"
    )
    assert stored(database).mcp_required_fields == ()
    with write() as session:  # the operator's file still starts the portal; a submission then tells
        instance_settings.update_preferences(
            session, OPERATOR, {"mcp_required_fields": ["source_ulr"]}
        )
    assert stored(database).mcp_required_fields == ("source_ulr",)


# How one looks


def looks(page: Any) -> str:
    return text_of(page.select_one("#looks, dl.facts-list") or page)


def test_the_page_says_how_one_looks_now(browser: Browsers, write: Write) -> None:
    ada = browser("ada")
    assert looks(ada.open(PAGE)) == "Your address 127.0.0.1 , Internal , without a proxy"
    with write() as session:
        instance_settings.update_preferences(
            session, OPERATOR, {"trusted_proxies": ["127.0.0.0/8"]}
        )
    through = ada.open(PAGE, headers={"X-Forwarded-For": "203.0.113.7"})
    assert "203.0.113.7 , External through the proxy 127.0.0.1" in looks(through)


def test_what_is_typed_is_looked_at_before_it_is_saved(
    browser: Browsers, database: Database
) -> None:
    ada = browser("ada")
    typed = {"mcp_internal_ip_ranges": "10.0.0.0/8", "trusted_proxies": ""}
    for headers in ({"HX-Request": "true"}, {}):
        token = ada.open("/profile").select_one("input[name=csrf_token]")
        assert token
        data = {**typed, "csrf_token": token["value"]}
        page = look_at(ada.client.ask("POST", f"{PAGE}/appearance", data=data, headers=headers))
        assert "With these settings 127.0.0.1 , External" in text_of(page)
    proxied = {"mcp_internal_ip_ranges": "not yet a ra", "trusted_proxies": "127.0.0.1"}
    token = ada.open("/profile").select_one("input[name=csrf_token]")
    assert token
    page = look_at(
        ada.client.ask(
            "POST",
            f"{PAGE}/appearance",
            data={**proxied, "csrf_token": token["value"]},
            headers={"X-Forwarded-For": "203.0.113.7"},
        )
    )
    assert "With these settings 203.0.113.7 , External through the proxy 127.0.0.1" in text_of(page)
    assert stored(database) == Preferences()


def test_an_admin_does_not_shut_themselves_out_unasked(
    browser: Browsers, database: Database
) -> None:
    ada = browser("ada")
    assert not ada.open(PAGE).select("#confirm_external")
    page = look_at(sent(ada, mcp_internal_ip_ranges="10.0.0.0/8"), 422)
    assert "your own address (127.0.0.1) would count as external" in text_of(
        page.select_one("#mcp_internal_ip_ranges-error")
    )
    assert stored(database).mcp_internal_ip_ranges == ()
    form = page.select_one(f'form[action="{PAGE}"]')
    data = filled(form, confirm_external="y")
    assert data["mcp_internal_ip_ranges"][0].strip() == "10.0.0.0/8"
    assert ada.client.ask("POST", PAGE, data=data).status_code == CHANGED
    assert stored(database).mcp_internal_ip_ranges == ("10.0.0.0/8",)
    # From outside already: nothing to lose, nothing to ask.
    assert sent(ada, mcp_internal_ip_ranges="192.168.0.0/16").status_code == CHANGED


def test_a_proxy_that_makes_one_external_is_asked_about_too(browser: Browsers, client: Any) -> None:
    ada = browser("ada")
    form = ada.form(PAGE)
    headers = {"X-Forwarded-For": "203.0.113.7"}
    answer = ada.client.ask(
        "POST", PAGE, data=filled(form, trusted_proxies="127.0.0.1"), headers=headers
    )
    assert look_at(answer, 422).select_one("#trusted_proxies-error")
    asked = client("ada").patch("/v1/settings", {"trusted_proxies": ["127.0.0.1"]}, headers=headers)
    assert (asked.status_code, asked.get_json()["detail"]["error"]) == (409, "would_be_external")
    sure = {"trusted_proxies": ["127.0.0.1"], "confirm_external": True}
    assert client("ada").patch("/v1/settings", sure, headers=headers).status_code == 200


def test_the_second_of_two_admins_is_told(
    browser: Browsers, database: Database, write: Write
) -> None:
    ada = browser("ada")
    form = ada.form(PAGE)
    with write() as session:
        instance_settings.update_preferences(session, OPERATOR, {"enable_mcp_registry": True})
    page = look_at(
        ada.client.ask("POST", PAGE, data=filled(form, user_mcp_management_mode="view_all")), 422
    )
    assert "Someone else changed the settings" in text_of(page.select_one("[data-error-summary]"))
    assert stored(database) == Preferences(enable_mcp_registry=True)


# Who


def test_a_read_only_admin_looks_and_changes_nothing(browser: Browsers) -> None:
    vera = browser("vera")
    page = vera.open(PAGE)
    assert not page.select("main form, main input")
    assert "10.0.0.0/8" in text_of(page)
    assert "Your address" in text_of(page)
    assert vera.post(PAGE, user_mcp_management_mode="view_all").status_code == 403


@pytest.mark.parametrize("name", ["mel", "vic"])
def test_for_everybody_else_there_is_no_such_page(browser: Browsers, name: str) -> None:
    asking = browser(name)
    assert asking.client.get(PAGE).status_code == 404
    for path in (PAGE, f"{PAGE}/appearance"):
        assert asking.post(path).status_code == 404


def test_the_callbacks_to_register_are_there_to_copy(
    portal: Portal, signed_in: Callable[[str], Client]
) -> None:
    """For those who may look and not change, too; and whether passwords open the portal."""
    for name in ("ada", "vera"):
        panel = look_at(signed_in(name).get(PAGE)).select_one('section[aria-labelledby="sign-in"]')
        assert panel
        assert "Password sign-in Enabled" in text_of(panel)
        assert "http://127.0.0.1:8000/oauth/callback" in text_of(panel)


def test_each_provider_has_a_callback_of_its_own(portal: Portal) -> None:
    provider = {
        "name": "corp",
        "label": "Corp",
        "issuer": "https://id.example",
        "client_id": "c",
        "client_secret": "SECRET",
    }
    settings = make_settings(
        portal.settings.database_url, sign_in_providers=[provider], password_sign_in=False
    )
    told = "\n".join(settings.sign_in_facts)
    assert "password sign-in: off" in told
    assert "Corp: http://127.0.0.1:8000/login/corp/callback" in told
    assert "SECRET" not in told
    database = open_database(settings)
    with database.session() as session:
        assert sso.list_callbacks(session, OPERATOR) == (
            ("Corp", "https://id.example", "http://127.0.0.1:8000/login/corp/callback"),
        )
    database.engine.dispose()
