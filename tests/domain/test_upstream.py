"""Which addresses the portal may connect to (spec/security.md, R-SSRF-05 and -06)."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.upstream import OutboundPolicy

PUBLIC = """
1.1.1.1 8.8.8.8 9.9.9.9 11.0.0.1 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
168.63.129.15 168.63.129.17
169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0
192.167.255.255 192.169.0.0
198.17.255.255 198.20.0.0 198.51.99.255 203.0.112.255 203.0.114.0 223.255.255.255
2606:4700:4700::1111 2001:4860:4860::8888 2400:cb00::1 2620:fe::fe 3ffe:ffff::1
::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::8.8.8.8 2002:808:808::1 2001:0:808:808::f7f7:f7f7
::8.8.8.8
""".split()

PRIVATE = """
10.0.0.0 10.0.0.5 10.255.255.255 172.16.0.0 172.20.1.1 172.31.255.255 192.168.0.1 192.168.255.255
100.64.0.0
100.99.1.1 100.127.255.255 127.0.0.1 127.1.2.3 127.255.255.255
::1 fc00::1 fd00::1 fd12:3456:789a::1 fdff:ffff::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:192.168.1.1 ::ffff:7f00:1 ::127.0.0.1 ::10.0.0.1
64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::10.0.0.1 64:ff9b:1:a00:1:0:808:808
2002:7f00:1:: 2002:a00:1::1 2002:c0a8:101::1 2001:0:808:808::80ff:fffe 2001:0:7f00:1::f7f7:f7f7
""".split()

NEVER = """
0.0.0.0 0.1.2.3 169.254.0.1 169.254.169.254 169.254.170.2 169.254.255.255 168.63.129.16
100.100.100.200
224.0.0.1 239.255.255.250 255.255.255.255 240.0.0.1 254.1.1.1
192.0.0.1 192.0.0.192 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 192.88.99.1
192.31.196.1
192.52.193.1 192.175.48.1
:: fe80::1 fe80::1%eth0 febf::1 fec0::1 feff::1 ff02::1 ff0e::1 fd00:ec2::254 fd20:ce::254
100::1 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2620:4f:8000::1 3fff::1 5f00::1 4000::1 8000::1
200::1
::ffff:169.254.169.254 ::ffff:a9fe:a9fe ::ffff:0.0.0.0 ::ffff:224.0.0.1 ::169.254.169.254
64:ff9b::169.254.169.254
64:ff9b::100.100.100.200 64:ff9b:1::a9fe:a9fe 64:ff9b:1:a9fe:a9:fe00:: 2002:a9fe:a9fe::1
2002:a83f:8110::
2001:0:808:808::5601:5601 2001:0:a9fe:a9fe::f7f7:f7f7
""".split()

NONSENSE = [
    "",
    "localhost",
    "1.2.3",
    "0x7f.1",
    "2130706433",
    "127.1",
    "1.2.3.4/32",
    "[::1]",
    "1.2.3.4 ",
    "\x00",
    "٣.1.1.1",
]


@pytest.mark.parametrize("ip", PUBLIC)
def test_a_public_address_is_always_allowed(ip: str) -> None:
    assert OutboundPolicy(allow_private=False).allows(ip)
    assert OutboundPolicy(allow_private=True).allows(ip)
    assert OutboundPolicy(allow_private=("10.0.0.0/8",)).allows(ip)


@pytest.mark.parametrize("ip", PRIVATE)
def test_a_private_address_needs_the_operators_word(ip: str) -> None:
    assert not OutboundPolicy(allow_private=False).allows(ip)
    assert OutboundPolicy(allow_private=True).allows(ip)


@pytest.mark.parametrize("ip", NEVER)
def test_link_local_metadata_and_special_addresses_are_refused_even_when_listed(ip: str) -> None:
    for policy in (OutboundPolicy(), OutboundPolicy(True), OutboundPolicy(("0.0.0.0/0", "::/0"))):
        assert not policy.allows(ip)


@pytest.mark.parametrize("text", NONSENSE)
def test_what_is_no_literal_address_is_refused(text: str) -> None:
    assert not OutboundPolicy(allow_private=True).allows(text)


def test_only_the_listed_ranges_are_open() -> None:
    policy = OutboundPolicy(("10.1.0.0/16", "fd00:1::/32"))
    assert policy.allows("10.1.2.3")
    assert policy.allows("::ffff:10.1.2.3")
    assert policy.allows("fd00:1::5")
    assert not policy.allows("10.2.0.1")
    assert not policy.allows("127.0.0.1")
    assert not policy.allows("fd00:2::5")


def test_a_listed_range_that_is_none_stops_the_start() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        OutboundPolicy(("10.0.0.0/99",))


@given(st.ip_addresses(v=4).map(str))
def test_an_embedded_address_is_judged_like_the_plain_one(plain: str) -> None:
    high, low = divmod(int(ipaddress.IPv4Address(plain)), 65536)
    for policy in (OutboundPolicy(), OutboundPolicy(True)):
        for carrier in (f"::ffff:{plain}", f"64:ff9b::{plain}", f"2002:{high:x}:{low:x}::1"):
            assert policy.allows(carrier) == policy.allows(plain)
