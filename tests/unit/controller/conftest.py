"""A controller in memory for each test."""

from __future__ import annotations

import pytest

from tests.unit.controller.world import World


@pytest.fixture
def make_world(isolated):
    """Make a controller of its own spec."""

    def make(**spec):
        root = isolated.root / "profile"
        root.mkdir(exist_ok=True, mode=0o700)
        return World(root, **spec)

    return make


@pytest.fixture
def world(make_world):
    return make_world()
