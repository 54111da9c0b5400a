"""What a slow store makes of the controller: it reads nothing more for a while, whether or not anything is promised."""

from __future__ import annotations

from types import SimpleNamespace

from clusterd.controller.backlog import Backlog
from tests.unit.controller.world import World


def test_it_is_full_above_its_bound_until_half_of_it_is_written():
    store = SimpleNamespace(backlog=100, trouble="")
    backlog = Backlog(store, 100)
    assert not backlog.look()
    store.backlog = 101
    assert backlog.look()
    store.backlog = 51
    assert backlog.look()
    store.backlog = 50
    assert not backlog.look()
    store.backlog = 100
    assert not backlog.look()


def test_a_store_that_cannot_write_is_not_waited_for():
    store = SimpleNamespace(backlog=101, trouble="")
    backlog = Backlog(store, 100)
    assert backlog.look()
    store.trouble = "no space left on device"
    assert not backlog.look()
    assert not backlog.is_full


def test_every_controller_looks_at_its_store(isolated):
    root = isolated.root / "profile"
    root.mkdir(mode=0o700)
    world = World(root, database="sqlite")
    assert world.loop.gate is None
    assert not world.loop.backlog.look()
    world.loop.backlog._full_bytes = -1
    assert world.loop.backlog.look()
    world.store.close()
