"""The world that the sweeps walk through, as a pytest plugin."""

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import KINDS, make_settings
from tests.support.security.callers import World, add_callers, opened_world


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest, empty_database: Callable[[str], str]) -> Iterator[World]:
    """One application for a whole module; who writes puts it back."""
    with opened_world(make_settings(empty_database(request.param))) as world:
        add_callers(world)
        world.remember()
        yield world


@pytest.fixture
def fresh(world: World) -> Iterator[World]:
    """The world for a test that writes; put back afterwards."""
    yield world
    world.put_back()
