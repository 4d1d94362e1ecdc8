"""Redirect URIs: where a code may be sent to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.errors import InvalidRequest
from portal.domain.redirects import check_redirect_uri, is_loopback, same_registered_uri

PUBLIC = "https://portal.example.com"


def refused(uri: str, *, public_url: str | None = PUBLIC, trusted: tuple[str, ...] = ()) -> bool:
    try:
        check_redirect_uri(uri, public_url=public_url, trusted=trusted)
    except InvalidRequest as error:
        said = error
    else:
        return False
    assert (said.field, "portal.example.com" in said.message) == ("redirect_uri", False)
    return True


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:3000/cb",
        "http://127.0.0.1:3000/cb",
        "http://127.0.0.2:3000/cb",
        "http://[::1]:3000/cb",
        "http://[0:0:0:0:0:0:0:1]:3000/cb",
        "http://localhost/cb",
        "http://LOCALHOST:1/cb",
        "https://127.0.0.1/cb",
    ],
)
def test_oau_12_every_form_of_loopback_is_accepted(uri: str) -> None:
    assert not refused(uri)
    assert is_loopback(uri)


@pytest.mark.parametrize(
    "uri", ["https://portal.example.com/ui/mcp/oauth/callback", "https://PORTAL.example.com/x?a=1"]
)
def test_oau_13_our_own_origin_is_accepted(uri: str) -> None:
    assert not refused(uri)


def test_oau_13_oau_72_a_default_port_may_be_written_or_not() -> None:
    assert not refused("https://portal.example.com:443/cb")
    assert not refused("https://portal.example.com/cb", public_url="https://portal.example.com:443")
    assert refused("https://portal.example.com:8443/cb")
    assert refused("http://portal.example.com/cb")


def test_oau_15_an_entry_is_an_exact_host_and_port_or_a_strict_suffix_and_https() -> None:
    trusted = ("app.example.org", "other.example.org:8443", "*.apps.example.net")
    for uri in (
        "https://app.example.org/cb",
        "https://app.example.org:443/",
        "https://other.example.org:8443/cb",
        "https://a.apps.example.net/cb",
        "https://a.b.apps.example.net/cb",
    ):
        assert not refused(uri, trusted=trusted), uri
    for uri in (
        "http://app.example.org/cb",
        "https://sub.app.example.org/cb",
        "https://other.example.org/cb",
        "https://apps.example.net/cb",
        "https://evilapps.example.net/cb",
        "https://app.example.org:8443/cb",
        "https://app.example.org.evil.com/cb",
    ):
        assert refused(uri, trusted=trusted), uri


def test_oau_18_the_refusal_names_the_setting_that_lists_other_origins() -> None:
    with pytest.raises(InvalidRequest, match="Trusted redirect origins"):
        check_redirect_uri("https://elsewhere.example.com/cb", public_url=PUBLIC)


def test_oau_76_an_entry_written_as_a_url_counts_as_its_host() -> None:
    for entry in (
        "https://other.example.com/",
        "https://other.example.com/path?x=1",
        "OTHER.example.com",
    ):
        assert not refused("https://other.example.com/cb", trusted=(entry,)), entry


def test_oau_77_entries_that_cannot_be_read_grant_nothing() -> None:
    entries = (
        "",
        "  ",
        "*.",
        "*..example.com",
        "foo:notaport",
        "/foo",
        "https:///",
        "*",
        "://",
        "*.*",
        "[",
        "a@b.com",
    )
    for uri in (
        "https://example.com/",
        "https://x.example.com/",
        "https://foo/",
        "https://b.com/",
        "https://a.b.com/",
    ):
        assert refused(uri, trusted=entries), uri


@pytest.mark.parametrize(
    "uri",
    [
        "https://1.2.3.4/cb",
        "ftp://localhost/cb",
        "https:///no-netloc",
        "http://[not-an-ip]/cb",
        "",
        "cb",
        "/cb",
        "//localhost/cb",
        "http://localhost:0/cb",
        "http://localhost:99999/cb",
        "http://localhost:x/cb",
        "http://user@localhost/cb",
        "http://user:pw@localhost/cb",
        "http://@localhost/cb",
        "http://localhost/cb#",
        "http://localhost/cb#f",
        "http://localhost\\@evil.com/cb",
        "http://localhost/a b",
        "http://localhost/\u00e9",
        "http://localhost/\n",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "vbscript:x",
        "about:blank",
        "blob:http://localhost/x",
        "http://localhost/a/../b",
        "http://localhost/%2e%2e/b",
        "http://localhost.evil.com/cb",
        "http://127.0.0.1.evil.com/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://localhost./cb",
        "http://0.0.0.0/cb",
        "http://[::]/cb",
        "cursor://evil/oauth/callback",
        "cursor:",
        "http:localhost/cb",
        "http://localhost:/cb",
        "h\u0442tp://localhost/",
        "http://" + "a" * 2100,
        "cursor://anysphere.cursor-mcp/oauth/callback?x=1",
        "CURSOR://anysphere.cursor-mcp/oauth/callback#",
    ],
)
def test_oau_78_odd_addresses_are_refused(uri: str) -> None:
    assert refused(uri)


def test_native_apps_are_taken_as_listed_and_not_otherwise() -> None:
    assert not refused("cursor://anysphere.cursor-mcp/oauth/callback")
    assert refused("vscode://app/cb")
    assert not refused("vscode://app/cb", trusted=("vscode://app/cb",))
    assert refused("vscode://app/cb/more", trusted=("vscode://app/cb",))
    assert is_loopback("cursor://anysphere.cursor-mcp/oauth/callback")


def test_oau_80_without_an_own_address_the_others_still_work() -> None:
    assert not refused("http://localhost:1/cb", public_url=None)
    assert not refused("https://app.example.org/cb", public_url=None, trusted=("app.example.org",))
    assert refused("https://portal.example.com/cb", public_url=None)


def test_a_registered_uri_is_matched_exactly_save_the_port_on_this_machine() -> None:
    assert same_registered_uri("http://127.0.0.1:5/cb", "http://127.0.0.1:9/cb")
    assert not same_registered_uri("http://127.0.0.1:5/cb", "http://localhost:5/cb")
    assert not same_registered_uri("http://127.0.0.1:5/cb2", "http://127.0.0.1:5/cb")
    assert not same_registered_uri("https://a.example.com:1/cb", "https://a.example.com:2/cb")
    assert same_registered_uri("https://a.example.com/cb", "https://a.example.com/cb")


@given(st.text(max_size=80))
def test_no_text_at_all_breaks_it(text: str) -> None:
    assert refused(text) or is_loopback(text) or text.startswith(("https://portal.example.com",))


@given(st.text(alphabet="abc.*:/@[]#?%\\ ", max_size=20))
def test_no_entry_opens_a_host_that_it_does_not_name(entry: str) -> None:
    assert refused("https://victim.example/cb", trusted=(entry,))
