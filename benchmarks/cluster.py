"""A cluster of ours to measure: started and stopped by `clusterctl`, in directories that nobody else uses."""

from __future__ import annotations

import contextlib
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
TITLE = re.compile(r"clusterd (serve|controller|agent|zygote|engine)\b")
LIMIT = 60.0


class Cluster:
    """The shipped `local` profile in a fresh directory below /tmp (short: Unix sockets lie in it).

    As a context manager it starts with `engines` and stops at the end; a failure within is not hidden by one of the stop.
    """

    profile = "local"

    def __init__(self, engines: int = 0) -> None:
        self.engines = engines
        self.place = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
        for variable, name in (
            ("CLUSTERD_RUNTIME_DIR", "r"),
            ("CLUSTERD_STATE_DIR", "s"),
            ("CLUSTERD_CONFIG_DIR", "c"),
        ):
            (self.place / name).mkdir(mode=0o700)
            os.environ[variable] = str(self.place / name)
        os.environ["IPYTHONDIR"] = str(self.place / "ipython")

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
        """Run `clusterctl -p local ARGUMENTS` and return its wall time in seconds.

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

        return clusterd.Client(self.profile)

    def role(self, process: Process) -> str:
        """Return what a process of ours is by its title: daemon, controller, agent, zygote or engine."""
        match = TITLE.search(process.command)
        return {"serve": "daemon"}.get(match[1], match[1]) if match else "other"

    def pids(self, role: str) -> list[int]:
        """Return the pids of this cluster's processes of that role."""
        return sorted(pid for pid, process in processes.tree(os.getpid()).items() if self.role(process) == role)

    def stop(self) -> float:
        """Return the seconds that `clusterctl stop --wait` takes; the directories go."""
        try:
            return self.ctl("stop", "--wait")
        finally:
            shutil.rmtree(self.place, ignore_errors=True)
