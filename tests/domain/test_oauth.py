"""The words of OAuth: token sets, lifetimes, addresses and what may be shown of them."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.discovery import covers, is_secure, same_issuer, shown_address, without_secrets
from portal.domain.oauth import canonical_resource, expiry, read_token_set, with_parameters
from portal.domain.oauth_metadata import fault_of_metadata, server_of

AT = datetime(2026, 11, 23, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
METADATA = {
    "issuer": "https://as.example",
    "authorization_endpoint": "https://as.example/authorize",
    "token_endpoint": "https://as.example/token",
}


@given(
    st.fixed_dictionaries(
        {"access_token": st.text("a ~\x7f", max_size=4) | JSON},
        optional=dict.fromkeys(
            ("refresh_token", "expires_in", "scope", "token_type", "id_token"), JSON
        ),
    )
)
def test_whatever_a_token_endpoint_says_is_a_token_set_or_an_error(
    answer: dict[str, object],
) -> None:
    """R-OAUTH-53: a token that may not stand in a header is no token."""
    try:
        tokens = read_token_set(answer, AT, ("asked",))
    except ValueError:
        return
    for text in (tokens.access_token, tokens.refresh_token, tokens.token_type):
        assert all("!" <= character <= "~" for character in text)
    assert tokens.access_token
    assert tokens.expires_at is None or AT <= tokens.expires_at <= AT + timedelta(days=3650)


@pytest.mark.parametrize(
    "token", [None, "", 7, "two words", "line\r\nbreak", "smörgås", "x" * 16_385, ["a"]]
)
def test_a_token_that_no_header_may_hold_is_refused(token: object) -> None:
    with pytest.raises(ValueError, match="no usable access token"):
        read_token_set({"access_token": token}, AT)


def test_scopes_are_those_asked_for_unless_something_is_said() -> None:
    assert read_token_set({"access_token": "a"}, AT, ["mail", "files"]).scopes == ("mail", "files")
    assert read_token_set({"access_token": "a", "scope": ""}, AT, ["mail"]).scopes == ()
    assert read_token_set({"access_token": "a", "scope": "x  y"}, AT, ["mail"]).scopes == ("x", "y")


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (3600, 3600),
        (0, 0),
        ("60", 60),
        (1.5, 1.5),
        (10**400, 315_360_000),
        (10**12, 315_360_000),
        (None, None),
        (-1, None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        ("soon", None),
        ("", None),
        ("-5", None),
        ([3600], None),
        ("9" * 5_000, None),
    ],
)
def test_a_lifetime_is_a_sensible_number_or_unknown(
    expires_in: object, seconds: float | None
) -> None:
    """R-OAUTH-48: capped at ten years; rubbish counts as absent."""
    assert expiry(expires_in, AT) == (None if seconds is None else AT + timedelta(seconds=seconds))


def test_a_token_is_due_before_it_runs_out() -> None:
    tokens = read_token_set({"access_token": "a", "expires_in": 100}, AT)
    assert not tokens.is_due(AT + timedelta(seconds=39))
    assert tokens.is_due(AT + timedelta(seconds=40))
    assert not read_token_set({"access_token": "a"}, AT).is_due(AT + timedelta(days=9999))


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=2), TEXT, max_size=4),
    st.dictionaries(st.text("bcd", min_size=1, max_size=2), TEXT, max_size=4),
)
def test_parameters_are_added_and_those_before_stay(
    had: dict[str, str], added: dict[str, str]
) -> None:
    """OAU-03, OAU-51."""
    url = with_parameters(with_parameters("https://as.example/authorize", had), added)
    assert url.count("?") == bool(had or added)
    assert (
        dict(
            parse_qsl(
                urlsplit(url).query, keep_blank_values=True, strict_parsing=bool(had or added)
            )
        )
        == had | added
    )


def test_a_query_that_was_there_stays_as_it_was_written() -> None:
    """R-OAUTH-09: a provider may compare or sign it byte by byte."""
    assert with_parameters("https://as.example/a?t=a%20b&x&%FF=1", {"state": "s 1"}) == (
        "https://as.example/a?t=a%20b&x&%FF=1&state=s+1"
    )
    assert with_parameters("https://as.example/a?st%61te=evil&t=1", {"state": "s"}) == (
        "https://as.example/a?t=1&state=s"
    )
    assert with_parameters("cursor://anysphere.cursor-mcp/oauth/callback", {"code": "c"}) == (
        "cursor://anysphere.cursor-mcp/oauth/callback?code=c"
    )


@given(
    st.sampled_from(["https", "HTTPS", "http"]),
    st.sampled_from(["Mcp.Example.com", "[2001:DB8::1]", "127.0.0.1"]),
    st.sampled_from(["", ":443", ":80", ":8443"]),
    st.sampled_from(["", "/", "/mcp", "/mcp/", "/a/b"]),
)
def test_a_resource_is_spelled_in_one_way(scheme: str, host: str, port: str, path: str) -> None:
    """RFC 8707: lower case, no default port, no slash at the end, neither query nor fragment."""
    resource = canonical_resource(f"{scheme}://{host}{port}{path}?key=SECRET#part")
    assert canonical_resource(resource) == resource
    assert resource.partition(":")[0] in ("http", "https")
    assert not resource.endswith("/")
    assert not {"?", "#", "M", "D"} & set(resource)
    assert f":{443 if scheme.lower() == 'https' else 80}/" not in f"{resource}/"
    assert covers(resource, f"{scheme}://{host}{port}{path}")


@pytest.mark.parametrize(
    "address",
    [
        "https://as.example/authorize",
        "https://as.example:8443/a?tenant=x",
        "http://127.0.0.1:9/a",
        "http://localhost/a",
        "http://[::1]:80/a",
    ],
)
def test_an_endpoint_by_https_or_on_this_machine_is_secure(address: str) -> None:
    assert is_secure(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://as.example/a",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://",
        "https:///a",
        "//as.example/a",
        "https://user@as.example/a",
        "https://:pw@as.example/a",
        "https://as.example/a#x",
        "https://as.example/a#",
        "https://as.example/\r\nSet-Cookie: a=b",
        " https://as.example/a",
        "https://as.example\\@evil.example/",
        "https://as.example:99999/a",
        "https://as.example:0/a",
        "https://as.example/ü",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example/",
        "https://[::1",
        "https://as.example/" + "a" * 3_000,
        "",
    ],
)
def test_any_other_endpoint_is_not(address: str) -> None:
    """R-OAUTH-23, R-OAUTH-52; CVE-2025-6514."""
    assert not is_secure(address)


@given(st.text(max_size=60))
def test_no_address_breaks_the_judges(address: str) -> None:
    is_secure(address)
    covers(address, "https://mcp.example/mcp")
    same_issuer(address, "https://as.example")


@pytest.mark.parametrize(
    ("resource", "url", "expected"),
    [
        ("https://h/mcp", "https://h/mcp", True),
        ("https://h", "https://h/mcp", True),
        ("https://h/mcp/", "https://h/mcp", True),
        ("https://h:443/mcp", "https://h/mcp", True),
        ("https://H/mcp", "https://h:443/mcp/x", True),
        ("https://h/m", "https://h/mcp", False),
        ("https://h/mcp/x", "https://h/mcp", False),
        ("http://h/mcp", "https://h/mcp", False),
        ("https://other/mcp", "https://h/mcp", False),
        ("https://h:8443/mcp", "https://h/mcp", False),
        ("https://u@h/mcp", "https://h/mcp", False),
        ("https://h/mcp#a", "https://h/mcp", False),
        ("https://[", "https://h/mcp", False),
    ],
)
def test_metadata_are_about_a_url_of_the_same_origin_at_or_below_them(
    resource: str, url: str, expected: bool
) -> None:
    assert covers(resource, url) is expected


def test_issuers_are_compared_byte_by_byte_but_for_a_bare_hosts_slash() -> None:
    assert same_issuer("https://as.example", "https://as.example/")
    assert not same_issuer("https://as.example/t", "https://as.example/t/")
    assert not same_issuer("https://AS.example", "https://as.example")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"issuer": "https://evil.example"}, "a different issuer"),
        ({"issuer": None}, "a different issuer"),
        ({"authorization_endpoint": None}, "authorization_endpoint is missing"),
        ({"token_endpoint": 7}, "token_endpoint is missing"),
        ({"token_endpoint": "http://as.example/token"}, "token_endpoint is not https"),
        ({"token_endpoint": "http://127.0.0.1/token"}, "token_endpoint is not https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is not https"),
        ({"registration_endpoint": "http://as.example/r"}, "registration_endpoint is not https"),
        ({"revocation_endpoint": "http://as.example/r"}, "revocation_endpoint is not https"),
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
    ],
)
def test_the_fault_of_metadata_is_named_with_its_remedy(
    change: dict[str, object], named: str
) -> None:
    said, remedy = fault_of_metadata({**METADATA, **change}, "https://as.example")
    assert named in said
    assert remedy


@given(
    st.dictionaries(
        st.sampled_from([*METADATA, "scopes_supported", "code_challenge_methods_supported"]), JSON
    )
)
def test_any_metadata_can_be_read(document: dict[str, object]) -> None:
    fault_of_metadata(document, "https://as.example")
    server_of(document)


def test_nothing_of_the_path_and_query_of_a_servers_url_is_shown() -> None:
    url = "https://mcp.example/t/SECRET%2Dpath/mcp?key=SECRETquery&n=1"
    told = (
        '{"resource": "https://mcp.example/t/SECRET%2Dpath/mcp?key=SECRETquery&n=1", '
        '"other": "https://mcp.example/t/SECRET-path", "echo": "SECRETquery"}'
    )
    assert "SECRET" not in without_secrets(told, url)
    assert "https://mcp.example" in without_secrets(told, url)
    assert "SECRET" not in shown_address("https://u:SECRET@mcp.example/x?k=SECRET", "/x")
