"""Instance settings over the API."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import NOTES, Client
from tests.web.api.test_users import detail_of

As = Callable[[str | None], Client]


def test_settings_change_where_they_are_sent(client: As) -> None:
    changed = client("ada").patch(
        "/v1/settings", {"enable_mcp_registry": True, "public_mcp_servers": [NOTES]}
    )
    assert (
        changed.get_json()
        == client("vera").get("/v1/settings").get_json()
        == {
            "user_mcp_management_mode": "restricted",
            "mcp_required_fields": [],
            "enable_mcp_registry": True,
            "mcp_internal_ip_ranges": [],
            "trusted_proxies": [],
            "trusted_redirect_origins": [],
            "key_max_age_days": None,
            "public_mcp_servers": [NOTES],
        }
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user_mcp_management_mode": "open"}, "user_mcp_management_mode"),
        ({"mcp_internal_ip_ranges": ["10.0.0.0/99"]}, "mcp_internal_ip_ranges"),
        ({"trusted_proxies": None}, "trusted_proxies"),
        ({"enable_mcp_registry": "yes"}, "enable_mcp_registry"),
    ],
)
def test_a_setting_that_cannot_be_is_422(client: As, body: dict[str, Any], field: str) -> None:
    assert detail_of(client("ada").patch("/v1/settings", body)) == (422, "invalid", field)
