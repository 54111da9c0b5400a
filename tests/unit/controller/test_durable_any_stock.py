"""The same with a stock client and a stock engine: whenever the controller is killed, what was written down is done and told.

Each task has an outcome in the store, runs once on an engine of ours, and its client hears of it once at the most. A stock engine repeats
nothing: there a task may run again, and then its attempt says so.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from clusterd.controller.recovery import place
from clusterd.core.wire import jupyter
from clusterd.core.wire import messages as m
from clusterd.storage.taskstore.row import REQUEST
from tests.unit.controller.durable import NOW, Cluster, DurableStockWorld
from tests.unit.controller.stock import StockClient, StockEngine
from tests.unit.controller.test_durable_any import ModelEngine
from tests.unit.controller.world import result_of

HERE = place("engines", "here")
REPLY = jupyter.pack_reply(jupyter.Reply(b'{"status":"ok"}', b'{"status":"ok"}'))


class OurEngine(ModelEngine):
    """One of ours; `scene.executions` counts."""

    def run(self):
        if self.controller is self.scene.world:
            self.hear()
        if self.given:
            dispatch = self.given.pop(0)
            self.scene.executions[dispatch.task.decode()] += 1
            self.send(result_of(dispatch, REPLY, started=NOW, finished=NOW + 1))


class ModelStockEngine:
    """A stock engine: does one thing after another, and sends each answer once, when there is somebody to take it."""

    def __init__(self, scene):
        self.scene = scene
        self.engine = StockEngine(scene.world).join()
        self.given = []
        self.executions = Counter()
        self.attempts = Counter()

    def hear(self):
        self.given += self.engine.requests()

    def run(self):
        self.hear()
        if self.given:
            request = self.given.pop(0)
            if request.kind == "apply_request":
                msg_id = request.header["msg_id"]
                self.executions[msg_id] += 1
                self.attempts[msg_id] = max(self.attempts[msg_id], request.header.get("attempt", 0))
            self.engine.reply(request)


class Scene:
    """All of them."""

    def __init__(self, root):
        self.cluster = Cluster(root, DurableStockWorld)
        self.executions = Counter()
        self.client = StockClient(self.world)
        self.stock = ModelStockEngine(self)
        self.engines = [OurEngine(self, 0), OurEngine(self, 1)]
        self.sent, self.written, self.told = [], [], Counter()

    @property
    def world(self):
        return self.cluster.world

    def hear(self):
        for channel in ("mux", "task", "broadcast"):
            for reply in self.client.heard(channel):
                assert reply.status == "ok", reply
                self.told[reply.parent["msg_id"]] += 1

    def submit(self, which):
        header = self.client.apply(self.stock.engine.name) if which else self.client.balanced()
        self.sent.append(header["msg_id"])

    def commit(self):
        self.world.commit()
        # A request for an engine that has not come back is not taken yet.
        self.written += [row.msg_id for row in self.world.store.whole(self.sent) if row.stored & REQUEST]
        self.sent = [msg_id for msg_id in self.sent if msg_id not in self.written]

    def do(self, what):
        word, which = what
        match word:
            case "submit":
                self.submit(which)
            case "run":
                self.engines[which].run()
            case "run stock":
                self.stock.run()
            case "beat":
                self.world.beat(self.stock.engine)
            case "engine vanishes":
                self.engines[which].vanish()
            case "engine is back":
                self.engines[which].back()
            case "hold":
                self.world.reins.may_write.clear()
            case "commit":
                self.commit()
            case "pass time":
                self.pass_time(3.0)
            case "kill":
                self.kill(self.engines[which])
        self.world.turn()
        self.hear()

    def pass_time(self, seconds):
        for _ in range(int(seconds / 0.25)):
            self.world.beat(self.stock.engine)

    def kill(self, busy):
        for engine in self.engines:
            if engine.controller is self.world:
                engine.hear()
        self.stock.hear()
        self.hear()
        self.cluster.succeed([HERE])
        self.sent = []
        self.cluster.here(self.client)
        self.cluster.here(self.stock.engine)
        busy.run()
        states = [engine.state() for engine in self.engines]
        for engine in self.engines:
            engine.given = []
        agent = self.world.agent(engines=states)
        agent.say(m.AgentReport(0, []))

    @property
    def is_over(self):
        return not (self.world.tasks.payloads or self.world.tasks.ledger._waiting or self.sent)

    def finish(self):
        self.world.reins.may_write.set()
        for _ in range(100):
            if self.is_over:
                break
            for engine in self.engines:
                engine.back()
            self.commit()
            for engine in (*self.engines, self.stock):
                engine.run()
            self.pass_time(0.25)
        self.client.send("mux", "comm_msg", to="f" * 32)
        for _ in range(5):
            self.commit()
        self.hear()


WORDS = [
    "submit", "submit", "submit", "run", "run", "run stock", "run stock", "engine vanishes", "engine is back",
    "engine is back", "beat", "hold", "commit", "commit", "commit", "pass time", "kill", "kill",
]  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 1)), min_size=20, max_size=50)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS)
def test_what_was_written_down_is_done_and_told_once_at_the_most(steps):
    root = Path(tempfile.mkdtemp(prefix="cd-"))
    scene = None
    try:
        scene = Scene(root)
        for step in steps:
            scene.do(step)
        scene.finish()
        assert not scene.world.tasks.payloads
        rows = {row.msg_id: row for row in scene.world.store.whole(scene.written)}
        assert {msg_id for msg_id, row in rows.items() if row.outcome and row.outcome.status == "ok"} == set(
            scene.written
        )
        assert all(count == 1 for count in scene.told.values())
        assert scene.world.store.owed_to(scene.client.framing.session) == []
        for msg_id in rows:
            ours, theirs = scene.executions[msg_id], scene.stock.executions[msg_id]
            assert ours <= 1
            assert theirs <= 1 + scene.stock.attempts[msg_id]
            assert ours + theirs >= 1
        assert scene.world.stock_counters["failed"] == 0
    finally:
        if scene is not None:
            scene.world.reins.may_write.set()
            scene.world.store.close()
        shutil.rmtree(root)
