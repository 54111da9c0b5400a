"""A durable controller in memory that can be killed between any two turns, with a store whose commits happen when a test says so."""

from __future__ import annotations

import threading
import time

from clusterd.controller import credentials
from clusterd.core.wire import messages as m
from clusterd.errors import StorageError
from tests.unit.controller.stock import PING, FakeSockets, StockWorld
from tests.unit.controller.world import Peer, World

# Records have an age after which they are forgotten.
NOW = time.time()
FUNCTION = m.Function(b"f" * 16, "work", "3.11", b"code")


class Reins:
    """The backend of a store, held: nothing is written before somebody says so."""

    def __init__(self, backend):
        self._backend = backend
        self.may_write = threading.Event()
        self.may_write.set()
        self.trouble = ""

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def _pass(self):
        self.may_write.wait()
        if self.trouble:
            raise StorageError(self.trouble)

    def write(self, rows, purged, settled):
        self._pass()
        self._backend.write(rows, purged, settled)

    def write_functions(self, kept, dropped):
        self._pass()
        self._backend.write_functions(kept, dropped)


class DurableWorld(World):
    """One life of the controller."""

    def __init__(self, root, *, has_predecessor=False, durable="process", **spec):
        (root / "security").mkdir(mode=0o700, exist_ok=True)
        super().__init__(root, has_predecessor=has_predecessor, reuse=True, database="sqlite", durable=durable, **spec)
        self.reins = self.store._backend = Reins(self.store._backend)
        credentials.save_secrets(self.controller._secrets_file, self.controller._secrets)

    def hold(self):
        """Nothing is committed from now on."""
        self.store.flush()
        self.reins.may_write.clear()

    def commit(self):
        """All that was done is committed, and the controller knows it."""
        self.reins.may_write.set()
        assert self.store.flush()
        self.turn()

    def kill(self):
        """It is gone; what is not committed was never there."""
        self.reins.trouble = "killed"
        self.reins.may_write.set()
        self.store.close()


class DurableStockWorld(DurableWorld):
    """One with stock sockets."""

    arrive, beat, notices = StockWorld.arrive, StockWorld.beat, StockWorld.notices

    def __init__(self, root, **spec):
        self.sockets = FakeSockets()
        super().__init__(root, stock=self.sockets, ping=PING, **spec)
        self.key = self.controller._secrets.stock_key
        self.stock_counters = self.counters["stock"]


class Cluster:
    """The lives of one controller, one after another."""

    def __init__(self, root, life=DurableWorld):
        self._root = root
        self._life = life
        self.world = life(root)

    def succeed(self, places=()):
        """Kill the controller, and start the next; `places` had agents."""
        self.world.kill()
        secrets = self.world.controller._secrets
        secrets.places = list(places)
        if self.world.loop.front is not None:
            secrets.stock_engines = self.world.loop.front.engines.known
        credentials.save_secrets(self.world.controller._secrets_file, secrets)
        self.world = self._life(self._root, has_predecessor=True)
        return self.world

    def here(self, peer):
        """A stock peer of an earlier controller has connected to the present one: a client has another routing id there."""
        peer.world = self.world
        if hasattr(peer, "route"):
            peer.route += b"'"
        return peer

    def back(self, peer, message=None):
        """A peer of an earlier controller attaches to the present one."""
        again = Peer(self.world, peer.role, peer.channel, peer.uuid)
        again.token = peer.token
        answer = again.attach(message or again.attach_message())
        assert isinstance(answer, m.Attached), answer
        again.wire_id = answer.id
        return again


def submit(task, **fields):
    return m.Submit(task, m.APPLY, FUNCTION.digest, None, b"args of " + task, **fields)


def result(dispatch, **fields):
    about = {"status": 0, "started": NOW, "finished": NOW + 1, "stdout": "", "stderr": ""}
    about["body"] = b"of " + dispatch.task
    return m.Result(dispatch.task, dispatch.attempt, **{**about, **fields})
