"""`clusterd agent --spec FILE`: claims its launch, starts the zygote, then loads the rest and supervises.

Exit status: 0 told to end, 1 could not start or go on (the reason is on stderr), 2 usage. Everything slow is imported after the
zygote runs: the two start side by side.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterd.agent.zygote_process import ZygoteProcess
from clusterd.core.model import launch
from clusterd.errors import ClusterdError, LaunchError
from clusterd.system import fault, files, log_lines, process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterd.core.model.launch import AgentSpec


HAND_PREFIXES = ("clusterd-engine-", "clusterd-set-")
"""Of the directories that are made for engines by hand and their helpers, and for a set that no daemon knows of."""


def main(argv: Sequence[str]) -> int:
    """Be the agent of one engine set on this node."""
    parser = argparse.ArgumentParser(
        prog="clusterd agent", description="The supervisor of an engine set's engines on this node."
    )
    parser.add_argument("--spec", required=True, metavar="FILE", help="what it is told, as the daemon writes it")
    parser.add_argument("--watch", action="store_true", help="start no engine: watch one that was started by hand")
    parser.add_argument("--log-format", default="text", choices=("text", "json"))
    options = parser.parse_args(argv)
    try:
        spec = read_spec(Path(options.spec))
        identity = claim(spec)
    except ClusterdError as error:
        sys.stderr.write(f"clusterd agent: {error}\n")
        return 1
    fault.point("agent.start.after_claim")
    zygote = None
    if not options.watch:
        try:
            zygote = ZygoteProcess(spec)
        except OSError as error:
            sys.stderr.write(f"clusterd agent: cannot start a zygote: {error}\n")
            identity.unlink(missing_ok=True)
            return 1
    # What a person sees who started one engine by hand is that engine's output.
    log_lines.configure(options.log_format, "ERROR" if options.watch else None)
    import setproctitle  # noqa: PLC0415 - the zygote starts meanwhile

    from clusterd.agent.loop import Agent  # noqa: PLC0415

    setproctitle.setproctitle(f"clusterd agent {spec.cluster}/{spec.engine_set}")
    contexts: list[Any] = []
    agent = Agent(spec, zygote, lambda: _context(contexts))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.on_terminate)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    status = agent.run()
    for context in contexts:
        context.term()
    identity.unlink(missing_ok=True)
    if (options.watch or spec.is_alone) and Path(spec.runtime_dir).name.startswith(HAND_PREFIXES):
        # Made for us and the engines alone; who made it may have been killed.
        shutil.rmtree(spec.runtime_dir, ignore_errors=True)
    return status


def _context(contexts: list[Any]) -> Any:
    """The ZeroMQ context, made when the controller turns out to be on another host; kept in `contexts`."""
    if not contexts:
        import zmq  # noqa: PLC0415 - 30 ms that an agent beside its controller never needs

        contexts.append(zmq.Context())
    return contexts[0]


def read_spec(path: Path) -> AgentSpec:
    """What this launch is told.

    Raises:
        LaunchError: the file cannot be read or used.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LaunchError(f"{path}: {error.strerror}") from error
    return launch.decode(data, launch.AgentSpec, str(path))


def claim(spec: AgentSpec) -> Path:
    """Make the identity file of this launch; a launch runs once.

    Raises:
        LaunchError: it was called off, or runs already.
    """
    units = files.private_directory(Path(spec.runtime_dir) / "units")
    files.private_directory(Path(spec.log_dir))
    path = units / f"agent-{spec.launch}.json"
    title = f"clusterd agent {spec.cluster}/{spec.engine_set}"
    content = {"kind": "agent", "launch": spec.launch, "cluster": spec.cluster, "engine_set": spec.engine_set}
    # The first who makes this file has decided: a daemon that calls a launch off makes it itself.
    if not files.claim(path, json.dumps({**content, **process.current()._asdict(), "title": title})):
        raise LaunchError(
            f"launch {spec.launch} was called off, or runs already: {path} exists",
            hint="A batch system may have started the job twice.",
        )
    return path
