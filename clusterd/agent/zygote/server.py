"""The zygote's life: warm up, then fork and reap on request until the agent is gone.

Everything that engines can share is loaded and touched before the first fork, then frozen: the collector never walks it
again, so its pages stay shared. No garbage is collected here at all after that.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import setproctitle

from clusterd.agent.zygote import messages, preload
from clusterd.agent.zygote.child import Inheritance, become_engine, handled_signals
from clusterd.agent.zygote.stock import IDLE_SECONDS, Stock
from clusterd.system import fault, process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterd.core.model.launch import AgentSpec

# Where there is no pidfd (kernels before 5.3) dead engines are looked for this often.
_REAP_INTERVAL_MS = 100
# So many forks between two looks at dead engines and reports to the agent.
_BATCH = 32


class Zygote:
    """The one of this process.

    Args:
        link: socket to the agent.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._poll = select.poll()
        self._poll.register(link.fileno(), select.POLLIN)
        # uuid of all and only children that were not reaped, by pid.
        self._engines: dict[int, bytes] = {}
        # pid by pidfd, of those children that have one.
        self._pids: dict[int, int] = {}
        self._spec: AgentSpec | None = None
        self._run: Callable[[int, bytes], int] | None = None
        self._inheritance: Inheritance | None = None
        self._stock: Stock | None = None
        self._rehearse_stock: Callable[[], None] | None = None

    def serve(self) -> int:
        """Do what the agent asks until it is gone; the exit status."""
        while True:
            has_all_descriptors = len(self._pids) == len(self._engines)
            stock = self._stock if self._stock is not None and self._stock.is_pending and self._engines else None
            patience = None if stock is None else IDLE_SECONDS * 1000
            events = self._poll.poll(patience if has_all_descriptors else _REAP_INTERVAL_MS)
            if not events and stock is not None and has_all_descriptors:
                self._warm_later(stock)
            for descriptor, _ in events:
                if descriptor != self._link.fileno():
                    self._reap(self._pids[descriptor], descriptor)
                elif not self._obey():
                    return 0
            if not has_all_descriptors:
                for pid in [pid for pid in self._engines if pid not in self._pids.values()]:
                    self._reap(pid, None)

    def _obey(self) -> bool:
        """Read what the agent says, and do it; False when it is gone."""
        orders: list[messages.Fork] = []
        while len(orders) < _BATCH:
            try:
                packet = self._link.recv(messages.MAX_PACKET, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionResetError:
                packet = b""
            if not packet:
                # The engines go on; the next agent finds them by their identity files.
                return False
            order = messages.decode_from_agent(packet)
            if isinstance(order, messages.Configure):
                self._warm(order.spec)
            else:
                orders.append(order)
        self._fork(orders)
        return True

    def _warm(self, spec: AgentSpec) -> None:
        began = time.monotonic()
        self._spec = spec
        setproctitle.setproctitle(f"clusterd zygote {spec.cluster}/{spec.engine_set}")
        own = _descriptors()
        self._stock = stock = Stock(spec)
        probe = preload.Probe([*spec.preload, *stock.at_once], spec.start_timeout)
        engine = importlib.import_module("clusterd.engine.main")
        shell = engine.build_shell()
        engine.warm_transport(Path(spec.connection_file))
        preloaded: list[str] = []
        late: list[str] = []
        warnings: list[str] = []
        for finding in probe.finish():
            if finding.module not in spec.preload:
                continue
            if finding.verdict == "ok":
                importlib.import_module(finding.module)
                preloaded.append(finding.module)
            elif finding.verdict == "late":
                late.append(finding.module)
                warnings.append(
                    f"preload {finding.module}: {finding.reason}; each engine imports it itself, which takes memory and time"
                )
            else:
                warnings.append(f"preload {finding.module}: {finding.reason}")
        self._rehearse_stock = functools.partial(engine.warm_stock, shell)
        stock.warm(probe.findings, self._rehearse_stock)
        self._run = functools.partial(engine.run_forked, spec, shell, late)
        self._inheritance = Inheritance(process.current(), frozenset(_descriptors() - own), handled_signals())
        _fix_path()
        engine.rehearse(shell)
        preload.pass_fork_handlers()
        gc.collect()
        gc.disable()
        gc.freeze()
        fault.point("zygote.warm.before_report")
        self._tell(messages.Warmed(time.monotonic() - began, preloaded, late, warnings))

    def _warm_later(self, stock: Stock) -> None:
        own = _descriptors()
        assert self._rehearse_stock is not None  # noqa: S101 - there are engines
        assert self._inheritance is not None  # noqa: S101 - likewise
        if stock.make_up(self._rehearse_stock):
            preload.pass_fork_handlers()
            keep = self._inheritance.keep | (_descriptors() - own)
            self._inheritance = self._inheritance._replace(keep=keep, handled=handled_signals())
            gc.collect()
            gc.freeze()

    def _fork(self, orders: Sequence[messages.Fork]) -> None:
        """Fork them all, then report them all.

        After a fork every page that this process writes to, be it a reference count, is copied once: two loops touch
        the pages of the reports once a batch, and halve what 128 engines cost.
        """
        forked: list[tuple[messages.Fork, int]] = []
        for order in orders:
            if self._spec is None or self._run is None or self._inheritance is None:
                self._tell(messages.ForkFailed(order.uuid, "the zygote was not configured"))
                continue
            try:
                pid = os.fork()
            except OSError as error:
                self._tell(messages.ForkFailed(order.uuid, f"fork: {error.strerror} (limits of processes or memory?)"))
                continue
            if pid == 0:
                become_engine(order, self._spec, self._inheritance, self._run)
            forked.append((order, pid))
        for order, pid in forked:
            self._watch(order, pid)

    def _watch(self, order: messages.Fork, pid: int) -> None:
        self._engines[pid] = order.uuid
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            self._pids[descriptor] = pid
            self._poll.register(descriptor, select.POLLIN)
        fault.point("zygote.fork.before_report")
        identity = process.of(pid)  # None when it is dead already: Exited follows
        self._tell(messages.Forked(order.uuid, pid, identity.start_time if identity else 0))

    def _reap(self, pid: int, descriptor: int | None) -> None:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found == 0:
            return
        if descriptor is not None:
            self._poll.unregister(descriptor)
            os.close(descriptor)
            del self._pids[descriptor]
        uuid = self._engines.pop(pid)
        fault.point("zygote.reap.before_report")
        self._tell(
            messages.Exited(
                uuid,
                pid,
                status,
                usage.ru_maxrss * 1024,  # getrusage(2): kilobytes
                usage.ru_utime + usage.ru_stime,
            )
        )

    def _tell(self, message: messages.FromZygote) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the agent is gone: the next read says so
            self._link.send(messages.encode(message))


def main(argv: list[str]) -> int:
    """Program of the zygote; `argv` is the number of an inherited descriptor."""
    if len(argv) != 1 or not argv[0].isdecimal():
        sys.stderr.write("usage: python -m clusterd.agent.zygote FD (started by `clusterd agent`)\n")
        return 2
    # Ctrl-C at a terminal is for the agent, which then ends us in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with socket.socket(fileno=int(argv[0])) as link:
        link.set_inheritable(False)
        return Zygote(link).serve()


def _descriptors() -> set[int]:
    found = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    # The listing's own descriptor is in it and closed by now.
    return {descriptor for descriptor in found if _is_open(descriptor)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _fix_path() -> None:
    """Engines import from their working directory first, as `python` does; the zygote itself must not (`-m`, `-P`)."""
    if not sys.flags.safe_path and sys.path:
        # The directory in which `-m` found this package, a source tree for one: kept, but last.
        start = sys.path.pop(0)
        if start and start not in sys.path:
            sys.path.append(start)
    sys.path.insert(0, "")
