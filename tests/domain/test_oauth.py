"""The words of OAuth: token sets, lifetimes and addresses."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.discovery import covers
from portal.domain.oauth import canonical_resource, expiry, read_token_set, with_parameters

AT = datetime(2026, 11, 23, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


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
