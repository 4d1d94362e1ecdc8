"""The page of a server whose name was reserved later says so to those who can rename it."""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from portal.store.models import Server
from tests.conftest import NOTES, Write
from tests.support.browsing import Browser, text_of

Browsers = Callable[[str], Browser]
SAID = "new servers cannot have such a name"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"server_name": "v1", "alias": "v1"}, "begin with /v1, so"),
        ({"server_name": "fine", "alias": "oauth"}, "begin with /oauth, so"),
        ({"server_name": "mcp", "alias": "fine"}, "begin with /mcp, so"),
        ({"server_name": "v1", "alias": "ui"}, "begin with /ui and /v1, so"),
    ],
)
def test_a_manager_is_told(
    browser: Browsers, write: Write, names: dict[str, str], told: str
) -> None:
    with write() as session:
        session.execute(update(Server).values(**names))
    assert told in text_of(browser("ada").open(f"/servers/{NOTES}"))
    assert SAID not in text_of(browser("mel").open(f"/servers/{NOTES}"))


def test_nobody_is_told_of_another_name(browser: Browsers) -> None:
    assert SAID not in text_of(browser("ada").open(f"/servers/{NOTES}"))
