"""SecantusDB, a server that speaks MongoDB's protocol and keeps its data in WiredTiger as mongod does: for tests and benchmarks.

It comes from PyPI and is under the GPL, so it lives in an environment of its own and is spoken to over TCP alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

REQUIREMENT = "secantusdb==0.7.0b3"
ENVIRONMENT = Path(__file__).parents[2] / ".venv-mongodb"
START_SECONDS = 30.0


class Unavailable(Exception):
    """It cannot be installed, or does not start."""


def program() -> Path:
    """The server's program, installed when it is not there yet.

    Raises:
        Unavailable: it cannot be installed.
    """
    path = ENVIRONMENT / "bin" / "secantusd-py"
    if path.exists():
        return path
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True, env=environment, timeout=60)
        pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", REQUIREMENT]
        subprocess.run(pip, check=True, env=environment, timeout=100)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        raise Unavailable(f"{REQUIREMENT} cannot be installed into {ENVIRONMENT.name}: {error}") from error
    return path


class Server:
    """One running server.

    Args:
        program: of SecantusDB.
        directory: for its data and its log.
        port: 0: any free one.
        options: further words of its command line.
    """

    def __init__(self, program: Path, directory: Path, port: int = 0, options: tuple[str, ...] = ()) -> None:
        self._program = program
        self._options = options
        self._directory = directory
        self.port = port or _free_port()
        self.uri = f"mongodb://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections.

        Raises:
            Unavailable: it does not start.
        """
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    *("--host", "127.0.0.1", "--port", str(self.port)),
                    *("--storage-path", self._directory / "data", "--cache-size", "256M", "--log-level", "WARNING"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Unavailable(f"MongoDB did not start: {(self._directory / 'log').read_text()[-2000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)

    def stop(self) -> None:
        """End it; its data stay."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
