"""`clusterd engine --file PATH`: one engine in the foreground, with a helper process that answers for it.

The process that was started is the engine itself (under MPI the rank must be), its output goes where it was started. The helper is
an agent that starts nothing: it answers control while user code holds the interpreter, and says how the engine ended.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import setproctitle

from clusterd.core.model import launch
from clusterd.core.model.connection import ENGINE_FILE
from clusterd.core.model.ids import engine_hex
from clusterd.core.model.profile import RestartPolicy
from clusterd.core.wire import messages as m
from clusterd.engine import main as engine
from clusterd.engine.namespace import Startup
from clusterd.engine.options import parse
from clusterd.engine.output import Output
from clusterd.engine.shell import build_shell
from clusterd.errors import ClusterdError
from clusterd.system import files, process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clusterd.engine.options import Options
    from clusterd.engine.shell import EngineShell

SET = "hand"
"""The set of all engines that were started by hand; the slot is the pid: sets of a profile number theirs from 0."""


def main(argv: Sequence[str]) -> int:
    """Run one engine; the exit status."""
    options = parse(argv)
    with _runtime() as runtime:
        path = _connection_file(options, runtime)
        try:
            cluster = engine.read_endpoints(path).cluster
        except ClusterdError as error:
            sys.stderr.write(f"clusterd engine: {error}\n")
            return 1
        uuid, slot = os.urandom(16), os.getpid()
        name = f"{cluster}/{SET}/{slot}"
        setproctitle.setproctitle(f"clusterd engine {name}")
        output = Output()
        output.install()
        spec = launch.AgentSpec(
            launch=f"hand-{engine_hex(uuid)}",
            cluster=cluster,
            engine_set=SET,
            profile_dir=str(path.absolute().parent.parent),
            runtime_dir=str(runtime),
            log_dir=str(runtime),
            connection_file=str(path.absolute()),
            slots=(slot,),
            restart=RestartPolicy(policy="never"),
        )
        _identify(spec, uuid, slot, name)
        helper = _start_helper(spec)
        try:
            shell = build_shell()
            engine.warm_for(path, shell)
            if options.is_launched:
                _run_python_startup(shell)
            return engine.run(
                name=name,
                shell=shell,
                output=output,
                connection_file=path,
                runtime_dir=runtime,
                startup=Startup(options.startup_script or "", options.startup_command or ""),
                identity=functools.partial(
                    m.AttachEngine, uuid=uuid, engine_set=SET, slot=slot, agent=spec.launch, wanted_id=options.id
                ),
                orphan_timeout=options.orphan_timeout,
                join_timeout=options.timeout,
                # ipyparallel may send SIGINT to all engines, and means running tasks.
                is_interactive=not options.is_launched,
                on_registered=_say_registered,
            )
        finally:
            # It watches this process: to let it report a clean end it would have to outlive us, and Goodbye has told that.
            helper.terminate()
            helper.wait()


def _connection_file(options: Options, runtime: Path) -> Path:
    if options.content:
        # Where the link looks at each dial; it holds a key.
        own = runtime / ENGINE_FILE
        files.atomic_write(own, options.content, durable=False)
        return own
    path = options.file
    assert path is not None  # noqa: S101 - else the options were refused
    if not os.path.lexists(path):
        # A controller that is about to start writes it. Nothing else that is wrong with a file mends itself.
        sys.stderr.write(f"clusterd engine: waits up to {options.timeout:g} s for {path}\n")
        _await_file(path, options.timeout)
    return path


def _run_python_startup(shell: EngineShell) -> None:
    """Run the file that PYTHONSTARTUP names, as engines of ipyparallel do: a failure is shown, and the engine goes on."""
    path = os.environ.get("PYTHONSTARTUP", "")
    if path and Path(path).is_file():
        shell.safe_execfile(path, shell.user_ns)


def _say_registered(number: int) -> None:
    # Not through sys.stderr: it is no output of a task. ipyparallel's words, which its users look for.
    with contextlib.suppress(OSError):
        os.write(2, f"Completed registration with id {number}\n".encode())


def _await_file(path: Path, timeout: float) -> None:
    end = time.monotonic() + timeout
    # It may come over a network file system, which tells nobody.
    while not os.path.lexists(path) and time.monotonic() < end:
        time.sleep(0.1)


@contextlib.contextmanager
def _runtime() -> Iterator[Path]:
    """A private directory for identity and page, shared with the helper alone."""
    path = Path(tempfile.mkdtemp(prefix="clusterd-engine-"))
    try:
        files.private_directory(path / "units")
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _identify(spec: launch.AgentSpec, uuid: bytes, slot: int, name: str) -> None:
    content = {
        "kind": "engine",
        "launch": spec.launch,
        "uuid": engine_hex(uuid),
        **process.current()._asdict(),
        "title": f"clusterd engine {name}",
        "engine_set": spec.engine_set,
        "slot": slot,
        "started_at": time.time(),
    }
    units = Path(spec.runtime_dir) / "units"
    files.atomic_write(units / f"engine-{content['uuid']}.json", json.dumps(content), durable=False)


def _start_helper(spec: launch.AgentSpec) -> subprocess.Popen[bytes]:
    path = Path(spec.runtime_dir) / "spec.json"
    files.atomic_write(path, launch.encode(spec), durable=False)
    interpreter = [sys.executable, "-P"] if sys.flags.safe_path else [sys.executable]
    return subprocess.Popen(
        [*interpreter, "-m", "clusterd", "agent", "--spec", str(path), "--watch"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Ctrl-C is for the engine.
        start_new_session=True,
    )
