"""What the tests of pages share."""

from collections.abc import Callable

import pytest

from portal.domain.principals import OPERATOR
from portal.services import access_groups
from tests.conftest import NOTES, Client, Write
from tests.web.browsing import Browser


@pytest.fixture
def browser(signed_in: Callable[[str], Client]) -> Callable[[str], Browser]:
    """`browser("ada")` is Ada's, in which she has signed in."""
    return lambda name: Browser(signed_in(name))


@pytest.fixture
def group_id(write: Write) -> str:
    """An access group that holds the server `notes`."""
    with write() as session:
        return access_groups.create_group(session, OPERATOR, "writing", "Texts", [NOTES]).access_group_id
