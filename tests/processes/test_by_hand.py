"""Controller and engine started by hand, in the foreground, with no daemon: what they do, say, refuse, and leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading

import psutil
import pytest
from zmq.utils import garbage

import clusterd
from clusterd.errors import ClusterdError, ControllerLost
from tests.waiting import until

CLIENT, ENGINE, SECRETS, LOCK = (
    "ipcontroller-client.json",
    "ipcontroller-engine.json",
    "controller-secrets.json",
    "controller.lock",
)


@pytest.fixture(scope="module", autouse=True)
def _collector():
    """pyzmq's thread for zero-copy sends: one a process, from the first large message on, so not left behind by a test."""
    garbage.gc.start()
    assert garbage.gc._push_socket is not None  # made at the first use, too
    yield
    garbage.gc.stop()


class Hands:
    """Starts programs as a person does in a terminal, and keeps what they say; what still runs at the end is ended."""

    def __init__(self, root):
        self.root = root
        self.directory = root / "p"
        self.security = self.directory / "security"
        self.started = []

    def start(self, *words):
        log = self.root / f"{len(self.started)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "clusterd", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        process.said = log.read_text
        self.started.append(process)
        return process

    def controller(self, *words):
        process = self.start("controller", "--profile-dir", self.directory, *words)
        until(
            lambda: "listening on" in process.said() or process.poll() is not None,
            "the controller listens",
            about=process.said,
        )
        assert process.poll() is None, process.said()
        return process

    def fails(self, *words, status=1):
        """What a program says that ends at once, and not well."""
        process = self.start(*words)
        assert process.wait(30) == status, process.said()
        said = process.said()
        assert "Traceback" not in said
        return said

    def joined(self, client, number=1):
        """Wait until so many engines are there; what everybody said is told when they do not come."""
        try:
            return client.wait_for_engines(number, timeout=30)
        except TimeoutError as error:
            raise AssertionError("\n---\n".join(process.said() for process in self.started)) from error

    def end(self):
        for process in reversed(self.started):
            if process.poll() is None:
                process.terminate()
                process.wait(10)


@pytest.fixture
def hands(isolated):
    hands = Hands(isolated.root)
    yield hands
    hands.end()


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_controller_and_two_engines_compute_and_leave_nothing(hands, isolated):
    controller = hands.controller()
    assert files(hands.security) == [LOCK, CLIENT, ENGINE]
    assert {stat.S_IMODE((hands.security / name).stat().st_mode) for name in (CLIENT, ENGINE, LOCK)} == {0o600}
    by_file = hands.start("engine", "--file", hands.security / ENGINE)
    by_directory = hands.start("engine", "--profile-dir", hands.directory, "--startup-command", "ready = 42")
    with clusterd.Client(hands.directory) as client:
        hands.joined(client, 2)
        # The process that a person started is the engine.
        assert sorted(client[:].apply_sync(os.getpid)) == sorted([by_file.pid, by_directory.pid])
        assert [engine.engine_set for engine in client.engines] == ["hand", "hand"]
        there = [engine.id for engine in client.engines if engine.pid == by_directory.pid]
        assert client[there].pull("ready").result() == [42]
    with clusterd.Client(str(hands.security / CLIENT)) as client:
        assert list(client.load_balanced_view().map(abs, range(-9, 0))) == list(range(9, 0, -1))
        client[client.ids[0]].apply_sync(print, "to the terminal as well")

    for engine in (by_file, by_directory):
        engine.terminate()
        assert engine.wait(10) == 0, engine.said()
    said = sorted((engine.said() for engine in (by_file, by_directory)), key=len)
    assert [text.count("to the terminal as well\n") for text in said] == [0, 1]
    assert sorted(text.splitlines()[0] for text in said) == [f"Completed registration with id {n}" for n in (0, 1)]
    controller.terminate()
    assert controller.wait(10) == 0
    assert "ends: signal SIGTERM" in controller.said()
    assert files(hands.security) == []
    assert files(isolated.runtime) == []


def test_engines_that_are_started_together_do_not_speak_for_each_other(hands):
    controller = hands.controller()
    for _ in range(4):
        hands.start("engine", "--profile-dir", hands.directory)
    with clusterd.Client(hands.directory) as client:
        assert hands.joined(client, 4) == [0, 1, 2, 3]
        until(lambda: controller.said().count("attached: agent") == 4, "the helpers", about=controller.said)
        assert client.interrupt() == [0, 1, 2, 3]
    assert "gone:" not in controller.said()


def test_an_engine_is_started_as_ipyparallel_starts_its_engines(hands, monkeypatch):
    controller = hands.controller()
    monkeypatch.setenv("IPP_CONNECTION_INFO", (hands.security / ENGINE).read_text())
    monkeypatch.setenv("IPP_PROFILE_DIR", str(hands.root / "another"))
    monkeypatch.setenv("IPP_CLUSTER_ID", "")
    engine = hands.start("engine", f"--profile-dir={hands.root / 'another'}", "--debug", "--IPEngine.x=1")
    with clusterd.Client(hands.directory) as client:
        hands.joined(client)
        assert client[0].apply_sync(os.getpid) == engine.pid
        assert client[0].apply_sync(os.getenv, "IPP_CONNECTION_INFO") is None
        # While it is idle SIGINT means nothing to it; what user code wants of signals comes to pass.
        engine.send_signal(signal.SIGINT)
        client[0].execute("import signal; got = []; signal.signal(signal.SIGUSR1, lambda *_: got.append(1))").result()
        engine.send_signal(signal.SIGUSR1)
        until(lambda: client[0].pull("got").result() == [1], "the signal arrives", about=engine.said)
        running = client[0].execute("import time, os, signal\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)")
        with pytest.raises(KeyboardInterrupt):
            running.result()
    said = engine.said()
    assert "options of ipengine that mean nothing here: --debug --IPEngine.x=1\n" in said
    assert "Completed registration with id 0\n" in said
    engine.terminate()
    assert engine.wait(10) == 0
    assert controller.poll() is None


def test_an_engine_of_one_of_several_clusters(hands, monkeypatch):
    hands.controller()
    content = (hands.security / ENGINE).read_bytes()
    other = hands.security / "ipcontroller-other-engine.json"
    other.touch(0o600)
    other.write_bytes(content)
    monkeypatch.setenv("IPP_PROFILE_DIR", str(hands.directory))
    monkeypatch.setenv("IPP_CLUSTER_ID", "nosuch")
    said = hands.fails("engine", "--timeout", "0.1")
    assert "ipcontroller-nosuch-engine.json cannot be read" in said
    hands.start("engine", "--cluster-id", "other")
    with clusterd.Client(hands.directory) as client:
        hands.joined(client)


def test_ctrl_c_ends_both(hands):
    controller = hands.controller()
    engine = hands.start("engine", "--profile-dir", hands.directory)
    with clusterd.Client(hands.directory) as client:
        hands.joined(client)
    for process in (engine, controller):
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0, process.said()
        assert "Traceback" not in process.said()


def test_over_tcp_with_the_ports_that_are_allowed(hands):
    free = free_ports(18)
    hands.controller("--transport", "tcp", "--ip", "127.0.0.1", "--ports", ",".join(map(str, free)))
    endpoints = json.loads((hands.security / CLIENT).read_bytes())["clusterd"]
    assert {int(endpoints[name].rpartition(":")[2]) for name in ("data", "control")} <= set(free)
    hands.start("engine", "--profile-dir", hands.directory)
    with clusterd.Client(hands.directory) as client:
        hands.joined(client)
        block = os.urandom(3_000_000)
        assert client[0].apply_sync(bytes.swapcase, block) == block.swapcase()


def test_what_was_changed_on_the_way_is_never_computed_with(hands):
    hands.controller("--transport", "tcp")
    content = json.loads((hands.security / ENGINE).read_bytes())
    address, _, port = content["clusterd"]["data"].rpartition(":")
    with Tamperer(int(port), b"needle" * 20, b"noodle" * 20) as tamperer:
        content["clusterd"]["data"] = f"{address}:{tamperer.port}"
        file = hands.root / "engine.json"
        file.write_text(json.dumps(content))
        file.chmod(0o600)
        hands.start("engine", "--file", file)
        with clusterd.Client(hands.directory) as client:
            hands.joined(client)
            # A payload frame, which the controller does not look into: its digest is in the signed header.
            block = bytearray(b"needle" * 20 + bytes(2_000_000))
            assert client[0].apply_sync(lambda given: bytes(given[:6]), block) == b"needle"
        assert tamperer.changed == 1
        assert tamperer.connections == 2  # the engine hung up on it and dialled again
        hands.end()


def test_with_reuse_the_files_stay_valid_and_the_engine_comes_back(hands):
    first = hands.controller("--reuse")
    kept = json.loads((hands.security / ENGINE).read_bytes())["clusterd"]
    engine = hands.start("engine", "--profile-dir", hands.directory)
    with clusterd.Client(hands.directory) as client:
        hands.joined(client)
        client[0].push({"x": 7}).result()
        first.kill()
        first.wait()
        hands.controller("--reuse")
        assert json.loads((hands.security / ENGINE).read_bytes())["clusterd"]["key"] == kept["key"]
        # The same client, the same namespace.
        hands.joined(client)
        assert client[client.ids[0]].pull("x").result() == 7
    assert engine.poll() is None
    hands.end()
    assert files(hands.security) == [SECRETS, CLIENT, ENGINE]


@pytest.mark.parametrize("second", [(), ("--transport", "tcp"), ("--runtime-dir", "ELSEWHERE")], ids=" ".join)
def test_two_controllers_on_one_directory_are_refused(hands, second):
    first = hands.controller()
    before = (hands.security / CLIENT).read_bytes()
    words = [str(hands.root / "r2") if word == "ELSEWHERE" else word for word in second]
    said = hands.fails("controller", "--profile-dir", hands.directory, *words)
    assert f"{hands.directory} has a controller already: process {first.pid}" in said
    assert (hands.security / CLIENT).read_bytes() == before
    units = next(hands.root.glob("r/by-hand-*/units"))
    assert len(files(units)) == 1  # nothing of the second


def test_a_controller_that_was_killed_is_no_obstacle(hands):
    first = hands.controller()
    first.kill()
    first.wait()
    hands.controller()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ports", "x"], "'x' is not a port or a range such as 50000-50100"),
        (["--ports", "50100-50000"], "'50100-50000' is not a range within 1-65535"),
        (["--ports", "90000-90010"], "'90000-90010' is not a range within 1-65535"),
        (["--ports", "50000-50001"], "'50000-50001' has 2 ports, the controller needs 4"),
        (["--ip", "203.0.113.9"], "cannot bind a port on 203.0.113.9"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_controller_that_cannot_listen_says_why(hands, isolated, words, message):
    said = hands.fails("controller", "--profile-dir", hands.directory, *words)
    assert message in said
    assert files(hands.security) == []
    assert files(isolated.runtime) == []


def test_ports_that_are_taken(hands):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = ",".join([str(port)] * 4)
        said = hands.fails("controller", "--profile-dir", hands.directory, "--transport", "tcp", "--ports", ports)
    assert f"cannot bind any of the ports {port}-{port} on 127.0.0.1" in said
    assert "Another process holds it" in said


def test_ports_for_a_unix_socket_are_mentioned(hands):
    controller = hands.controller("--ports", "50000-50100")
    assert "ports 50000-50100 are not used" in controller.said()


def test_a_directory_that_cannot_be_made(hands):
    (hands.root / "file").touch()
    said = hands.fails("controller", "--profile-dir", hands.root / "file")
    assert f"cannot use {hands.root / 'file' / 'security'}: Not a directory" in said


def test_usage(hands):
    assert "--profile-dir (or --spec) is needed" in hands.fails("controller", status=2)
    assert "one of the arguments --file --profile-dir is required" in hands.fails("engine", status=2)
    assert "invalid choice: 'mysql'" in hands.fails(
        "controller", "--profile-dir", hands.directory, "--database", "mysql", status=2
    )


def test_the_helper_of_an_engine_that_is_killed_ends_too(hands):
    """Also when it had not looked yet: what is left behind fails the test."""
    controller = hands.controller()
    engine = hands.start("engine", "--profile-dir", hands.directory)
    until(lambda: "registered" in controller.said(), "the engine registers", about=engine.said)
    helper = psutil.Process(engine.pid).children()
    engine.kill()
    engine.wait()
    gone, _ = psutil.wait_procs(helper, timeout=20)
    assert gone == helper
    with clusterd.Client(hands.directory) as client:
        assert client.ids == []


# --- engines that cannot join ---


def test_an_engine_without_its_file_waits_and_then_says_so(hands):
    said = hands.fails("engine", "--profile-dir", hands.directory, "--timeout", "0.2")
    assert f"waits up to 0.2 s for {hands.security / ENGINE}" in said
    assert f"{hands.security / ENGINE} cannot be read: No such file or directory" in said


def test_an_engine_that_is_there_first_joins_when_the_file_comes(hands):
    engine = hands.start("engine", "--profile-dir", hands.directory)
    until(lambda: "waits up to" in engine.said(), "the engine waits", about=engine.said)
    hands.controller()
    with clusterd.Client(hands.directory) as client:
        assert hands.joined(client)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("{}", 0o600, "was written by another controller (it has no `clusterd` section)"),
        ("{", 0o600, "is not a connection file"),
        ("{}", 0o644, "is open to others (mode 0644)"),
    ],
)
def test_an_engine_refuses_a_wrong_file_at_once(hands, content, mode, message):
    file = hands.root / "engine.json"
    file.write_text(content)
    file.chmod(mode)
    said = hands.fails("engine", "--file", file)
    assert str(file) in said
    assert message in said
    assert "waits" not in said


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_an_engine_with_a_wrong_key_gets_no_answer_and_says_what_that_may_mean(hands, transport):
    hands.controller("--transport", transport)
    content = json.loads((hands.security / ENGINE).read_bytes())
    content["clusterd"]["key"] = "00" * 32
    file = hands.root / "engine.json"
    file.write_text(json.dumps(content))
    file.chmod(0o600)
    said = hands.fails("engine", "--file", file, "--timeout", "0.5")
    assert "A wrong key gets no answer" in said
    with clusterd.Client(hands.directory) as client:
        assert client.ids == []


def test_an_engine_whose_controller_is_dead(hands):
    controller = hands.controller("--reuse")
    controller.kill()
    controller.wait()
    said = hands.fails("engine", "--profile-dir", hands.directory, "--timeout", "0.5")
    assert "no controller for 0.5 s" in said
    assert "nobody listens" in said
    assert "Is its controller running" in said


def test_an_engine_whose_start_up_fails(hands):
    hands.controller()
    said = hands.start("engine", "--profile-dir", hands.directory, "--startup-command", "import nosuchmodule")
    assert said.wait(30) == 1
    assert "the start-up script or command failed" in said.said()
    assert "No module named 'nosuchmodule'" in said.said()


def test_a_client_of_a_dead_controller(hands):
    controller = hands.controller("--reuse")
    controller.kill()
    controller.wait()
    with pytest.raises(ControllerLost, match="nobody listens at"):
        clusterd.Client(hands.directory)


def test_a_client_of_a_directory_without_controller(hands):
    with pytest.raises(ClusterdError, match="A controller writes it when it starts"):
        clusterd.Client(hands.directory)


def free_ports(number):
    """Ports that were free a moment ago; all held at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


class Tamperer:
    """Between an engine and its controller: replaces some bytes, once, in the first packet that has them."""

    def __init__(self, port, old, new):
        self._target = port
        self._old, self._new = old, new
        self.changed = 0
        self.connections = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._sockets = [self._server]
        self._threads = []

    def __enter__(self):
        self._begin(self._accept)
        return self

    def __exit__(self, *exception):
        for held in self._sockets:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for held in self._sockets:
            held.close()

    def _begin(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self.connections += 1
                self._sockets += [near, far]
                self._begin(self._carry, near, far)
                self._begin(self._carry, far, near)

    def _carry(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if self._old in data and not self.changed:
                    self.changed += 1
                    data = data.replace(self._old, self._new)
                target.sendall(data)
        for held in (source, target):
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
