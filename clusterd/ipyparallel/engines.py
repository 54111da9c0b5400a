"""The launcher of `Cluster(engines="clusterd")`: one agent, which forks all engines of the set from a warm parent.

The process that ipyparallel watches is the agent. It replaces an engine that dies, and ends when none is left nor to come: then the
set has stopped, as with ipyparallel's own launchers. Signals go to the engines themselves; SIGTERM and SIGKILL mean the whole set.
Invariant: when the set has stopped no engine of it runs, however its agent ended.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from ipyparallel.cluster.launcher import LauncherError, LocalEngineLauncher
from traitlets import Enum, Float, Integer, List, Unicode

from clusterd.core.model import connection, launch
from clusterd.core.model.profile import RestartPolicy
from clusterd.errors import ClusterdError
from clusterd.ipyparallel import attaching
from clusterd.system import files, process

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ClusterdEngineSetLauncher"]

PREFIX: Final = "clusterd-set-"
"""Of the directory for identity files; the agent removes one that is called so when it ends."""
CONNECTION_INFO: Final = "IPP_CONNECTION_INFO"
_FOR_THE_SET: Final = frozenset({signal.SIGTERM, signal.SIGKILL})
_ENGINES_SHARE: Final = 0.6
"""Of the time that the agent has to end: the rest is for the agent itself."""


class ClusterdEngineSetLauncher(LocalEngineLauncher):
    """Starts, signals, stops and finds again one engine set."""

    # Not `engine_cmd`: where that is configured, it is for ipengine.
    program = List(
        [sys.executable, "-m", "clusterd", "agent"], config=True, help="What is started; under the users' Python."
    )
    preload = List(Unicode(), config=True, help="Modules imported once, before the engines are forked.")
    restart = Enum(
        ("always", "on-failure", "never"),
        "on-failure",
        config=True,
        help="Which ends of an engine are followed by a new one; on-failure: not one that was asked for.",
    )
    orphan_timeout = Float(180.0, config=True, help="Seconds that idle engines live on without a controller.")
    start_time = Integer(
        0, help="When the agent began, in the kernel's count: a pid alone may be another's by now."
    ).tag(to_dict=True)
    runtime_dir = Unicode(help="The directory with the engines' identity files.").tag(to_dict=True)

    _is_told_to_end = False

    # --- what ipyparallel calls ---

    def start(self, n: int) -> None:
        """Start `n` engines.

        Raises:
            LauncherError: the controller is not clusterd's, or an option has no meaning here.
        """
        self.n = n
        if self.engine_args:
            self.log.warning("engines of clusterd take no options of ipengine: %s", " ".join(self.engine_args))
        self.runtime_dir = tempfile.mkdtemp(prefix=PREFIX)
        try:
            self._write_spec(n)
            super().start()
        except BaseException:
            shutil.rmtree(self.runtime_dir, ignore_errors=True)
            raise
        self.start_time = attaching.start_time(self.pid)

    def find_args(self) -> list[str]:
        """Return the agent's command line."""
        return [*self.program, "--spec", str(self._spec_file)]

    def get_env(self) -> dict[str, str]:
        """Return what is set for agent and engines; not the controller's key, which is in a file that is theirs alone."""
        environment: dict[str, str] = dict(super().get_env())
        environment.pop(CONNECTION_INFO, None)
        return environment

    def signal(self, sig: int | str) -> None:
        """Send a signal to every engine; SIGTERM ends the set, SIGKILL at once."""
        number = signal.Signals[f"SIG{sig.removeprefix('SIG')}"] if isinstance(sig, str) else signal.Signals(sig)
        if number in _FOR_THE_SET:
            # The agent first, since it would replace what is killed; politely, since it tells the controller how they ended.
            super().signal(number if self._is_told_to_end else signal.SIGTERM)
            self._is_told_to_end = True
        if number != signal.SIGTERM:
            for engine in self._engines():
                process.send_signal(engine, number)

    def notify_stop(self, data: dict[str, Any]) -> dict[str, Any]:
        """Note that the agent has ended, and see to it that no engine outlives it."""
        for engine in self._engines():
            process.send_signal(engine, signal.SIGKILL)
        shutil.rmtree(self.runtime_dir, ignore_errors=True)
        told: dict[str, Any] = super().notify_stop(data)
        return told

    def get_output(self, remove: bool = False) -> str:  # noqa: FBT001, FBT002 - ipyparallel's signature
        """Return what the engines wrote, then what their agent did; with `remove`, take the files away."""
        parts = []
        for file in self._logs():
            with contextlib.suppress(OSError):
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
                if lines:
                    slot = file.stem.rpartition("-")[2]
                    parts.append(
                        f"Output for engine {slot}\n  " + "  ".join(lines[-(self.output_limit or len(lines)) :])
                    )
                if remove:
                    file.unlink(missing_ok=True)
        agents: str = super().get_output(remove=remove)
        return "\n".join([*parts, agents] if agents else parts)

    @classmethod
    def from_dict(cls, d: dict[str, Any], **kwargs: Any) -> ClusterdEngineSetLauncher:
        """Find a set again that another process started.

        Raises:
            NotRunning: its agent has ended; its pid may be another's by now.
        """
        attaching.check_running(d)
        found: ClusterdEngineSetLauncher = super().from_dict(d, **kwargs)
        return found

    # --- inside ---

    @property
    def _set_name(self) -> str:
        return f"engines-{self.engine_set_id}" if self.engine_set_id else "engines"

    @property
    def _log_dir(self) -> Path:
        return Path(self.profile_dir).absolute() / "log"

    @property
    def _spec_file(self) -> Path:
        return Path(self.runtime_dir) / "spec.json"

    def _logs(self) -> list[Path]:
        logs = [self._log_dir / f"engine-{self._set_name}-{slot}.log" for slot in range(self.n)]
        return [file for file in logs if file.exists()]

    def _engines(self) -> Iterator[launch.ProcessIdentity]:
        """Yield who the engines of this set are, as they wrote themselves."""
        for path in sorted(Path(self.runtime_dir, "units").glob("engine-*.json")) if self.runtime_dir else []:
            with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
                yield msgspec.json.decode(path.read_bytes(), type=launch.ProcessIdentity)

    def _write_spec(self, n: int) -> None:
        file, cluster = self._connection()
        spec = launch.AgentSpec(
            launch=f"{secrets.token_hex(4)}-0",
            cluster=cluster,
            engine_set=self._set_name,
            profile_dir=os.path.abspath(self.profile_dir),  # noqa: PTH100 - no link is to be resolved
            runtime_dir=self.runtime_dir,
            log_dir=str(self._log_dir),
            connection_file=str(file),
            slots=tuple(range(n)),
            preload=list(self.preload),
            work_dir=os.path.abspath(self.work_dir),  # noqa: PTH100
            restart=RestartPolicy(policy=self.restart),
            stop_timeout=self.stop_seconds_until_kill * _ENGINES_SHARE,
            orphan_timeout=self.orphan_timeout,
            stock=True,
            is_alone=True,
        )
        files.atomic_write(self._spec_file, launch.encode(spec), durable=False)

    def _connection(self) -> tuple[Path, str]:
        """(the engine's connection file, name of the cluster).

        The controller's own file, which it writes anew when it is started again; where there is none, because the controller
        is elsewhere, a private copy of what ipyparallel was told.
        """
        file = Path(self.connection_files["engine"]).absolute()
        told = self.environment.get(CONNECTION_INFO)
        if not file.exists() and told:
            file = Path(self.runtime_dir) / "engine.json"
            files.atomic_write(file, told, durable=False)
        if not file.exists():
            # Started before the controller, as in a batch system's queue: the agent waits for it.
            return file, self.cluster_id or "default"
        try:
            return file, connection.decode(file.read_bytes(), str(file)).clusterd.cluster
        except ClusterdError as error:
            raise LauncherError(
                f"engines of clusterd need clusterd's controller, controller='clusterd': {error}"
            ) from error
