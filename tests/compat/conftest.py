"""A controller in a process of its own, real engines, and hand-made stock peers.

CLUSTERD_COMPAT_CONTROLLER=stock runs the same tests against ipcontroller: to see which of them ask for more than it does, and
that the hand-made peers speak as the real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq

from tests.compat.peer import Peer, StockClient, StockEngine
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
PING_MS = 200
IS_STOCK = os.environ.get("CLUSTERD_COMPAT_CONTROLLER") == "stock"


class Program:
    """A process and what it says."""

    def __init__(self, log: Path, *words: str, **environment: str) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **environment}
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                # One that holds the interpreter in user code, after a test that failed: its status tells.
                self.process.kill()
                self.process.wait()


class Controller(Program):
    """`clusterd controller` by hand, with stock sockets."""

    def __init__(self, root: Path, *options: str, **environment: str) -> None:
        self.profile = root / "p"
        self.client_file = self.profile / "security" / "ipcontroller-client.json"
        self.engine_file = self.profile / "security" / "ipcontroller-engine.json"
        command = [sys.executable, "-m"]
        if IS_STOCK:
            command += ["ipyparallel.controller", f"--profile-dir={self.profile}", f"--ping={PING_MS}", "--dictdb"]
            command += [
                f"--{name.removeprefix('--')}={value}" for name, value in zip(options[::2], options[1::2], strict=True)
            ]
        else:
            command += ["clusterd", "controller", "--profile-dir", str(self.profile), "--stock", "on"]
            command += ["--ping", str(PING_MS), *options]
        super().__init__(root / "controller.log", *command, **environment)
        # With --reuse the files are there before it is.
        until(lambda: self.is_ready() or self.process.poll() is not None, "connection files", about=self.said)
        assert self.process.poll() is None, self.said()

    def is_ready(self) -> bool:
        return self.client_file.exists() and (IS_STOCK or "listening on" in self.said())

    @property
    def client(self) -> dict[str, Any]:
        return json.loads(self.client_file.read_text())

    @property
    def engine(self) -> dict[str, Any]:
        return json.loads(self.engine_file.read_text())


@pytest.fixture
def start(isolated) -> Iterator[Callable[..., Controller]]:
    """Start a controller with options; it must end well."""
    running: list[Controller] = []

    def begin(*options: str, **environment: str) -> Controller:
        running.append(Controller(isolated.root, *options, **environment))
        return running[-1]

    yield begin
    for controller in running:
        ended = controller.process.poll()
        controller.end()
        assert ended is not None or controller.process.returncode in {0, -15 if IS_STOCK else 0}, controller.said()


@pytest.fixture
def controller(start) -> Controller:
    return start()


@pytest.fixture
def peers(controller_files) -> Iterator[Callable[..., Any]]:
    """Make hand-made peers: `peers(StockClient)`, `peers(StockEngine)`; they are closed at the end."""
    context: zmq.Context[Any] = zmq.Context()
    made: list[Peer] = []

    def make(kind: type[Peer], *arguments: Any, file: Any = None, **options: Any) -> Peer:
        where = file or (controller_files()[0] if kind is StockClient else controller_files()[1])
        made.append(kind(context, where, *arguments, **options))
        return made[-1]

    yield make
    for peer in made:
        peer.close()
    context.term()


@pytest.fixture
def controller_files(request) -> Callable[[], tuple[Path, Path]]:
    """The files of the test's controller, started when they are first asked for."""

    def files() -> tuple[Path, Path]:
        controller = request.getfixturevalue("controller")
        return controller.client_file, controller.engine_file

    return files


@pytest.fixture
def client(peers) -> StockClient:
    """A hand-made client that has said hello."""
    made = peers(StockClient)
    assert made.ask("connection_request")["status"] == "ok"
    return made


@pytest.fixture
def join(peers, client) -> Callable[..., StockEngine]:
    """Add a hand-made engine that beats, and wait until the client has been told of it."""

    def add(wanted: int | None = None) -> StockEngine:
        engine = peers(StockEngine).join(wanted)
        assert client.notice("registration_notification", engine.name).content["id"] == engine.id
        return engine

    return add


@pytest.fixture
def engine(join) -> StockEngine:
    return join()


@pytest.fixture
def real_engine(isolated, controller) -> Iterator[Callable[..., Program]]:
    """Start an engine process: `ours` or `stock`; which id it got is known from the client."""
    running: list[Program] = []

    def begin(kind: str, python: Path | str = sys.executable) -> Program:
        log = isolated.root / f"engine{len(running)}.log"
        words = ["clusterd", "engine", "--file"] if kind == "ours" else ["ipyparallel.engine", "--file"]
        word = str(controller.engine_file)
        words = (
            [*words, word] if kind == "ours" else [words[0], f"--file={word}", f"--profile-dir={controller.profile}"]
        )
        running.append(Program(log, str(python), "-m", *words))
        return running[-1]

    yield begin
    for engine in running:
        engine.end()
