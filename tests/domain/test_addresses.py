"""Which callers are internal, and whose word about a forwarded address is taken."""

import pytest

from portal.domain.addresses import client_address, in_ranges, is_internal

PROXIES = ("10.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.1.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        " 10.0.0.1 ",
    ],
)
def test_private_addresses_are_internal(address: str) -> None:
    assert is_internal(address, ())


@pytest.mark.parametrize(
    "address",
    [
        "172.32.0.1",
        "8.8.8.8",
        "2001:db8::1",
        "::ffff:8.8.8.8",
        "",
        "  ",
        None,
        "localhost",
        "10.0.0.1, 8.8.8.8",
        "10.0.0",
    ],
)
def test_reg_05_public_blank_and_unreadable_addresses_are_external(address: str | None) -> None:
    assert not is_internal(address, ())


def test_reg_08_a_trusted_proxy_is_believed() -> None:
    assert client_address("10.0.0.1", "8.8.8.8", PROXIES) == "8.8.8.8"


def test_anybody_else_is_not() -> None:
    assert client_address("8.8.8.8", "10.0.0.1", PROXIES) == "8.8.8.8"
    assert client_address("10.0.0.1", "8.8.8.8", ()) == "10.0.0.1"
    assert client_address(None, "10.0.0.1", PROXIES) is None


def test_what_a_client_puts_in_front_of_the_chain_counts_for_nothing() -> None:
    assert client_address("10.0.0.1", "127.0.0.1, 8.8.8.8, 10.0.0.2", PROXIES) == "8.8.8.8"


def test_a_chain_of_proxies_alone_ends_at_its_first() -> None:
    assert client_address("10.0.0.1", "10.0.0.9, 10.0.0.2", PROXIES) == "10.0.0.9"


def test_a_forwarded_word_that_is_no_address_is_nobody() -> None:
    assert client_address("10.0.0.1", "unknown", PROXIES) is None
    assert not is_internal(client_address("10.0.0.1", "unknown", PROXIES), ())


def test_reg_11_custom_ranges_replace_the_defaults() -> None:
    assert is_internal("203.0.113.7", ["203.0.113.0/24"])
    assert not is_internal("127.0.0.1", ["203.0.113.0/24"])


def test_reg_11_unreadable_ranges_are_skipped_and_none_left_means_the_defaults() -> None:
    assert not is_internal("10.0.0.1", ["nonsense", "203.0.113.0/24"])
    assert is_internal("10.0.0.1", ["nonsense", "300.0.0.0/8"])


def test_addresses_of_another_family_are_in_no_range() -> None:
    assert not in_ranges("::1", ["127.0.0.0/8"])
    assert not in_ranges("127.0.0.1", ["::/0"])
