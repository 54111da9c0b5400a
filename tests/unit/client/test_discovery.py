"""Which cluster is meant, where its file is, and whether it is to be trusted: told at once, in words."""

from __future__ import annotations

import json
import os
import socket
import threading
import time

import pytest

import clusterd
from clusterd.client import discovery
from clusterd.core.model.connection import CLIENT_FILE
from clusterd.errors import ConnectionFileError, ControllerLost
from clusterd.system import acl, paths


@pytest.fixture
def placed(controller, isolated):
    """The file of the fake controller where that of profile `local` belongs."""
    path = paths.state_dir("local") / "security" / CLIENT_FILE
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(controller.file.read_bytes())
    path.chmod(0o600)
    return path


def connects(where):
    with clusterd.Client(where) as client:
        return client.cluster == "fake"


def test_by_name_path_and_directory(placed, controller):
    assert connects("local")
    assert connects(placed)
    assert connects(str(placed))
    assert connects(paths.state_dir("local"))
    assert connects(f"{placed.parent}/")
    assert connects(controller.file)


def test_a_name_that_nobody_has():
    with pytest.raises(ConnectionFileError, match=r"no connection file of nobody: looked at .*nobody") as caught:
        clusterd.Client("nobody")
    assert "clusterctl -p nobody start" in caught.value.hint
    with pytest.raises(ConnectionFileError, match=r"looked at /nowhere/at/all.json") as caught:
        clusterd.Client("/nowhere/at/all.json")
    assert "controller writes it" in caught.value.hint
    with pytest.raises(ConnectionFileError, match="empty"):
        clusterd.Client("")


def serve(name, answer, status=200):
    """A daemon that answers every request with the same."""
    path = paths.runtime_dir(name) / "control.sock"
    path.parent.mkdir(parents=True, mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    body = json.dumps(answer).encode()

    def work():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                if connection.recv(65536):
                    head = (
                        f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                    )
                    connection.sendall(head.encode() + body)

    thread = threading.Thread(target=work)
    thread.start()

    def end():
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()

    return end


def test_the_daemon_knows_better(controller, isolated):
    end = serve("elsewhere", {"client_file": str(controller.file)})
    try:
        assert connects("elsewhere")
        # The only running instance is meant where none is named.
        assert connects(None)
    finally:
        end()


def test_which_one_is_meant(placed, controller, monkeypatch):
    with pytest.raises(ConnectionFileError, match="no clusterd runs here") as caught:
        clusterd.Client()
    assert "clusterctl start" in caught.value.hint
    monkeypatch.setenv("CLUSTERD_PROFILE", "local")
    assert connects(None)
    ends = [serve(name, {"client_file": str(controller.file)}) for name in ("one", "two")]
    try:
        assert connects(None)
        monkeypatch.delenv("CLUSTERD_PROFILE")
        with pytest.raises(ConnectionFileError, match="several instances run: one, two") as caught:
            clusterd.Client()
        assert 'clusterd.Client("one")' in caught.value.hint
    finally:
        for end in ends:
            end()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o610])
def test_a_file_that_is_open_to_others_is_refused(controller, mode):
    controller.file.chmod(mode)
    with pytest.raises(ConnectionFileError, match=f"open to others \\(mode {mode:04o}\\)") as caught:
        clusterd.Client(controller.file)
    assert "chmod 600" in caught.value.hint


def test_a_file_of_somebody_else_is_refused(controller, monkeypatch):
    monkeypatch.setattr(discovery.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConnectionFileError, match="belongs to uid"):
        clusterd.Client(controller.file)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a connection file"),
        (b"\xff\xfe", "not a connection file"),
        (b"[1, 2]", "not a connection file"),
        (b'{"key": "stock", "registration": 5}', "another controller"),
        (b'{"clusterd": {"format": 1}}', "missing required field"),
        (
            b'{"clusterd":{"format":99,"data":"unix:///x","control":"unix:///x","key":"00","cluster":"x","controller":"00"}}',
            "format 99",
        ),
    ],
)
def test_a_file_that_is_none(controller, content, match):
    controller.file.write_bytes(content)
    with pytest.raises(ConnectionFileError, match=match) as caught:
        clusterd.Client(controller.file)
    assert str(controller.file) in str(caught.value)


def test_a_controller_that_is_gone_is_told_soon(controller):
    controller.stop()
    began = time.monotonic()
    with pytest.raises(ControllerLost, match="the controller of 'fake' is not running: nobody listens"):
        clusterd.Client(controller.file, timeout=30)
    assert time.monotonic() - began < 5


def test_a_controller_that_comes_back_in_time_is_met(controller):
    controller.stop()
    timer = threading.Timer(0.1, controller.start)
    timer.start()
    assert connects(controller.file)
    timer.join()


def test_a_controller_that_says_nothing(controller):
    controller.is_silent = True
    with pytest.raises(ControllerLost, match=r"did not answer within 0.3 s: no answer yet from unix:///") as caught:
        clusterd.Client(controller.file, timeout=0.3)
    assert "clusterctl" in caught.value.hint


def test_a_wrong_key(controller, isolated):
    content = json.loads(controller.file.read_bytes())
    content["clusterd"]["key"] = "00" * 32
    path = isolated.home / "forged.json"
    path.touch(0o600)
    path.write_text(json.dumps(content))
    with pytest.raises(ControllerLost, match=r"did not answer within 0.3 s"):
        clusterd.Client(path, timeout=0.3)


def test_a_file_that_was_given_to_others_by_acl_is_meant(controller):
    try:
        acl.share(controller.file, 4, frozenset({70_001}), frozenset())
    except acl.ReachError as error:
        pytest.skip(str(error))
    assert controller.file.stat().st_mode & 0o777 == 0o640
    assert discovery.read_file(controller.file).cluster
    controller.file.chmod(0o644)
    with pytest.raises(ConnectionFileError, match="open to others"):
        discovery.read_file(controller.file)


def test_a_group_may_read_it_when_a_daemon_has_said_so(controller):
    controller.file.chmod(0o640)
    assert discovery.read_file(controller.file, is_shared=True).cluster
    controller.file.chmod(0o660)
    with pytest.raises(ConnectionFileError, match="open to others"):
        discovery.read_file(controller.file, is_shared=True)


def test_a_file_of_the_user_of_a_daemon_that_is_trusted_is_read(controller, monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(discovery.os, "geteuid", lambda: owner + 1)
    assert discovery.read_file(controller.file, owner=owner).cluster
    with pytest.raises(ConnectionFileError, match="belongs to uid"):
        discovery.read_file(controller.file, owner=owner + 2)


def test_the_daemons_refusal_is_the_reason():
    refusal = {"code": "denied", "message": "alice has view here; `connection` needs connect", "hint": "ask bob"}
    end = serve("lab", {"error": refusal}, 403)
    try:
        with pytest.raises(ConnectionFileError, match="alice has view here") as caught:
            clusterd.Client("lab")
        assert caught.value.hint == "ask bob"
    finally:
        end()
