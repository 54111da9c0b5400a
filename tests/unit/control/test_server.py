from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading

import pytest

from clusterd.control import requests
from clusterd.control.client import ControlClient
from clusterd.control.listening import listen
from clusterd.control.service import Service
from clusterd.errors import ControlError, DaemonNotRunning, LockHeld, NotPrivate, ProfileError
from tests.unit.control.serving import FakeService, serving

BASE = "/v1/clusters/local"
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def path(isolated):
    return isolated.runtime / "local" / "control.sock"


@pytest.fixture
def served(path):
    with serving(path) as (service, call):
        yield service, call, ControlClient(path)


def raw(path, data):
    """Send bytes as they are and return all that comes back."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(data)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)


def test_the_socket_is_private(served, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [child.name for child in path.parent.iterdir()] == ["control.sock"]


def test_every_answer_has_the_version(served):
    client = served[2]
    assert client.get("/v1/version") == {"version": 1, "profile": "local", "pid": 1}
    assert client.get("/v1/clusters")["clusters"] == [{"name": "local", "state": "running"}]
    assert client.get(BASE) == {"version": 1, "cluster": "local", "is_converged": False}
    assert client.pid == os.getpid()


def test_commands_reach_the_service_with_the_uid_of_the_caller(served):
    service, _, client = served
    client.post(f"{BASE}/start", {"n": 4})
    client.post(f"{BASE}/stop")
    client.post(f"{BASE}/restart", {"what": "controller"})
    client.put(f"{BASE}/sets/gpu", {"n": 128, "drain_timeout": 5})
    client.post(f"{BASE}/sets/gpu/resume")
    client.post(f"{BASE}/engines/kill", {"targets": ["engines/3", 4]})
    uid = os.geteuid()
    assert service.calls == [
        ("start", requests.Start(n=4), uid),
        ("stop", requests.Stop(), uid),
        ("restart", requests.Restart("controller"), uid),
        ("scale gpu", requests.Scale(n=128, drain_timeout=5), uid),
        ("resume gpu", requests.Resume(), uid),
        ("engines kill", requests.Targets(["engines/3", 4]), uid),
    ]


@pytest.mark.parametrize(
    ("method", "target", "code", "parts"),
    [
        ("get", "/v1/clustres", "not_found", ["/v1/clusters?"]),
        ("get", "/v1/clusters/local/engine", "not_found", ["/v1/clusters/local/engines"]),
        ("get", "/v1/clusters/lokal", "not_found", ["no cluster `lokal`", "`local`"]),
        ("post", f"{BASE}/engines/interupt", "not_found", ["mean `interrupt`"]),
        ("post", BASE, "wrong_method", ["does not take POST", "takes GET"]),
        ("get", f"{BASE}/engines?x=1", "bad_request", ["unknown parameter `x`"]),
        ("post", f"{BASE}/start", "bad_request", ["field `n`"]),
        ("get", f"{BASE}/connection", "internal", ["ZeroDivisionError"]),
        ("get", f"{BASE}/tasks?limit=0", "bad_request", ["parameter `limit`", ">= 1"]),
        ("get", f"{BASE}/tasks?cursor=x", "bad_request", ["parameter `cursor`"]),
        ("get", f"{BASE}/tasks/nobody", "unknown_task", ["no record of task nobody"]),
        ("post", f"{BASE}/tasks/purge", "bad_request", ["unknown field `n`"]),
    ],
)
def test_refusals_say_what_and_what_else(served, method, target, code, parts):
    client = served[2]
    with pytest.raises(ControlError) as caught:
        client.post(target, {"n": "x"}) if method == "post" else client.get(target)
    assert caught.value.code == code
    for part in parts:
        assert part in str(caught.value)


def test_tasks_are_asked_for_by_parameters(served):
    service, _, client = served
    client.get(f"{BASE}/tasks", state="error", label="a b*", since=1.5, limit=7, full=True, cursor="3:4")
    wanted = requests.TasksQuery(state="error", label="a b*", since=1.5, limit=7, full=True, cursor="3:4")
    assert service.calls == [("tasks", wanted, None)]
    assert client.get(f"{BASE}/tasks/m%2F1")["task"] == {"id": "m/1"}
    client.post(f"{BASE}/tasks/purge", {"tasks": ["a"]})
    assert service.calls[1] == ("purge", requests.TasksPurge(tasks=["a"]), os.geteuid())


@pytest.mark.parametrize("body", [{}, {"cursor": "1:2"}, {"tasks": ["a"], "state": "ok"}, {"tasks": []}], ids=repr)
def test_a_purge_says_what_is_meant(served, body):
    with pytest.raises(ControlError) as caught:
        served[2].post(f"{BASE}/tasks/purge", body)
    assert caught.value.code == "bad_request"


def test_errors_keep_their_class_over_the_wire(served):
    with pytest.raises(ProfileError, match="did you mean `n`"):
        served[2].post(f"{BASE}/reload")


def test_a_large_body_is_refused(served):
    with pytest.raises(ControlError) as caught:
        served[2].post(f"{BASE}/engines/kill", {"targets": ["engines/1"] * 50_000})
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff" * 100, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_garbage_is_answered_and_hurts_nobody(served, path, garbage):
    assert raw(path, garbage).startswith(b"HTTP/1.")
    assert served[2].get("/v1/version")["version"] == 1


def test_curl_style_requests_work(served, path):
    answer = raw(path, b"GET /v1/version HTTP/1.0\r\n\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"version": 1, "profile": "local", "pid": 1}


def test_waiting_ends_when_it_converges(served):
    service, call, client = served
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.get(f"{BASE}?wait=converged&timeout=9")))
    thread.start()
    call(service.converges.set)
    thread.join()
    assert answers[0]["is_converged"] is True
    assert service.calls == [("wait", requests.StatusQuery("converged", timeout=9.0), None)]


def test_a_stream_comes_line_by_line(served):
    service, _, client = served
    assert [item["line"] for item in client.stream(f"{BASE}/logs", tail=3)] == ["one", "two\u2028\n"]
    assert service.calls == [("logs", requests.Logs(tail=3), None)]


def test_a_follower_that_hangs_up_is_forgotten(served):
    service, call, client = served
    stream = client.stream(f"{BASE}/events", follow=True)
    assert next(stream)["line"] == "one"
    assert next(stream)["line"].startswith("two")
    stream.close()
    # The next exchange is behind the hang-up in the loop, though not always by one turn of it.
    for _ in range(1000):
        client.get("/v1/version")
        if call(lambda: service.followers) == 0:
            return
    pytest.fail("the reader is still there")


def test_a_daemon_that_ends_cuts_its_streams(path):
    with serving(path):
        stream = ControlClient(path).stream(f"{BASE}/logs", follow=True)
        next(stream)
        next(stream)
    with pytest.raises(ControlError) as caught:
        next(stream)
    assert caught.value.code == "cut_short"


def test_nobody_listens(path):
    with pytest.raises(DaemonNotRunning):
        ControlClient(path).get("/v1/version")
    path.parent.mkdir()
    listen(path).close()
    assert path.exists()
    with pytest.raises(DaemonNotRunning):
        ControlClient(path).get("/v1/version")


def test_a_socket_that_nobody_serves_is_taken_over(path):
    listen(path).close()
    before = path.stat().st_ino
    with serving(path):
        assert path.stat().st_ino != before
        assert ControlClient(path).get("/v1/version")


def test_a_socket_that_somebody_serves_is_not(served, path):
    with pytest.raises(LockHeld, match="somebody listens"):
        listen(path)
    assert served[2].get("/v1/version")


def test_a_file_that_is_no_socket_is_not_removed(path):
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(ControlError, match="no socket"):
        listen(path)
    assert path.read_text() == "mine"


def test_a_directory_of_others_is_refused(isolated):
    place = isolated.root / "link"
    place.symlink_to(isolated.runtime)
    with pytest.raises(NotPrivate):
        listen(place / "control.sock")


def test_a_path_too_long_is_told_with_the_way_out(isolated):
    with pytest.raises(ControlError, match="CLUSTERD_RUNTIME_DIR"):
        listen(isolated.runtime / ("x" * 100) / "control.sock")


def test_a_silent_daemon_is_given_up(path):
    listener = listen(path)
    with pytest.raises(ControlError) as caught:
        ControlClient(path, timeout=0.2).get("/v1/version")
    assert caught.value.code == "no_answer"
    assert f"process {os.getpid()}" in str(caught.value)
    listener.close()


ANSWERS = {
    b"": "cut_short",
    b"SSH-2.0-OpenSSH\r\n": "bad_answer",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{": "cut_short",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}": "cut_short",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]": "refused",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[]": "bad_answer",
    b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000: "bad_answer",
    b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops": "bad_answer",
}


@pytest.mark.parametrize("answer", list(ANSWERS), ids=lambda answer: repr(answer[:40]))
def test_what_is_no_answer_is_never_taken_for_one(path, answer):
    listener = listen(path)

    def serve():
        listener.setblocking(True)
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(ControlError) as caught:
        ControlClient(path, timeout=5).get("/v1/version")
    assert caught.value.code == ANSWERS[answer]
    thread.join()
    listener.close()


# Everything is imported before the uid changes: another user may not be able to read this interpreter.
ASK = """
import os, pwd, sys, traceback
from clusterd.control.client import ControlClient
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
try:
    print(ControlClient({path!r}, timeout=2).get("/v1/version"))
except Exception as error:
    print(type(error).__name__, error.code, str(error))
"""


def ask_as(uid, path):
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(uid=uid, path=str(path))],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout


@as_root
def test_another_user_cannot_reach_the_socket(served, path):
    answer = ask_as(NOBODY, path)
    assert answer.startswith("PermissionDenied denied")
    assert f"uid {NOBODY}" in answer
    assert "uid 0 (root)" in answer


@as_root
def test_another_user_is_refused_by_the_daemon_too(served, path):
    # As if somebody had opened the modes: the kernel's word about the caller still counts.
    opened = [path, path.parent, path.parent.parent, path.parent.parent.parent]
    for place in opened:
        place.chmod(0o777)
    # The caller does not trust a socket of somebody else, either, unless it is root's: this one is.
    answer = ask_as(NOBODY, path)
    assert answer.startswith("PermissionDenied denied")
    assert f"uid {NOBODY}" in answer
    assert "may not command this daemon, which runs as uid 0 (root)" in answer
    assert served[0].calls == []


SERVE_AS = """
import os, socket, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
s = socket.socket(socket.AF_UNIX); s.bind({path!r}); os.chmod({path!r}, 0o777); s.listen()
print("ready", flush=True)
sys.stdin.read()
"""


@as_root
def test_a_caller_says_nothing_to_a_stranger_who_took_the_daemons_place(isolated):
    isolated.root.chmod(0o777)
    path = isolated.root / "s.sock"
    with subprocess.Popen(
        [sys.executable, "-c", SERVE_AS.format(uid=NOBODY, path=str(path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as stranger:
        assert stranger.stdout.readline() == b"ready\n"
        assert "neither ours" in ask_as(NOBODY - 1, path)
        stranger.stdin.close()


@as_root
@pytest.mark.parametrize(
    ("owner", "above", "is_trusted"),
    # Root has made the directory for who serves there; or not for him; or everybody could have.
    [(NOBODY, 0o755, True), (NOBODY - 2, 0o755, False), (NOBODY, 0o775, False), (NOBODY, 0o1777, False)],
)
def test_a_caller_trusts_whom_root_has_given_the_place(isolated, owner, above, is_trusted):
    directory = isolated.runtime / "lab"
    directory.mkdir()
    os.chown(directory, owner, owner)
    for place, mode in ((isolated.root, 0o755), (isolated.runtime, above), (directory, 0o777)):
        place.chmod(mode)
    path = directory / "control.sock"
    with subprocess.Popen(
        [sys.executable, "-c", SERVE_AS.format(uid=NOBODY, path=str(path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as daemon:
        assert daemon.stdout.readline() == b"ready\n"
        # It listens and never answers: who trusts it waits for that.
        told = ask_as(NOBODY - 1, path)
        assert ("no_answer" in told) == is_trusted, told
        assert ("neither ours" in told) != is_trusted, told
        daemon.stdin.close()


def test_the_service_protocol_is_what_the_fake_has():
    missing = [name for name in vars(Service) if not name.startswith("_") and not hasattr(FakeService, name)]
    assert missing == []
