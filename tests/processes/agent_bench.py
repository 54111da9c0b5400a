"""A real controller and real agents without a daemon: the test speaks as operator and as client, on the wire.

Everything is waited for on the links: a notice, a reply, a result. What was started is ended by `close`, by pid.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import cloudpickle

from clusterd.core.model import connection, launch
from clusterd.core.wire import messages as m
from clusterd.core.wire import payload
from clusterd.core.wire.frames import find_body
from clusterd.link import Link, Received
from clusterd.link.dealer import poll_once
from clusterd.system import process

PATIENCE = 30.0


class Bench:
    """One cluster."""

    def __init__(self, places):
        self.places = places
        for name in ("security", "log"):
            (places.state / name).mkdir(mode=0o700)
        (places.runtime / "units").mkdir(mode=0o700)
        self.processes = []
        self.launches = itertools.count(1)
        self.requests = itertools.count(1)
        self.tasks = itertools.count(1)
        self.client = os.urandom(16)
        # What the links have said: engines by id, why others went, notices of agents by launch, replies, results by task.
        self.engines, self.gone, self.notices, self.replies, self.results = {}, {}, {}, {}, {}
        self.links = {}

    # --- processes ---

    def controller(self, **environment):
        spec = launch.ControllerSpec(
            launch=f"0000000a-{next(self.launches)}",
            cluster="test",
            profile_dir=str(self.places.state),
            runtime_dir=str(self.places.runtime),
            log_dir=str(self.places.state / "log"),
        )
        return self._start("controller", spec, environment)

    def agent(self, slots=(0, 1), environment=None, **changes):
        spec = launch.AgentSpec(
            launch=f"0000000a-{next(self.launches)}",
            cluster="test",
            engine_set="engines",
            profile_dir=str(self.places.state),
            runtime_dir=str(self.places.runtime),
            log_dir=str(self.places.state / "log"),
            connection_file=str(self.places.state / "security" / connection.ENGINE_FILE),
            slots=tuple(slots),
            **{"stop_timeout": 5.0, "work_dir": str(self.places.home), **changes},
        )
        started = self._start("agent", spec, environment or {})
        started.launch = spec.launch
        return started

    def _start(self, word, spec, environment):
        file = self.places.root / f"{spec.launch}.json"
        file.write_bytes(launch.encode(spec))
        log = (self.places.state / "log" / f"{word}.log").open("ab")
        with log:
            started = subprocess.Popen(
                [sys.executable, "-m", "clusterd", word, "--spec", str(file)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self.processes.append(started)
        return started

    def log(self):
        files = sorted((self.places.state / "log").iterdir())
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-4000:]}" for file in files)

    def identities(self):
        """Identity files of engines whose process lives, by uuid."""
        found = {}
        for file in (self.places.runtime / "units").glob("engine-*.json"):
            content = json.loads(file.read_bytes())
            who = process.ProcessIdentity(*(content[field] for field in process.ProcessIdentity._fields))
            if process.is_same_and_alive(who):
                found[content["uuid"]] = who
        return found

    def close(self):
        for link in self.links.values():
            link.close()
        for started in self.processes:
            if started.poll() is None:
                started.send_signal(signal.SIGTERM)
        for started in self.processes:
            try:
                started.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
        for who in self.identities().values():
            process.send_signal(who, signal.SIGKILL)

    # --- links ---

    def connect(self):
        """Open the links and wait until all are attached."""
        for name, role, channel in (
            ("data", "client", "data"),
            ("control", "client", "control"),
            ("operator", "operator", "control"),
        ):
            uuid = self.client if role == "client" else b"operator".ljust(16)
            self.links[name] = Link(
                lambda: None,
                self._endpoints,
                role,
                channel,
                lambda token, uuid=uuid: m.AttachClient(uuid, token, os.getpid(), "host"),
            )
        for name in ("data", "operator", "control"):
            # One token for both channels of a client.
            self.links["control"].token = self.links["data"].token
            self.links[name].open()
            self.until(lambda name=name: self.links[name].is_attached)
        self.list_engines()

    def list_engines(self):
        for name in ("control", "operator"):
            self.links[name].send([m.ListEngines(next(self.requests))])

    def _endpoints(self):
        path = self.places.state / "security" / connection.CLIENT_FILE
        try:
            return connection.decode(path.read_bytes(), str(path)).clusterd
        except FileNotFoundError:
            raise connection.ConnectionFileError("there is no controller yet") from None

    def until(self, condition):
        """Read the links until it holds; its value."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            left = end - time.monotonic()
            assert left > 0, f"waited in vain; engines {sorted(self.engines)}, gone {self.gone}\n{self.log()}"
            deadlines = [link.next_deadline() for link in self.links.values()]
            deadline = min((item for item in deadlines if item is not None), default=time.monotonic() + 0.2)
            pollables = [pollable for link in self.links.values() for pollable in link.pollables()]
            poll_once(pollables, max(0.0, min(deadline - time.monotonic(), 0.2, left)))
            for link in self.links.values():
                for event in [*link.receive(), *link.tick()]:
                    if isinstance(event, Received):
                        self._take(event)
        return value

    def _take(self, received):
        position = 0
        for message in received.messages:
            match message:
                case m.EnginesChanged():
                    self.engines |= {info.id: info for info in message.added}
                    for gone in message.removed:
                        self.engines.pop(gone.id, None)
                        self.gone[gone.id] = gone.cause
                case m.AgentNotice():
                    self.notices[message.launch] = message
                case m.Reply() | m.ErrorReply():
                    self.replies[message.request] = message
                    value = getattr(message, "value", None)
                    if isinstance(value, list):
                        infos = [m.EngineInfo(*item) if isinstance(item, list) else item for item in value]
                        self.engines |= {info.id: info for info in infos}
                case m.Deliver():
                    own = received.payload[position : position + message.frames]
                    position += message.frames
                    self.results[message.task] = (message, find_body(message.body, own))
                case m.Failed():
                    self.results[message.task] = (message, None)

    # --- what tests ask for ---

    def has(self, n):
        """Wait until there are n engines, all of them registered and not suspect; slot -> EngineInfo."""
        self.until(lambda: len(self.engines) == n and all(info.state != "suspect" for info in self.engines.values()))
        return {info.slot: info for info in self.engines.values()}

    def submit(self, text, target=None, **options):
        """Submit a cell; the task's id."""
        task = self.client[:8] + next(self.tasks).to_bytes(8, "big")
        body, _ = payload.pack(text, cloudpickle.dumps)
        extra = m.TaskOptions(**options) if options else None
        self.links["data"].send([m.Submit(task, m.EXECUTE, b"", target, body, 0, extra)])
        return task

    def result(self, task):
        """The text that a cell showed; or the exception, or the Failed."""
        message, found = self.until(lambda: self.results.get(task))
        if isinstance(message, m.Failed):
            return message
        if message.status == m.STATUS_ERROR:
            return payload.unpack_failure(found[0]).to_exception()
        return payload.unpack(*found)

    def run(self, text, target=None):
        return self.result(self.submit(text, target))

    def command(self, engine, word):
        """Command one engine; the reply's value."""
        request = next(self.requests)
        self.links["control"].send([m.EngineCommand(request, [engine], word)])
        return self.until(lambda: self.replies.get(request)).value

    def desire(self, agent, generation, slots):
        request = next(self.requests)
        self.links["operator"].send([m.SetDesired(request, agent.launch, generation, list(slots))])
        return self.until(lambda: self.replies.get(request))

    def resume(self, agent, slots=None):
        request = next(self.requests)
        self.links["operator"].send([m.ResumeSlots(request, agent.launch, slots)])
        return self.until(lambda: self.replies.get(request))

    def slots(self, agent, condition):
        """Wait until the agent's report fulfils `condition(slots by number)`; those slots."""

        def holds():
            notice = self.notices.get(agent.launch)
            slots = {} if notice is None else {slot.slot: slot for slot in notice.slots}
            return slots if slots and condition(slots) else None

        return self.until(holds)
