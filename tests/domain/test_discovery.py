"""Addresses that discovery trusts and shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.discovery import covers, is_secure, same_issuer, shown_address, without_secrets


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


def test_nothing_of_the_path_and_query_of_a_servers_url_is_shown() -> None:
    url = "https://mcp.example/t/SECRET%2Dpath/mcp?key=SECRETquery&n=1"
    told = (
        '{"resource": "https://mcp.example/t/SECRET%2Dpath/mcp?key=SECRETquery&n=1", '
        '"other": "https://mcp.example/t/SECRET-path", "echo": "SECRETquery"}'
    )
    assert "SECRET" not in without_secrets(told, url)
    assert "https://mcp.example" in without_secrets(told, url)
    assert "SECRET" not in shown_address("https://u:SECRET@mcp.example/x?k=SECRET", "/x")
