"""A controller with its engines in one thread: handshakes, sessions and tasks of core.wire, and switches for what goes wrong.

It speaks over the Unix streams of the real one and shares no code with it but core.wire and the framing. `python -m
tests.fakes.controller DIRECTORY` runs one as a process of its own, for measurements.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path

import cloudpickle

from clusterd.core.model import connection
from clusterd.core.wire import handshake, payload
from clusterd.core.wire import messages as m
from clusterd.core.wire.frames import find_body, place_body
from clusterd.errors import WireError
from clusterd.system import stream, unix_sockets

LIMITS = stream.PartLimits(32, 2**24, 2**32, 2000)


class Peer:
    """One connection."""

    def __init__(self, socket, endpoint):
        self.stream = stream.Stream(socket, LIMITS)
        self.endpoint = endpoint
        self.session = None
        self.is_attached = False
        self.outbox = []
        self.frames = []


class FakeController:
    """See the head of this module.

    Attributes:
        is_holding: keep what is submitted, answer with `release`.
        is_silent: read, and answer nothing.
        held: tasks that were submitted and not run: (peer, Submit, frames).
        submits: every Submit that came, in order, with those that came in a Broadcast.
        broadcasts: every Broadcast that came.
        functions: digests of every Function that came, in order.
        forgotten: digests to ask for again with NeedFunction.
    """

    def __init__(self, directory, engines=2, limits=None):
        self.directory = Path(directory)
        self.key = os.urandom(32)
        self.secret = os.urandom(32)
        self.limits = limits or m.Limits(max_targets=1000)
        self.file = self.directory / connection.CLIENT_FILE
        self.incarnation = b""
        self.engines = {}
        self.next_engine = 0
        self.namespaces = {}
        self.is_holding = self.is_silent = False
        self.held, self.submits, self.functions, self.waiting = [], [], [], []
        self.broadcasts = []
        self.overloads = 0
        self.known = {}
        self.requests = []
        self.attached = []
        self.goodbyes = 0
        self.add_engines(engines)
        self._calls = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = None
        self.start()

    # --- driven by tests ---

    def start(self):
        """Begin to listen, as a new incarnation."""
        self.incarnation = os.urandom(16)
        self._peers = {}
        self._listeners = {}
        for name in ("client-data", "client-control"):
            listener = unix_sockets.listen(self.directory / name)
            self._listeners[listener.fileno()] = (listener, name)
        endpoints = connection.NativeEndpoints(
            1,
            f"unix://{self.directory}/client-data",
            f"unix://{self.directory}/client-control",
            self.key.hex(),
            "fake",
            self.incarnation.hex(),
        )
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(descriptor, connection.encode(connection.ConnectionFile(endpoints)))
        os.close(descriptor)
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="fake controller")
        self._thread.start()

    def stop(self, *, is_crash=False):
        """End; as a crash all state of tasks is lost."""
        if self._thread is not None:
            self._is_over = True
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._thread = None
        if is_crash:
            self.held, self.known = [], {}

    def close(self):
        """End for good."""
        self.stop()
        os.close(self._wake)

    def do(self, function):
        """Run a function in the thread of the controller and return its value."""
        done = threading.Event()
        box = []
        self._calls.append(lambda: (box.append(function()), done.set()))
        os.eventfd_write(self._wake, 1)
        assert done.wait(10)
        return box[0]

    def release(self, *, count=None):
        """Run what is held."""

        def run():
            waiting, self.held = self.held[:count], self.held[len(self.held) if count is None else count :]
            for entry in waiting:
                self._execute(*entry)

        self.do(run)

    def drop_connections(self):
        """Close all connections; the state of the tasks stays."""
        self.do(lambda: [self._forget(peer) for peer in list(self._peers.values())])

    def add_engines(self, count):
        infos = []
        for _ in range(count):
            number = self.next_engine
            self.next_engine += 1
            infos.append(m.EngineInfo(number, os.urandom(16), "engines", number, "", "here", 1, "3.11", "idle", 0.0))
            self.engines[number] = infos[-1]
            self.namespaces[number] = {}
        return infos

    def announce(self, added=(), removed=()):
        """Tell the subscribers."""
        self.do(lambda: self._tell_all(m.EnginesChanged(list(added), list(removed))))

    def say(self, message, endpoint="client-data", frames=()):
        """Say something to all peers of an endpoint."""
        self.do(lambda: [self._say(p, message, frames) for p in self._peers.values() if p.endpoint == endpoint])

    # --- the thread ---

    def _run(self):
        while not self._is_over:
            poller = select.poll()
            poller.register(self._wake, select.POLLIN)
            for descriptor in self._listeners:
                poller.register(descriptor, select.POLLIN)
            for descriptor, peer in self._peers.items():
                poller.register(descriptor, select.POLLIN | (select.POLLOUT if peer.stream.wants_write else 0))
            for descriptor, _ in poller.poll(1000):
                if descriptor == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
                elif descriptor in self._listeners:
                    listener, name = self._listeners[descriptor]
                    accepted, _ = listener.accept()
                    accepted.setblocking(False)
                    self._peers[accepted.fileno()] = Peer(accepted, name)
                elif descriptor in self._peers:
                    self._serve(self._peers[descriptor])
            while self._calls:
                self._calls.popleft()()
            for peer in list(self._peers.values()):
                self._flush(peer)
        for peer in list(self._peers.values()):
            self._forget(peer)
        for listener, name in self._listeners.values():
            listener.close()
            (self.directory / name).unlink()

    def _forget(self, peer):
        self._peers.pop(peer.stream.fileno(), None)
        peer.stream.close()
        peer.session = None

    def _serve(self, peer):
        try:
            if peer.stream.wants_write:
                peer.stream.flush()
            while (parts := peer.stream.receive()) is not None:
                self._take(peer, parts)
        except (stream.Closed, stream.Malformed):
            self._forget(peer)

    def _take(self, peer, parts):
        mac, header, frames = bytes(parts[0]), bytes(parts[1]), list(map(memoryview, parts[2:]))
        if peer.session is None:
            try:
                hello = handshake.read_hello(self.key, peer.endpoint, mac, header)
            except WireError:
                peer.stream.send(handshake.reset(self.key, mac))
                return
            greeting, peer.session = handshake.welcome(
                self.key,
                hello,
                challenge=os.urandom(16),
                controller=self.incarnation,
                cluster="fake",
                limits=self.limits,
                has_digests=False,
            )
            peer.stream.send(greeting)
            return
        content = peer.session.open(mac, header, frames)
        if self.is_silent:
            return
        for message in content.messages:
            count = getattr(message, "frames", 0)
            own, frames = frames[:count], frames[count:]
            self._handle(peer, message, own)

    def _say(self, peer, message, frames=()):
        if peer.session is not None and not self.is_silent:
            peer.outbox.append(message)
            peer.frames.extend(frames)

    def _flush(self, peer):
        if peer.session is not None and (peer.outbox or peer.session.owes_ack) and not self.is_silent:
            frames = peer.session.seal(peer.outbox, peer.frames)
            peer.outbox, peer.frames = [], []
            with contextlib.suppress(stream.Closed):
                peer.stream.send(frames)

    def _tell_all(self, message):
        for peer in self._peers.values():
            if peer.endpoint == "client-control":
                self._say(peer, message)

    # --- what is said ---

    def _handle(self, peer, message, frames):
        handler = {
            m.AttachClient: self._attach,
            m.Function: self._function,
            m.Submit: self._submit,
            m.Broadcast: self._broadcast,
            m.Ping: lambda peer, _message, _frames: self._say(peer, m.Pong()),
            m.Goodbye: self._goodbye,
        }.get(type(message), self._request)
        handler(peer, message, frames)

    def _attach(self, peer, message, _frames):
        peer.is_attached = True
        self.attached.append((peer.endpoint, message))
        self._say(peer, m.Attached(handshake.token_of(self.secret, "client", message.uuid)))

    def _goodbye(self, _peer, _message, _frames):
        self.goodbyes += 1

    def _function(self, _peer, message, frames):
        self.functions.append(message.digest)
        self.known[message.digest] = payload.unpack(*find_body(message.body, frames))[0]
        waiting, self.waiting = self.waiting, []
        for entry in waiting:
            self._submit(*entry)

    def _submit(self, peer, message, frames):
        self.submits.append(message)
        if self.overloads:
            self.overloads -= 1
            self._say(peer, m.Failed(message.task, 0, "overloaded", "too much"))
        elif message.function and message.function not in self.known:
            self.submits.pop()
            self.waiting.append((peer, message, frames))
            self._say(peer, m.NeedFunction(message.function))
        elif self.is_holding:
            self.held.append((peer, message, frames))
        else:
            self._execute(peer, message, frames)

    def _broadcast(self, peer, message, frames):
        self.broadcasts.append(message)
        for task, target in zip(message.tasks, message.targets, strict=True):
            rest = (message.kind, message.function, target, message.body, message.frames, message.options)
            self._submit(peer, m.Submit(task, *rest, message.is_offered_again), frames)

    def _execute(self, peer, message, frames):
        target = message.target
        if isinstance(target, list):
            target = target[0]
        if target is None:
            target = min(self.engines, default=-1)
        if target not in self.engines:
            self._say(peer, m.Failed(message.task, 0, "unschedulable", f"engine {target} is gone"))
            return
        started = time.time()
        out, shown, status, index = io.StringIO(), None, m.STATUS_OK, -1
        try:
            with contextlib.redirect_stdout(out) if message.kind == m.EXECUTE else contextlib.nullcontext():
                value = self._run_task(message, frames, self.namespaces[target])
            body, packed = payload.pack(value, cloudpickle.dumps)
        except Exception as error:  # noqa: BLE001
            index = getattr(error, "_index", -1)
            text = f"On engine fake/engines/{target}:\n{traceback.format_exc()}"
            failure = payload.RemoteFailure(
                type(error).__qualname__,
                str(error),
                text,
                f"fake/engines/{target}",
                index,
                payload.pack_exception(error, cloudpickle.dumps),
            )
            status, body, packed = m.STATUS_ERROR, payload.pack_failure(failure), []
        body, packed = place_body(body, packed)
        self._say(
            peer,
            m.Deliver(
                message.task, 0, target, status, started, time.time(), out.getvalue(), "", body, len(packed), shown
            ),
            packed,
        )

    def _run_task(self, message, frames, names):
        value = payload.unpack(*find_body(message.body, frames))
        if message.kind == m.APPLY:
            return self.known[message.function](*value[0], **value[1])
        if message.kind == m.MAP:
            results = []
            try:
                for items in zip(*value, strict=True):
                    results.append(self.known[message.function](*items))  # noqa: PERF401
            except Exception as error:
                error._index = len(results)
                raise
            return results
        if message.kind == m.EXECUTE:
            try:
                shown = eval(value, names)  # noqa: S307
            except SyntaxError:
                shown = exec(value, names)  # noqa: S102
            return None if shown is None else repr(shown)
        if message.kind == m.PUSH:
            names.update(value)
            return None
        if message.kind == m.PULL:
            for name in value:
                if name not in names:
                    raise NameError(f"name {name!r} is not defined")
            return [names[name] for name in value]
        names.clear()
        return None

    def _request(self, peer, message, _frames):
        self.requests.append(message)
        value = {}
        if isinstance(message, m.ListEngines):
            value = list(self.engines.values())
        elif isinstance(message, m.QueueStatus):
            value = {"engines": {number: {"queued": 0} for number in self.engines}, "unassigned": len(self.held)}
        elif isinstance(message, m.Abort):
            wanted = [entry for entry in self.held if message.tasks is None or entry[1].task in message.tasks]
            self.held = [entry for entry in self.held if entry not in wanted]
            for holder, submit, _ in wanted:
                self._say(holder, m.Failed(submit.task, 0, "aborted", "it was aborted"))
            value = {"aborted": len(wanted)}
        elif isinstance(message, m.EngineCommand):
            value = {"done": message.engines, "failed": {}}
            if message.command == "kill":
                value = {"done": [], "failed": dict.fromkeys(message.engines, "it would not die")}
        elif isinstance(message, m.ControllerStatus):
            self._say(peer, m.ErrorReply(message.request, "denied", "operators only", "be one"))
            return
        self._say(peer, m.Reply(message.request, value))


def main(directory):
    controller = FakeController(directory, engines=4)
    sys.stdout.write(f"{controller.file}\n")
    sys.stdout.flush()
    sys.stdin.read()
    controller.close()


if __name__ == "__main__":
    main(sys.argv[1])
