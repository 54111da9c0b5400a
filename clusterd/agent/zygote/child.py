"""The first moments of an engine: from the fork to `clusterd.engine.main`. Nothing of the zygote is left when it begins.

Order matters: what is the zygote's is let go first (a message written to its socket by mistake would be an order to it),
then the engine says who it is, in its identity file, before anything that may take time or fail.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec
import setproctitle

from clusterd.core.model.ids import engine_hex
from clusterd.system import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clusterd.agent.zygote.messages import Fork
    from clusterd.core.model.launch import AgentSpec

OOM_SCORE = 200
"""Added to the zygote's oom_score_adj (-1000 to 1000): when memory runs out the kernel takes an engine, whose task can be
retried, before the agent, the controller or the user's shell."""


def handled_signals() -> list[int]:
    """Signals that are not as a Python program finds them; asked before the forks, because looking at all 64 costs pages."""
    usual = {signal.SIGPIPE, signal.SIGXFSZ}  # ignored by Python itself
    return [
        int(number)
        for number in signal.valid_signals()
        # None: a handler that was set from C (faulthandler), which the child needs as much.
        if number not in usual and signal.getsignal(number) not in (signal.SIG_DFL, None)
    ]


class Inheritance(NamedTuple):
    """What a zygote finds out before its forks, because asking for it in each engine costs pages.

    Attributes:
        identity: of the zygote.
        keep: descriptors that preloaded modules opened; engines close all others.
        handled: see `handled_signals`.
    """

    identity: process.ProcessIdentity
    keep: frozenset[int]
    handled: list[int]


def become_engine(order: Fork, spec: AgentSpec, inheritance: Inheritance, run: Callable[[int, bytes], int]) -> NoReturn:
    """Turn this process, just forked, into the engine; never returns.

    Args:
        order: what the agent asked for.
        spec: of its set.
        inheritance: what the zygote knows.
        run: `clusterd.engine.main` with everything but slot and uuid; returns the exit status.
    """
    status = 1
    try:
        _let_go(inheritance.keep, inheritance.handled)
        name = f"{spec.cluster}/{spec.engine_set}/{order.slot}"
        setproctitle.setproctitle(f"clusterd engine {name}")
        _identify(order, spec, name, inheritance.identity)
        # From here on whatever goes wrong is written where people look.
        _open_log(f"{spec.log_dir}/engine-{spec.engine_set}-{order.slot}.log")
        _settle(order, spec)
        gc.enable()
        status = run(order.slot, order.uuid)
    except BaseException:  # noqa: BLE001 - the last frame of this process
        traceback.print_exc(file=sys.__stderr__)
    finally:
        # Not sys.exit: the frames above belong to the zygote, and their clean-up is not ours to do.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _let_go(keep: Iterable[int], handled: Iterable[int]) -> None:
    last = 2
    for descriptor in sorted(keep):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, 1 << 30)
    for number in handled:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # A session of its own: no terminal, no signal of the agent's process group.
    os.setsid()


def _identify(order: Fork, spec: AgentSpec, name: str, parent: process.ProcessIdentity) -> None:
    # Plain system calls, here and below: each object of pathlib and its like that is touched copies a page for this engine.
    identity = process.after_fork(parent)
    uuid = engine_hex(order.uuid)
    content: dict[str, Any] = {
        "kind": "engine",
        "launch": spec.launch,
        "uuid": uuid,
        **identity._asdict(),
        "title": f"clusterd engine {name}",
        "engine_set": spec.engine_set,
        "slot": order.slot,
        "started_at": time.time(),
    }
    path = f"{spec.runtime_dir}/units/engine-{uuid}.json"
    # Nobody else writes for this uuid, and an identity means nothing after a reboot: no random name, no fsync.
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(descriptor, msgspec.json.encode(content))
    os.close(descriptor)
    os.rename(f"{path}.new", path)  # noqa: PTH104


def _open_log(path: str) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # O_APPEND: child processes of tasks and the successor in this slot write to the same file.
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _settle(order: Fork, spec: AgentSpec) -> None:
    os.environ.update(order.env)
    if order.cpus:
        os.sched_setaffinity(0, order.cpus)
    _raise_oom_score()
    if spec.work_dir:
        os.chdir(os.path.expanduser(spec.work_dir))  # noqa: PTH111
    # All children of one parent would draw the same numbers.
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _raise_oom_score() -> None:
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"%d" % min(1000, int(os.read(descriptor, 16)) + OOM_SCORE))
        finally:
            os.close(descriptor)
