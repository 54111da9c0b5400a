"""A cluster of ours to measure: started and stopped by `clusterctl`, in directories that nobody else uses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks import processes

if TYPE_CHECKING:
    from types import TracebackType

    from benchmarks.processes import Process

# `clusterd engine local/engines/3`: the titles that every process of ours has.
TITLE = re.compile(r"clusterd (serve|controller|agent|zygote|engine) ([^/ ]+)")
LIMIT = 60.0
# A function of a stock client names its module, which the engine imports.
ENGINE_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


class Cluster:
    """The shipped `local` profile in a fresh directory below /tmp (short: Unix sockets lie in it).

    As a context manager it starts with `engines` and stops at the end; a failure within is not hidden by one of the stop.

    Args:
        engines: how many the context manager starts.
        profile: another name, which tells its processes from those of a second cluster.
        controller: settings of the controller that `local` leaves at their defaults.
    """

    def __init__(self, engines: int = 0, *, profile: str = "local", controller: dict[str, Any] | None = None) -> None:
        self.engines = engines
        self.profile = profile
        self.place = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
        self.environment = {
            "CLUSTERD_RUNTIME_DIR": str(self.place / "r"),
            "CLUSTERD_STATE_DIR": str(self.place / "s"),
            "CLUSTERD_ALLOW_ROOT": "1",
            "CLUSTERD_CONFIG_DIR": str(self.place / "c"),
            "IPYTHONDIR": str(self.place / "ipython"),
        }
        for name in "rsc":
            (self.place / name).mkdir(mode=0o700)
        self.use()
        if controller is not None:
            settings = {
                "version": 1,
                "controller": {"launcher": "local", "ip": "127.0.0.1", "reuse": True, **controller},
                "engine_sets": {"engines": {"launcher": "local", "n": 4, "max": 512, "env": ENGINE_ENVIRONMENT}},
            }
            (self.place / "c" / "profiles").mkdir()
            # JSON is YAML.
            (self.place / "c" / "profiles" / f"{profile}.yaml").write_text(json.dumps(settings))

    def use(self) -> None:
        """Let this be the cluster that clients and programs of this process find."""
        os.environ.update(self.environment)

    def __enter__(self) -> Self:
        self.start(self.engines)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except (OSError, RuntimeError, subprocess.SubprocessError):
            if error is None:
                raise

    def ctl(self, *arguments: str) -> float:
        """Run `clusterctl -p PROFILE ARGUMENTS` and return its wall time in seconds.

        Raises:
            RuntimeError: it failed; with what it said.
        """
        program = Path(sys.executable).with_name("clusterctl")
        if not program.exists():
            raise RuntimeError(f"{program} does not exist: `make bench` installs it")
        started = time.perf_counter()
        done = subprocess.run(
            [program, "-p", self.profile, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            env=os.environ | self.environment,
            check=False,
        )
        taken = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(f"clusterctl {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")
        return taken

    def start(self, engines: int) -> float:
        """Return the seconds that `clusterctl start -n ENGINES --wait` takes; nothing stays of a cluster that does not come up."""
        try:
            return self.ctl("start", "-n", str(engines), "--wait")
        except BaseException:
            with contextlib.suppress(OSError, RuntimeError, subprocess.SubprocessError):
                self.stop()
            raise

    def scale(self, engines: int) -> float:
        """Return the seconds that `clusterctl scale engines ENGINES --wait` takes."""
        return self.ctl("scale", "engines", str(engines), "--wait")

    def client(self) -> Any:
        """Return a client of the cluster."""
        import clusterd  # noqa: PLC0415 - its import is a part of what is measured

        self.use()
        return clusterd.Client(self.profile)

    def role(self, process: Process) -> str:
        """Return what a process of this cluster is by its title: daemon, controller, agent, zygote or engine."""
        match = TITLE.search(process.command)
        if match is None or match[2] != self.profile:
            return "other"
        return {"serve": "daemon"}.get(match[1], match[1])

    def pids(self, role: str) -> list[int]:
        """Return the pids of this cluster's processes of that role."""
        return sorted(pid for pid, process in processes.tree(os.getpid()).items() if self.role(process) == role)

    @property
    def state(self) -> Path:
        """Its state directory: journal, connection files, and the records of tasks."""
        [state] = (self.place / "s" / self.profile).iterdir()
        return state

    def stop(self) -> float:
        """Return the seconds that `clusterctl stop --wait` takes; the directories go."""
        try:
            return self.ctl("stop", "--wait")
        finally:
            shutil.rmtree(self.place, ignore_errors=True)
