"""The world that the sweeps walk through."""

from collections.abc import Iterator

import pytest

from tests.conftest import make_settings
from tests.security.callers import World, add_callers, opened_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One application for a whole module; who writes puts it back."""
    path = tmp_path_factory.mktemp("world") / "portal.db"
    with opened_world(make_settings(f"sqlite:///{path}"), path) as world:
        add_callers(world)
        world.remember()
        yield world
