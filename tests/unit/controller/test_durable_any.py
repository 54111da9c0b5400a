"""Whatever comes in whatever order, late or twice, and whenever the controller is killed: each task runs once and is told once.

A model of a client and of two engines that never die speaks to a durable controller; what they do, when the store commits and when the
controller is killed is drawn. At the end everybody is there and time passes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from clusterd.controller import receipts
from clusterd.controller.recovery import place
from clusterd.core.wire import messages as m
from tests.unit.controller.durable import FUNCTION, Cluster, result, submit

HERE = place("engines", "here")


class ModelEngine:
    """An engine: what it was given, what it has run and nobody has acknowledged."""

    def __init__(self, scene, slot):
        self.scene, self.slot = scene, slot
        self.peer = scene.world.engine(slot=slot)
        self.controller = scene.world
        self.given = []
        # (number of the message, result); the number is None while it is not sent on the present connection.
        self.outbox = []
        self.past = []

    def hear(self):
        self.peer.read()
        self.given += self.peer.messages(m.Dispatch)
        self.outbox = [(seq, each) for seq, each in self.outbox if seq is None or seq > self.peer.session.acked]

    def run(self):
        if self.controller is self.scene.world:
            self.hear()
        if self.given:
            dispatch = self.given.pop(0)
            self.scene.executions[dispatch.task] += 1
            self.send(result(dispatch))

    def send(self, answer):
        self.past.append(answer)
        if self.peer.is_open and self.controller is self.scene.world:
            self.peer.say(answer)
            self.outbox.append((self.peer.session.sent, answer))
        else:
            self.outbox.append((None, answer))

    def repeat(self):
        """Say something once more that was said long ago."""
        if self.past and self.peer.is_open and self.controller is self.scene.world:
            self.peer.say(self.past[0])

    def vanish(self):
        if self.peer.is_open and self.controller is self.scene.world:
            self.hear()
            self.peer.vanish()

    def state(self):
        return m.EngineState(self.peer.uuid, self.slot, 1, "idle", id=self.peer.wire_id, has_results=bool(self.outbox))

    def back(self):
        if self.peer.is_open and self.controller is self.scene.world:
            return
        if self.controller is not self.scene.world:
            self.controller = self.scene.world
        held = [(each.task, each.attempt) for each in [*self.given, *(answer for _, answer in self.outbox)]]
        message = self.peer.attach_message(held=held, wanted_id=self.peer.wire_id, slot=self.slot)
        wire_id = self.peer.wire_id
        self.peer = self.scene.cluster.back(self.peer, message)
        assert self.peer.wire_id == wire_id
        again, self.outbox = [answer for _, answer in self.outbox], []
        for answer in again:
            self.peer.say(answer)
            self.outbox.append((self.peer.session.sent, answer))


class ModelClient:
    """A client: what it wants, what it was told."""

    def __init__(self, scene):
        self.scene = scene
        self.peer = scene.world.client()
        self.controller = scene.world
        self.wanted = {}
        self.told = Counter()
        self.acknowledged = set()
        # (number of the message, task)
        self.sent = []
        self.peer.say(FUNCTION)

    @property
    def is_there(self):
        return self.peer.is_open and self.controller is self.scene.world

    def submit(self, copies):
        task = bytes([len(self.told) + len(self.wanted)]) * 16
        self.wanted[task] = submit(task)
        for _ in range(copies if self.is_there else 0):
            self.peer.say(self.wanted[task])
            self.sent.append((self.peer.session.sent, task))

    def hear(self):
        if self.controller is self.scene.world:
            self.peer.read()
        assert self.peer.messages(m.Failed) == []
        for deliver in self.peer.messages(m.Deliver):
            assert deliver.body == b"of " + deliver.task
            # What it does not wait for it drops.
            if self.wanted.pop(deliver.task, None) is not None:
                self.told[deliver.task] += 1
        acked = self.peer.session.acked
        self.acknowledged |= {task for seq, task in self.sent if seq <= acked}

    def vanish(self):
        if self.is_there:
            self.hear()
            self.peer.vanish()

    def back(self):
        if not self.is_there:
            self.controller = self.scene.world
            self.peer, self.sent = self.scene.cluster.back(self.peer), []
            # What it has read it has dealt with before it says the next word, which acknowledges it.
            self.hear()
            self.peer.say(FUNCTION)
            for task, message in self.wanted.items():
                message.is_offered_again = True
                self.peer.say(message)
                self.sent.append((self.peer.session.sent, task))


class Scene:
    """All of them."""

    def __init__(self, root):
        self.cluster = Cluster(root)
        self.executions = Counter()
        self.engines = [ModelEngine(self, 0), ModelEngine(self, 1)]
        self.client = ModelClient(self)

    @property
    def world(self):
        return self.cluster.world

    def do(self, what):
        word, which = what
        engine = self.engines[which]
        match word:
            case "submit":
                self.client.submit(1 + which)
            case "run":
                engine.run()
            case "repeat":
                engine.repeat()
            case "engine vanishes":
                engine.vanish()
            case "engine is back":
                engine.back()
            case "client vanishes":
                self.client.vanish()
            case "client is back":
                self.client.back()
            case "client acknowledges":
                if self.client.is_there:
                    self.client.hear()
                    self.client.peer.acknowledge()
            case "hold":
                self.world.reins.may_write.clear()
            case "commit":
                self.world.commit()
            case "pass time":
                self.world.pass_time(3.0)
            case "kill":
                self.kill(engine)
        self.world.turn()
        if self.client.is_there:
            self.client.hear()

    def kill(self, busy):
        """Kill the controller; one engine runs a task before its agent comes to look, and revokes what has not begun."""
        for engine in self.engines:
            if engine.controller is self.world:
                engine.hear()
        if self.client.is_there:
            self.client.hear()
        self.cluster.succeed([HERE])
        busy.run()
        states = [engine.state() for engine in self.engines]
        for engine in self.engines:
            engine.given = []
        agent = self.world.agent(engines=states)
        agent.say(m.AgentReport(0, []))

    def finish(self, *, has_client):
        for _ in range(60):
            for engine in self.engines:
                engine.back()
            if has_client:
                self.client.back()
            self.world.commit()
            for engine in self.engines:
                engine.run()
            self.world.pass_time(0.3)
            self.world.commit()
            if has_client:
                self.client.hear()
                self.client.peer.acknowledge()
                self.world.turn()


WORDS = [
    "submit", "submit", "run", "run", "run", "repeat", "engine vanishes", "engine is back", "engine is back",
    "client vanishes", "client is back", "client acknowledges", "hold", "commit", "commit", "pass time", "kill", "kill",
]  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 1)), min_size=20, max_size=60)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, has_client=st.booleans())
def test_each_task_runs_once_and_is_told_once(steps, has_client):
    root = Path(tempfile.mkdtemp(prefix="cd-"))
    scene = None
    pages = mock.patch.object(receipts, "PAGE_TASKS", 2)
    try:
        pages.start()
        scene = Scene(root)
        for step in steps:
            scene.do(step)
        scene.world.reins.may_write.set()
        if not has_client:
            scene.client.vanish()
        scene.finish(has_client=has_client)
        client = scene.client
        assert all(count == 1 for count in scene.executions.values())
        assert all(count == 1 for count in client.told.values())
        if has_client:
            assert not client.wanted
            assert scene.executions.keys() == client.told.keys()
            assert scene.world.store.owed_to(client.peer.uuid.hex()) == []
        else:
            # Nobody waits for them any more, and yet they have run, and what came of it is in the store.
            left = client.acknowledged & client.wanted.keys()
            assert left <= scene.executions.keys()
            owed = {bytes.fromhex(msg_id) for msg_id, _ in scene.world.store.owed_to(client.peer.uuid.hex())}
            assert left <= owed
        assert not scene.world.tasks.payloads
    finally:
        pages.stop()
        if scene is not None:
            scene.world.reins.may_write.set()
            scene.world.store.close()
        shutil.rmtree(root)
