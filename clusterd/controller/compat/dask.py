"""`become_dask`: a scheduler of dask beside the controller, in a process of its own that ends with it.

dask knows neither our keys nor CURVE: whoever reaches its port runs code as its user. So there is none where stock sockets are
CURVE, and elsewhere it listens on the address that they are bound to.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clusterd.controller.compat.dask_scheduler import MISSING
from clusterd.controller.compat.queries import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[dict[str, Any] | Refused], None]

log = logging.getLogger(__name__)
START_SECONDS: Final = 60.0
"""It imports half of Python's scientific stack, perhaps from NFS."""
END_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.05
MAX_WAITING: Final = 100


class DaskScheduler:
    """The one of this controller; there is none before it is asked for.

    Args:
        ip: that stock sockets are bound to.
        is_curve: they are CURVE.
    """

    def __init__(self, ip: str, *, is_curve: bool) -> None:
        self._ip = ip
        self._is_curve = is_curve
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        # What it says of itself, once it listens.
        self._about: dict[str, Any] | None = None
        self._deadline = 0.0
        self._looked_at = 0.0
        # Who waits for it to listen.
        self._waiting: list[Tell] = []
        # Processes that were told to end, and when they are killed.
        self._ending: list[tuple[subprocess.Popen[bytes], float]] = []

    def start(self, arguments: Any, tell: Tell, now: float) -> None:
        """Have one; `tell` is called once, with ip, address and port, or with what is wrong."""
        problem = self._problem(arguments)
        if problem is not None or len(self._waiting) >= MAX_WAITING:
            tell(problem or Refused("RuntimeError", "too many wait for dask already"))
            return
        self._waiting.append(tell)
        if self._process is None:
            try:
                self._begin(now)
            except OSError as error:
                self._fail(f"its scheduler cannot be started: {error.strerror}", now)
        elif self._about is not None:
            self._answer(self._about)

    def stop(self, now: float) -> None:
        """Have none."""
        if self._process is not None:
            self._fail("it was stopped", now)

    def _problem(self, arguments: Any) -> Refused | None:
        if self._is_curve:
            text = "dask would listen without encryption or keys beside stock sockets that have both; see stock: curve"
            return Refused("PermissionError", text)
        if arguments:
            return Refused("ValueError", f"arguments of dask's scheduler are not taken: {arguments!r:.200}")
        return None

    def _begin(self, now: float) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="clusterd-dask-"))
        host = [] if self._ip == "*" else ["--host", self._ip]
        words = [str(os.getpid()), *host, "--port", "0", "--no-dashboard", "--scheduler-file", str(self._file)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clusterd.controller.compat.dask_scheduler", *words],
            stdin=subprocess.DEVNULL,
            cwd=self._directory,
        )
        self._deadline = now + START_SECONDS
        log.info("a client wants dask: its scheduler is process %d", self._process.pid)

    @property
    def _file(self) -> Path:
        assert self._directory is not None  # noqa: S101 - there is a process
        return self._directory / "scheduler.json"

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        return self._looked_at + LOOK_SECONDS if self._waiting or self._ending else None

    def tick(self, now: float) -> None:
        """See how it does."""
        if now < self._looked_at + LOOK_SECONDS:
            return
        self._looked_at = now
        self._ending = [entry for entry in self._ending if not _has_ended(*entry, now)]
        process = self._process
        if process is None:
            return
        status = process.poll()
        if status == MISSING:
            self._fail(
                f"{sys.executable} has no module `distributed`: pip install distributed, for the controller", now
            )
        elif status is not None:
            self._fail(f"its scheduler ended with status {status}: see the controller's log", now)
        elif self._about is None and now > self._deadline:
            self._fail(f"its scheduler did not listen within {START_SECONDS:.0f} s", now)
        elif self._about is None:
            # Written in place: half of it may be there.
            with contextlib.suppress(OSError, msgspec.DecodeError, KeyError, ValueError, TypeError):
                address = str(msgspec.json.decode(self._file.read_bytes())["address"])
                host, _, port = address.rpartition("://")[2].rpartition(":")
                self._about = {"ip": host.strip("[]"), "address": address, "port": int(port)}
                self._answer(self._about)

    def close(self) -> None:
        """End it; what does not end at once ends when the controller has."""
        if self._process is not None:
            self._process.terminate()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _answer(self, answer: dict[str, Any] | Refused) -> None:
        waiting, self._waiting = self._waiting, []
        for tell in waiting:
            tell(answer)

    def _fail(self, why: str, now: float) -> None:
        process, self._process, self._about = self._process, None, None
        if process is not None and process.poll() is None:
            process.terminate()
            self._ending.append((process, now + END_SECONDS))
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        log.info("dask: %s", why)
        self._answer(Refused("RuntimeError", f"dask: {why}"))


def _has_ended(process: subprocess.Popen[bytes], kill_at: float, now: float) -> bool:
    if process.poll() is not None:
        return True
    if now > kill_at:
        process.kill()
    return False
