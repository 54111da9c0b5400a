"""Puts an engine together: from the zygote's fork (`run_forked`) or by hand (`clusterd engine --file PATH`).

Exit status: 0 asked to end, 1 could not start or was refused (the reason is the last thing in its log), 2 usage.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import importlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterd.core.model import connection
from clusterd.core.wire import messages as m
from clusterd.engine.executor import Executor
from clusterd.engine.functions import Functions
from clusterd.engine.loop import Loop
from clusterd.engine.namespace import Namespace, Startup
from clusterd.engine.output import Output
from clusterd.engine.page import StatusPage
from clusterd.engine.rehearsal import rehearse
from clusterd.engine.shell import build_shell
from clusterd.errors import ClusterdError, ConnectionFileError
from clusterd.link import SOFTWARE, Link
from clusterd.system import files, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from clusterd.core.model.connection import NativeEndpoints
    from clusterd.core.model.launch import AgentSpec
    from clusterd.engine.shell import EngineShell

__all__ = ["build_shell", "main", "rehearse", "run_forked", "warm_for", "warm_stock", "warm_transport"]

# An agent that is alive ends its engines itself when its own time without a controller is over.
_AFTER_AGENT = 60.0


def run_forked(spec: AgentSpec, shell: EngineShell, late: Sequence[str], slot: int, uuid: bytes) -> int:
    """Be an engine of a set, in a process that the zygote has just forked; the exit status."""
    faulthandler.enable(2)  # the last lines of a crashed engine's output say where its Python was
    output = Output(log=Path(spec.log_dir) / f"engine-{spec.engine_set}-{slot}.log")
    output.install()
    timeout = spec.orphan_timeout
    return run(
        name=f"{spec.cluster}/{spec.engine_set}/{slot}",
        shell=shell,
        output=output,
        connection_file=Path(spec.connection_file),
        runtime_dir=Path(spec.runtime_dir),
        startup=Startup(spec.startup.script or "", spec.startup.command or ""),
        late=late,
        orphan_timeout=None if timeout is None else timeout + _AFTER_AGENT,
        identity=functools.partial(m.AttachEngine, uuid=uuid, engine_set=spec.engine_set, slot=slot, agent=spec.launch),
    )


def run(
    *,
    name: str,
    shell: EngineShell,
    output: Output,
    connection_file: Path,
    runtime_dir: Path | None,
    startup: Startup,
    identity: functools.partial[m.AttachEngine],
    late: Sequence[str] = (),
    orphan_timeout: float | None = None,
    join_timeout: float | None = None,
    is_interactive: bool = False,
    on_registered: Callable[[int], None] | None = None,
) -> int:
    """Start up, then work until told to stop; the exit status.

    Args:
        name: "local/engines/3".
        shell: already built.
        output: already installed.
        connection_file: ipcontroller-engine.json; it may appear later, and change.
        runtime_dir: where the status page goes; None for none.
        startup: what runs first; when it fails the engine ends.
        identity: AttachEngine without what this process knows.
        late: modules to import now.
        orphan_timeout: seconds without a controller after which it ends when idle.
        join_timeout: seconds within which it must have registered.
        is_interactive: SIGINT ends an idle engine, as Ctrl-C at a terminal is meant.
        on_registered: called with the number that clients use for it, when it has one, and when that changes.
    """
    uuid = identity.keywords["uuid"]
    page = StatusPage(runtime_dir, identity.keywords["slot"], uuid)
    namespace = Namespace(shell, startup)
    executor = Executor(namespace, output, name)
    signal.signal(signal.SIGINT, executor.on_interrupt)
    if not _prepare(late, startup, shell):
        return 1
    output.take()
    contexts: list[Any] = []
    link = Link(
        lambda: _context(contexts),
        functools.partial(read_endpoints, connection_file),
        "engine",
        "data",
        lambda token: loop.attach(token),  # noqa: PLW0108 - the loop is made below, and needs the link
        keeps_unacked=True,
    )
    about = functools.partial(
        identity,
        pid=os.getpid(),
        host=paths.host_id(),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        software=SOFTWARE,
        started_at=time.time(),
    )
    loop = Loop(link, executor, Functions(), page.writer, about, orphan_timeout, join_timeout, on_registered)
    signal.signal(signal.SIGTERM, loop.on_terminate)
    if is_interactive:

        def on_interrupt(number: int, frame: FrameType | None) -> None:
            handler = executor.on_interrupt if executor.is_running else loop.on_terminate
            handler(number, frame)

        signal.signal(signal.SIGINT, on_interrupt)
    status = loop.run()
    if loop.problem:
        sys.stderr.write(f"clusterd engine {name}: {loop.problem}\n")
    for context in contexts:
        context.term()
    page.close()
    return status


def _context(contexts: list[Any]) -> Any:
    """The ZeroMQ context, made when the controller turns out to be on another host; kept in `contexts`."""
    if not contexts:
        import zmq  # noqa: PLC0415 - 5 MB that an engine beside its controller never needs

        contexts.append(zmq.Context())
        # ZeroMQ allots a table for 1,023 sockets otherwise; an engine has a DEALER and the monitor's pair.
        contexts[0].set(zmq.MAX_SOCKETS, 16)
    return contexts[0]


def warm_transport(connection_file: Path) -> None:
    """Import what engines will connect with, when that is known before the fork: a file that is there names it."""
    with contextlib.suppress(ClusterdError):
        if read_endpoints(connection_file).data.startswith("tcp:"):
            importlib.import_module("zmq.utils.monitor")


def warm_stock(shell: EngineShell) -> None:
    """Do what engines will do for tasks of stock clients; the modules that this needs are imported."""
    from clusterd.engine.stock import library, rehearsal  # noqa: PLC0415 - of no use without stock clients

    library.load(shell)
    rehearsal.rehearse(shell)


def warm_for(connection_file: Path, shell: EngineShell) -> None:
    """The same where the file says that stock clients may come: the first task would wait for it otherwise, which users measure."""
    # Without ipyparallel, tasks of such clients fail with what to install: later, and for those who send some.
    with contextlib.suppress(ClusterdError):
        if _read(connection_file).stock is not None:
            warm_stock(shell)


def read_endpoints(path: Path) -> NativeEndpoints:
    """What the connection file says now.

    Raises:
        ClusterdError: it is missing, open to others, or not ours.
    """
    return _read(path).clusterd


def _read(path: Path) -> connection.ConnectionFile:
    try:
        data = files.read_private(path)
    except OSError as error:
        raise ConnectionFileError(
            f"{path} cannot be read: {error.strerror}", hint="It is there while a controller runs."
        ) from error
    return connection.decode(data, str(path))


def _prepare(late: Sequence[str], startup: Startup, shell: EngineShell) -> bool:
    for module in late:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001 - as for preloads: a warning, and the engine goes on
            sys.stderr.write(f"clusterd engine: preload {module} failed:\n{traceback.format_exc()}")
    try:
        startup.run(shell)
    except BaseException:  # noqa: BLE001 - SystemExit in a script is a failure to start too
        sys.stderr.write(f"clusterd engine: the start-up script or command failed:\n{traceback.format_exc()}")
        return False
    return True


def main(argv: Sequence[str]) -> int:
    """`clusterd engine`: one engine by hand, in the foreground."""
    from clusterd.engine.by_hand import main as run_by_hand  # noqa: PLC0415 - engines of a set never need it

    result: Any = run_by_hand(argv)
    return int(result)
