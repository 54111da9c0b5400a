"""`clusterd controller`: reads what it is told, binds, writes the connection files, turns the loop, and cleans up.

Exit codes: 0 asked to end; 1 cannot start (the reason is on stderr); 2 usage. The connection files exist exactly
while the controller listens, unless they are to be reused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from clusterd.controller import credentials, sockets
from clusterd.controller.backlog import Backlog
from clusterd.controller.claim import claimed
from clusterd.controller.compat.edge import Edge
from clusterd.controller.compat.front import Front
from clusterd.controller.compat.keys import stock_keys
from clusterd.controller.compat.sockets import StockSockets
from clusterd.controller.dispatch import Performer
from clusterd.controller.endpoint import Endpoint
from clusterd.controller.functions import DurableFunctions
from clusterd.controller.gate import Gate
from clusterd.controller.hub import Hub
from clusterd.controller.ledger import Ledger
from clusterd.controller.loop import Loop
from clusterd.controller.operations import Operations
from clusterd.controller.options import parse
from clusterd.controller.recorder import Recorder
from clusterd.controller.recovery import Recovery
from clusterd.controller.requests import Requests
from clusterd.controller.rotation import Rotation
from clusterd.controller.submits import MAX_TARGETS
from clusterd.controller.tasks import Tasks
from clusterd.controller.wire_ids import WireIds
from clusterd.core.model.page import epoch_of
from clusterd.core.model.task import Scheme
from clusterd.core.scheduler import Scheduler, Settings
from clusterd.core.wire.messages import Limits
from clusterd.errors import ClusterdError, LaunchError
from clusterd.storage.taskstore.durable import DurableStore
from clusterd.storage.taskstore.none import NoStore
from clusterd.storage.taskstore.opening import open_store
from clusterd.system import fault, log_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.core.model import launch
    from clusterd.core.model.secrets import Secrets
    from clusterd.storage.taskstore.base import TaskStore

log = logging.getLogger(__name__)
MIN_RECORDS = 1000
LAST_WORDS_MS = 200
# Replies and notices that a peer leaves unread on its control connection: it can ask for all of them again.
MAX_UNREAD = 8 * 1024 * 1024


def main(argv: Sequence[str]) -> int:
    """Run a controller until it is told to end."""
    try:
        spec, log_format = parse(argv)
    except ClusterdError as error:
        sys.stderr.write(f"clusterd controller: {error}\n")
        return 1
    log_lines.configure(log_format)
    try:
        with claimed(spec):
            Controller(spec).run()
    except ClusterdError as error:
        log.error("cannot run: %s", error)  # noqa: TRY400 - a message for people, not a traceback
        return 1
    return 0


class Controller:
    """One controller from start to end.

    Args:
        spec: what it is told; its directories are claimed.

    Raises:
        ClusterdError: it cannot start; nothing is left behind.
    """

    def __init__(self, spec: launch.ControllerSpec) -> None:
        self._spec = spec
        self._incarnation = secrets.token_bytes(16)
        self._security = Path(spec.profile_dir) / "security"
        self._runtime = Path(spec.runtime_dir)
        self._secrets_file = credentials.secrets_file(self._security, spec.cluster_id)
        kept = credentials.load_secrets(self._secrets_file) if spec.reuse else None
        self._has_predecessor = kept is not None
        self._secrets = kept or credentials.new_secrets()
        # Opened by `run`: until then nothing is kept.
        self.store: TaskStore = NoStore()
        self._ids = WireIds(self._secrets.next_engine_id, self._reserve_ids if spec.reuse else None)
        self.rotation: Rotation
        self._limits = Limits(
            max_message=spec.max_message,
            max_tasks=spec.client_credit.tasks,
            max_task_bytes=spec.client_credit.memory,
            max_targets=MAX_TARGETS,
        )

    def run(self) -> None:
        """Bind, announce, serve, clean up."""
        _set_title(f"clusterd controller {self._spec.cluster}")
        _raise_descriptor_limit()
        with contextlib.ExitStack() as held:
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            held.callback(context.term)
            wakeup, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            held.callback(os.close, wakeup)
            held.callback(os.close, wakeup_write)
            bound = self._bind(context)
            held.callback(bound.close)
            stock = self._bind_stock(context)
            if stock is not None:
                # What was said last must leave: clients close themselves when they are told of the end.
                held.callback(stock.flush_and_close, ("notification", "registration"), LAST_WORDS_MS)
            self.store = self._open_store()
            held.callback(self.store.close)
            self._serve(bound, stock, wakeup, wakeup_write, held)

    def _open_store(self) -> TaskStore:
        spec = self._spec
        directory = Path(spec.profile_dir) / "db"
        kept = (spec.records, spec.sqlite, spec.mongodb)
        where = (spec.cluster, spec.cluster_id)
        return open_store(spec.database, directory, *kept, *where, durable=spec.durable)

    def _serve(
        self,
        bound: sockets.Listening,
        stock: StockSockets | None,
        wakeup: int,
        wakeup_write: int,
        held: contextlib.ExitStack,
    ) -> None:
        spec = self._spec
        curve_serverkey = self._secrets.curve_public if spec.stock == "curve" else None
        stock_endpoints = {
            side: stock.endpoints(side, self._secrets.stock_key, curve_serverkey, spec.task_scheme)
            for side in ("client", "engine")
            if stock is not None
        }
        connection_files = credentials.ConnectionFiles(
            self._security,
            bound.addresses,
            self._secrets,
            cluster=self._spec.cluster,
            controller=self._incarnation,
            curve=bound.has_curve,
            location=self._spec.location or os.uname().nodename,
            stock=stock_endpoints,
            cluster_id=spec.cluster_id,
        )
        loop, endpoints = self._assemble(bound, stock, wakeup)
        self.rotation.files = connection_files
        _install_signals(loop, wakeup_write)
        if isinstance(self.store, DurableStore):
            self.store.on_commit = lambda: _wake(wakeup_write)
        held.callback(signal.set_wakeup_fd, -1)
        if not self._spec.reuse:
            held.callback(connection_files.remove)
        try:
            if self._spec.reuse:
                self._save_secrets(self._secrets)
            fault.point("controller.bound")
            connection_files.write()
        except OSError as error:
            raise LaunchError(f"cannot write in {self._security}: {error.strerror}") from error
        log.info("listening on %s", ", ".join(bound.addresses.values()))
        fault.point("controller.announced")
        reason = loop.run(endpoints)
        log.info("ends: %s", reason)
        if self._spec.reuse:
            self._secrets.next_engine_id = self._ids.next
            if not loop.has_engines:
                # Engines are stopped before their controller: the cluster's life is over, and the next one counts from 0.
                self._secrets.next_engine_id = 0
                self._secrets.places = []
                self._secrets.stock_engines = {}
            self._keep_secrets()

    def _assemble(
        self, bound: sockets.Listening, stock: StockSockets | None, wakeup: int
    ) -> tuple[Loop, dict[str, Endpoint]]:
        spec = self._spec
        # `database: none` keeps just what recognises repeats; the scheduler never keeps the bytes of results.
        max_records = MIN_RECORDS if spec.database == "none" else spec.records.tasks
        scheduler = Scheduler(
            Settings(
                max_records=max_records,
                max_record_bytes=spec.records.memory,
                scheme=Scheme(spec.task_scheme),
                seed=int.from_bytes(self._incarnation, "little"),
            )
        )
        performer = Performer(spec.client_credit.results)
        recovery = Recovery(self._secrets.places, time.monotonic() if self._has_predecessor else None)
        tasks = Tasks(scheduler, performer, self._limits, recovery)
        hub = Hub(tasks, self._secrets.token_secret_bytes, self._ids)
        operations = Operations(hub, tasks, epoch_of(self._incarnation))
        performer.hub, performer.tasks, performer.operations = hub, tasks, operations
        if not self.store.keeps_nothing:
            performer.recorder = tasks.recorder = Recorder(self.store)
        has_digests = not (bound.is_unix or bound.has_curve)
        endpoints: dict[str, Endpoint] = {}
        about: dict[str, Any] = {
            "cluster": spec.cluster,
            "launch": spec.launch,
            "controller": self._incarnation.hex(),
            "addresses": bound.addresses,
            "database": spec.database,
            "durable": spec.durable,
        }

        def shut_down(reason: str) -> None:
            loop.ends_because = reason

        rotation = self.rotation = Rotation(self._secrets, self._save_secrets if spec.reuse else None, time.monotonic())
        requests = Requests(
            hub,
            tasks,
            operations,
            performer,
            counters=bound.counters,
            shut_down=shut_down,
            about=about,
            store=self.store,
            rotation=rotation,
        )

        def remember() -> None:
            # One that is killed while it recovers leaves its successor as much to wait for.
            self._secrets.places = sorted({*hub.places, *recovery.places(time.monotonic())})
            if loop.front is not None:
                self._secrets.stock_engines = loop.front.engines.known
                if self._secrets.retired:
                    self._secrets.retired[-1].stock_engines = loop.front.engines_with_earlier_key
            if self._spec.reuse:
                self._keep_secrets()

        loop = Loop(
            hub=hub,
            tasks=tasks,
            operations=operations,
            requests=requests,
            performer=performer,
            rotation=rotation,
            wakeup=wakeup,
            remember=remember,
        )
        gate = loop.gate = self._promise(performer, recovery)
        loop.backlog = Backlog(self.store) if gate is None else gate.backlog
        if stock is not None:
            edge = Edge(
                stock,
                stock_keys(self._secrets, time.time()),
                hub=hub,
                tasks=tasks,
                operations=operations,
                ping=spec.ping,
                shut_down=shut_down,
                counters=bound.counters.setdefault("stock", Counter()),
                has_digests=has_digests,
                ip=spec.ip,
                is_curve=spec.stock == "curve",
                store=self.store,
                gate=gate,
            )
            loop.front = rotation.front = Front(edge)
            expected = self._secrets.engines_to_expect(time.time())
            loop.front.engines.expect(expected)
            for wire_id in expected.values():
                recovery.stock_engine_expected(wire_id)
        for name, server in bound.servers.items():
            endpoints[name] = Endpoint(
                server,
                name,
                keys=rotation.rings[name.partition("-")[0]],
                controller=self._incarnation,
                cluster=spec.cluster,
                limits=self._limits,
                has_digests=has_digests,
                owner=loop,
                counters=bound.counters[name],
                acks_when_flushed=name == "engine-data",
                max_unread=MAX_UNREAD if name.endswith("control") else None,
                gate=gate if name.endswith("data") else None,
            )
        rotation.endpoints, rotation.shut_down = endpoints, shut_down
        rotation.rebinds = [bound.rebind] if bound.has_curve else []
        rotation.rebinds += [stock.rebind] if stock is not None and spec.stock == "curve" else []
        return loop, endpoints

    def _promise(self, performer: Performer, recovery: Recovery) -> Gate | None:
        """Have what is acknowledged outlive this controller, where that is asked for."""
        if self._spec.durable == "off":
            return None
        store = self.store
        if not isinstance(store, DurableStore) or not self._spec.reuse:
            text = f"durable: {self._spec.durable} needs reuse: true, and database: sqlite or mongodb"
            raise LaunchError(text)
        hub, tasks = performer.hub, performer.tasks
        tasks.functions = DurableFunctions(store)
        gate = Gate(store, tasks.is_parked)
        tasks.ledger = performer.recorder.ledger = Ledger(
            store, gate, hub=hub, tasks=tasks, recovery=recovery, perform=performer
        )
        hub.has_ledger = True
        return gate

    def _bind(self, context: zmq.Context[zmq.Socket[bytes]]) -> sockets.Listening:
        spec = self._spec
        try:
            ports = sockets.parse_ports(spec.ports or "")
        except ValueError as error:
            raise LaunchError(f"ports: {error}") from error
        if spec.transport in {"ipc", "unix"} or (spec.transport == "auto" and sockets.is_loopback(spec.ip)):
            if ports:
                log.warning(
                    "ports %s are not used: it listens on Unix sockets; transport tcp would use them", spec.ports
                )
            return sockets.bind_unix(self._runtime, self._limits)
        location = spec.location or os.uname().nodename
        return sockets.bind_tcp(context, spec.ip, location, ports, self._secrets, self._limits)

    def _bind_stock(self, context: zmq.Context[zmq.Socket[bytes]]) -> StockSockets | None:
        spec = self._spec
        if spec.stock == "off":
            return None
        if spec.stock == "on" and not sockets.is_loopback(spec.ip):
            log.warning(
                "stock sockets on %s are not encrypted: whoever reads the network reads all; see stock: curve", spec.ip
            )
        ports = sockets.parse_ports(spec.ports or "")
        return StockSockets(context, spec.ip, ports, self._secrets, curve=spec.stock == "curve")

    def _reserve_ids(self, end: int) -> None:
        self._secrets.next_engine_id = end
        self._keep_secrets()

    def _save_secrets(self, content: Secrets) -> None:
        credentials.save_secrets(self._secrets_file, content)

    def _keep_secrets(self) -> None:
        try:
            self._save_secrets(self._secrets)
        except OSError as error:
            # A full disk ends no cluster. What a successor would know from it are ids, which it might give again, and whom to wait for.
            log.error("cannot keep %s: %s", self._secrets_file, error.strerror)  # noqa: TRY400


def _install_signals(loop: Loop, wakeup_write: int) -> None:
    def end(number: int, _frame: object) -> None:
        loop.ends_because = f"signal {signal.Signals(number).name}"

    # The poll sleeps in C: the descriptor wakes it, the handler then runs in the main thread.
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _wake(descriptor: int) -> None:
    fault.point("controller.commit.after_write")
    with contextlib.suppress(BlockingIOError):  # it is awake already
        os.write(descriptor, b"c")


def _raise_descriptor_limit() -> None:
    # Two or more descriptors per engine: the usual soft limit of 1,024 ends at some 500 engines (a common report in the field).
    import resource  # noqa: PLC0415 - not on Windows, where no controller runs

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 4096:
        log.warning("at most %d descriptors: enough for some %d engines; raise LimitNOFILE", hard, hard // 3)


def _set_title(title: str) -> None:
    import setproctitle  # noqa: PLC0415 - after argument errors

    setproctitle.setproctitle(title)
