"""A real controller in a process of its own, and peers made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zmq

from tests.contract.hand_made_peer import CONTROLLER_STATUS, REPLY, Peer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


class RunningController:
    def __init__(self, places, *options: str, spec: dict | None = None) -> None:
        self.state = places.state / "contract"
        self.runtime = places.runtime / "contract"
        command = [sys.executable, "-m", "clusterd", "controller"]
        if spec is not None:
            path = places.root / "spec.json"
            base = {
                "launch": "00000000-0",
                "cluster": "contract",
                "profile_dir": str(self.state),
                "runtime_dir": str(self.runtime),
                "log_dir": str(self.state / "log"),
                "reuse": False,
            }
            path.write_text(json.dumps({**base, **spec}))
            command += ["--spec", str(path)]
        else:
            command += [
                "--profile-dir",
                str(self.state),
                "--runtime-dir",
                str(self.runtime),
                "--cluster",
                "contract",
                *options,
            ]
        self.command = command
        self.log_path = places.root / "controller.log"
        self.client_file = self.state / "security" / "ipcontroller-client.json"
        self.engine_file = self.state / "security" / "ipcontroller-engine.json"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ)
            )
        until(
            lambda: self.client_file.exists() or self.process.poll() is not None,
            "connection files",
            about=self.log_path.read_text,
        )
        assert self.process.poll() is None, self.log_path.read_text()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture(params=["unix", "tcp"])
def transport(request) -> str:
    return request.param


@pytest.fixture
def start_controller(isolated, transport) -> Iterator[Callable[..., RunningController]]:
    running: list[RunningController] = []

    def start(*options: str, spec: dict | None = None) -> RunningController:
        if spec is None:
            options = (*options, "--transport", "ipc" if transport == "unix" else "tcp")
        else:
            spec = {"transport": "ipc" if transport == "unix" else "tcp", **spec}
        running.append(RunningController(isolated, *options, spec=spec))
        return running[-1]

    yield start
    for controller in running:
        if controller.process.poll() is None:
            assert controller.stop() == 0, controller.log_path.read_text()


@pytest.fixture
def controller(start_controller) -> RunningController:
    return start_controller()


@pytest.fixture
def connect(isolated) -> Iterator[Callable[..., Peer]]:
    """Make a peer; `attached` says Hello and Attach with a fresh uuid."""
    context: zmq.Context = zmq.Context()
    peers: list[Peer] = []

    def make(
        controller: RunningController, role: str, channel: str, *, attached: bool = True, uuid: bytes | None = None
    ) -> Peer:
        file = controller.client_file if role in {"client", "operator"} else controller.engine_file
        peer = Peer(context, file, role, channel)
        peers.append(peer)
        if attached:
            peer.greet()
            peer.uuid = uuid or os.urandom(16)
            peer.attach(peer.uuid)
        return peer

    yield make
    for peer in peers:
        peer.close()
    context.term()


@pytest.fixture
def status_of(connect) -> Callable[[RunningController], dict]:
    """The controller's status, asked by an operator of its own."""

    def ask(controller: RunningController) -> dict:
        peer = connect(controller, "operator", "control")
        peer.say([CONTROLLER_STATUS, 1])
        return peer.expect(REPLY)[2]

    return ask
