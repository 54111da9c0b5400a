"""Connection files: what they say, to whom, and on which addresses; CURVE; what is left of a controller that ended or was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys

import psutil
import pytest

from tests.compat.conftest import IS_STOCK, Program
from tests.compat.peer import StockClient, StockEngine
from tests.waiting import until

CLIENT_PORTS = {"registration", "control", "mux", "task", "iopub", "notification", "broadcast"}
ENGINE_PORTS = {"registration", "control", "mux", "task", "iopub", "hb_ping", "hb_pong"}
# An unchanged Client, in a process of its own: the one that this process imports would keep threads.
CLIENT = """
import sys, warnings
warnings.simplefilter("error", RuntimeWarning)
import os, ipyparallel
with ipyparallel.Client(sys.argv[1], timeout=20) as client:
    client.wait_for_engines(int(sys.argv[2]), timeout=30)
    print(client.ids, sorted(client[:].apply_sync(os.getpid)), flush=True)
"""


def unchanged_client(file, engines=1):
    """What an unchanged ipyparallel.Client says of its engines."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(file), str(engines)], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_files_say_what_stock_readers_demand(controller):
    client, engine = controller.client, controller.engine
    assert all(isinstance(client[name], int) for name in CLIENT_PORTS)
    assert all(isinstance(engine[name], int) for name in ENGINE_PORTS)
    assert engine["broadcast"]
    assert all(isinstance(port, int) for port in engine["broadcast"])
    for name in ("registration", "key", "pack", "unpack", "signature_scheme"):
        assert client[name] == engine[name]
    assert (client["pack"], client["unpack"]) in {("json", "json"), ("orjson", "orjson")}
    assert client["signature_scheme"] == "hmac-sha256"
    assert client["task_scheme"] == "leastload"
    for file in (client, engine):
        assert file["interface"] == "tcp://127.0.0.1"
        assert isinstance(file["location"], str)
        assert file["ssh"] == ""
        assert file["curve_serverkey"] is None
    # Each side has its own ports, but for the hub.
    ports = [client[name] for name in CLIENT_PORTS] + [engine[name] for name in ENGINE_PORTS - {"registration"}]
    assert len(set(ports)) == len(ports)
    for path in (controller.client_file, controller.engine_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_cluster_id_is_part_of_the_names(isolated):
    option = ("--cluster-id", "mine")
    words = ["ipyparallel.controller", f"--profile-dir={isolated.root / 'p'}", "--cluster-id=mine"]
    if not IS_STOCK:
        words = ["clusterd", "controller", "--stock", "on", "--profile-dir", str(isolated.root / "p"), *option]
    program = Program(isolated.root / "log", sys.executable, "-m", *words)
    security = isolated.root / "p" / "security"
    try:
        until((security / "ipcontroller-mine-client.json").exists, "the file", about=program.said)
        assert (security / "ipcontroller-mine-engine.json").exists()
        assert not (security / "ipcontroller-client.json").exists()
    finally:
        program.end()
    assert sorted(path.name for path in security.glob("*-*.json")) == []


def test_the_engine_file_is_written_first_and_both_go_at_the_end(controller):
    assert controller.engine_file.stat().st_mtime_ns <= controller.client_file.stat().st_mtime_ns
    controller.end()
    assert not controller.client_file.exists()
    assert not controller.engine_file.exists()


def test_only_loopback_is_bound_unless_more_is_asked_for(controller):
    family = [psutil.Process(controller.process.pid), *psutil.Process(controller.process.pid).children(recursive=True)]
    bound = {held.laddr.ip for process in family for held in process.net_connections("tcp") if held.status == "LISTEN"}
    assert bound == {"127.0.0.1"}


def test_all_addresses(start, peers, real_engine_of):
    controller = start("--ip", "*")
    for file in (controller.client, controller.engine):
        assert file["interface"] in {"tcp://*", "tcp://0.0.0.0"}
        assert file["location"]
    process = real_engine_of(controller)
    assert unchanged_client(controller.client_file) == f"[0] [{process.process.pid}]"
    # By another of this machine's addresses, too.
    other = {**controller.client, "interface": "tcp://127.0.0.2"}
    assert peers(StockClient, file=other).engines.keys() == {0}


@pytest.mark.parametrize("ip", ["*", "0.0.0.0"])  # noqa: S104 - that is the case
def test_a_wildcard_and_a_location(start, ip):
    controller = start("--ip", ip, "--location", "login.example.org")
    assert [file["location"] for file in (controller.client, controller.engine)] == ["login.example.org"] * 2
    assert controller.client["interface"] in {"tcp://*", "tcp://0.0.0.0"}


def test_location_alone_leaves_loopback(start, real_engine_of):
    controller = start("--location", socket.gethostname())
    process = real_engine_of(controller)
    assert unchanged_client(controller.client_file) == f"[0] [{process.process.pid}]"


@pytest.fixture
def real_engine_of(isolated):
    """Start an engine of a controller: `ours` or `stock`."""
    running = []

    def begin(controller, kind="stock"):
        file = controller.engine_file
        words = ["clusterd", "engine", "--file", str(file)]
        if kind == "stock":
            words = ["ipyparallel.engine", f"--file={file}", f"--profile-dir={controller.profile}"]
        running.append(Program(isolated.root / f"engine{len(running)}.log", sys.executable, "-m", *words))
        return running[-1]

    yield begin
    for engine in running:
        engine.end()


# --- CURVE ---


@pytest.fixture
def curve(start):
    return start(IPP_ENABLE_CURVE="1") if IS_STOCK else start("--stock", "curve")


def test_with_curve_both_files_have_the_public_key(curve):
    for file in (curve.client, curve.engine):
        assert len(file["curve_serverkey"]) == 40
        if not IS_STOCK:
            assert file["key"], "signatures go on below the encryption"
    assert curve.client["curve_serverkey"] == curve.engine["curve_serverkey"]


@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_an_unchanged_client_and_engine_speak_curve(curve, real_engine_of, kind):
    if kind == "ours" and IS_STOCK:
        pytest.skip("our engine does not speak with ipcontroller")
    process = real_engine_of(curve, kind)
    assert unchanged_client(curve.client_file) == f"[0] [{process.process.pid}]"


def test_hand_made_peers_speak_curve(curve, peers):
    client = peers(StockClient, file=curve.client)
    assert client.engines == {}
    engine = peers(StockEngine, file=curve.engine).join()
    assert client.notice("registration_notification").content["id"] == engine.id
    sent = client.apply(engine.name, os.getpid)
    engine.reply(engine.request(), 5)
    assert client.answer(sent).value == 5


def test_an_empty_key_is_accepted_with_curve(curve, peers):
    """ipcontroller's own files of this mode have an empty key: peers with such a file sign nothing."""
    client = peers(StockClient, file={**curve.client, "key": ""})
    asked = client.framing
    assert asked.sign([b"x"]) == b""
    client.sockets["query"].send_multipart(asked.frames(asked.header("connection_request"), {}))
    frames = client.sockets["query"].recv_multipart() if client.sockets["query"].poll(10_000) else None
    assert frames is not None, "no answer to an unsigned request"
    assert json.loads(frames[-1])["status"] == "ok"


@pytest.mark.parametrize("key", [None, "0" * 40], ids=["plain", "wrong server key"])
def test_who_does_not_know_the_public_key_gets_nothing(curve, peers, key):
    stranger = peers(StockClient, file={**curve.client, "curve_serverkey": key})
    stranger.send("query", "connection_request", {})
    assert not stranger.sockets["query"].poll(500)
    assert peers(StockClient, file=curve.client).engines == {}


# --- what is left ---


def listening(ports):
    """Which of the ports somebody answers on."""
    found = set()
    for port in ports:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.add(port)
    return found


@pytest.mark.skipif(IS_STOCK, reason="ipcontroller's eight children keep the ports")
def test_no_port_is_held_by_an_orphan_of_a_controller_that_was_killed(controller, real_engine_of):
    engine = real_engine_of(controller, "ours")
    assert unchanged_client(controller.client_file) == f"[0] [{engine.process.pid}]"
    ports = {controller.client[name] for name in CLIENT_PORTS} | {controller.engine[name] for name in ENGINE_PORTS}
    assert listening(ports) == ports
    controller.process.send_signal(signal.SIGKILL)
    controller.process.wait()
    assert until(lambda: not listening(ports), "the ports are free", limit=5)


@pytest.mark.skipif(IS_STOCK, reason="see above")
def test_with_reuse_the_killed_controllers_successor_has_the_same_ports_and_key(isolated, start):
    first = start("--reuse")
    before = first.client
    first.process.kill()
    first.process.wait()
    second = start("--reuse")
    assert {name: second.client[name] for name in (*CLIENT_PORTS, "key")} == {
        name: before[name] for name in (*CLIENT_PORTS, "key")
    }


def test_shutdown_is_answered_announced_and_done(controller, peers):
    client = peers(StockClient)
    assert client.engines == {}
    assert client.ask("shutdown_request")["status"] == "ok"
    client.notice("shutdown_notification")
    assert controller.process.wait(10) == 0
