"""Endpoints that belong together, and those that moved."""

from typing import Any

import pytest

from portal.domain.oauth_metadata import authorization_server_of
from portal.domain.oauth_origins import foreign_address, moved_endpoint, split_at
from tests.services.oauth_client.test_registration import ENDPOINTS

META = {"issuer": "https://i.example", **{name: f"https://i.example/{name}" for name in ENDPOINTS}}
COMPARED = [
    ({}, None),
    ({"token_endpoint": "https://I.example:443/other"}, None),
    ({"token_endpoint": "http://i.example/t"}, "token_endpoint"),
    ({"token_endpoint": "https://i.example:444/t"}, "token_endpoint"),
    ({"revocation_endpoint": "https://j.example/r"}, "revocation_endpoint"),
    ({"revocation_endpoint": None}, None),
]


@pytest.mark.parametrize(("later", "moved"), COMPARED)
def test_endpoints_are_compared_by_their_origins(later: dict[str, Any], moved: str | None) -> None:
    found = moved_endpoint(
        authorization_server_of(META), authorization_server_of({**META, **later})
    )
    assert (found[0] if found else None) == moved


def test_an_endpoint_that_is_new_is_at_a_known_origin() -> None:
    less = authorization_server_of({**META, "revocation_endpoint": None})
    assert moved_endpoint(less, authorization_server_of(META)) is None
    assert (
        moved_endpoint(
            less, authorization_server_of({**META, "revocation_endpoint": "https://j.example"})
        )
        is not None
    )
    assert foreign_address({"token_url": "https://j.example"}, less) is not None
    assert split_at(authorization_server_of({**META, "token_endpoint": "https://j.example"}))
