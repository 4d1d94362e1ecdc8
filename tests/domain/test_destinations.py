"""Which routes are one and the same, and which lead elsewhere."""

from dataclasses import replace
from typing import Any

import pytest

from portal.domain.destinations import PARTS_OF, Held, Route, canonical_origin, moved
from portal.domain.servers import CREDENTIAL_NAMES

HOME = Route(
    transport="http",
    address="https://a.example",
    token_url="https://t.example",
    exchange="https://x.example",
    authorization_url="https://u.example",
    registration_url="https://r.example",
)
ALL = [Held(name, 1 if name.startswith("people") else 0) for name in PARTS_OF]


@pytest.mark.parametrize(
    "spelling",
    [
        "https://A.Example/path",
        "https://a.example:443",
        "HTTPS://a.example",
        "https://a.example.",
        "https://a.example?q",
        "https://a.example/#x",
    ],
)
def test_spellings_of_one_origin_are_no_move(spelling: str) -> None:
    assert canonical_origin(spelling) == "https://a.example"
    assert moved(HOME, replace(HOME, address=spelling), ALL) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://BÜCHER.example", "https://bücher.example"),
        ("http://[::1]:80", "http://[0:0:0:0:0:0:0:1]"),
        ("http://[2001:DB8::1]", "http://[2001:db8:0::1]"),
    ],
)
def test_names_and_addresses_have_one_spelling(one: str, other: str) -> None:
    assert canonical_origin(one) == canonical_origin(other) != ""


@pytest.mark.parametrize(
    "other",
    [
        "http://a.example",
        "https://a.example:444",
        "https://b.example",
        "https://a.example.evil",
        "https://aa.example",
        "https://a.example@b.example",
        "https://xn--a.example",
        "https://[::1]",
        "https://127.0.0.1",
        "https://а.example",
    ],
)
def test_another_scheme_port_or_host_is_a_move(other: str) -> None:
    names = {m.secret for m in moved(HOME, replace(HOME, address=other), ALL)}
    assert names >= {
        "static_headers",
        "env_vars",
        "credentials.auth_value",
        "people.values",
        "people.keys",
    }
    assert "credentials.client_secret" not in names  # its token endpoint is typed, and stays


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"token_url": "https://b.example"}, {"credentials.client_secret", "people.connections"}),
        ({"token_url": None}, {"credentials.client_secret", "client_registration"}),
        ({"exchange": "https://b.example"}, {"credentials.audience", "people.connections"}),
        ({"authorization_url": "https://b.example"}, {"credentials.client_id"}),
        ({"registration_url": None}, {"client_registration"}),
        ({"transport": "stdio", "command": "python3"}, {"static_headers", "people.keys"}),
        ({"command": "node"}, {"env", "args"}),
        ({"args": ("x",)}, {"env"}),
    ],
)
def test_each_part_of_a_route_moves_what_goes_there(
    change: dict[str, Any], names: set[str]
) -> None:
    assert {m.secret for m in moved(HOME, replace(HOME, **change), ALL)} >= names


def test_a_first_endpoint_is_a_move_and_the_end_of_one_too() -> None:
    """Where discovery decided before, and where it decides from now on."""
    found = replace(HOME, token_url=None, exchange=None, discovered="https://d.example")
    [move] = moved(
        found, replace(found, token_url="https://d.example"), [Held("credentials.client_secret")]
    )
    assert (move.before, move.after) == ("https://d.example", "https://d.example (rediscovered)")
    assert moved(
        replace(found, token_url="https://d.example"), found, [Held("credentials.client_secret")]
    )


def test_http_and_sse_at_one_origin_are_the_same() -> None:
    assert moved(HOME, replace(HOME, transport="sse"), ALL) == ()


def test_every_credential_but_an_address_has_a_destination() -> None:
    goes = {
        name.removeprefix("credentials.") for name in PARTS_OF if name.startswith("credentials.")
    }
    assert goes == CREDENTIAL_NAMES - {"token_exchange_endpoint"}
