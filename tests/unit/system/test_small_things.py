import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import clusterd
from clusterd.system import memory, shared_page, systemd

BLOCKED = """
import importlib, pkgutil, sys
for name in ("fcntl", "pwd", "resource", "grp", "termios"):
    sys.modules[name] = None
import clusterd.core, clusterd.system
found = 0
for package in (clusterd.core, clusterd.system):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        found += 1
print(found)
"""


def test_core_and_system_import_without_the_posix_only_modules():
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=Path(clusterd.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10


def test_notify_outside_of_a_unit_says_so(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert systemd.notify("READY=1") is False


def test_notify_reaches_the_socket(monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert systemd.notify("READY=1", "STATUS=up") is True
        assert receiver.recv(100) == b"READY=1\nSTATUS=up"


def test_children_do_not_get_the_service_variables():
    assert systemd.without_service_variables({"NOTIFY_SOCKET": "x", "LISTEN_FDS": "1", "PATH": "/bin"}) == {
        "PATH": "/bin"
    }


def test_proportional_set_size_of_ourselves_and_of_nobody():
    own = memory.proportional_set_size(os.getpid())
    assert own is None or 1_000_000 < own < 10_000_000_000
    assert memory.proportional_set_size(2**22 + 1) is None


def test_shared_page_is_seen_by_the_reader_and_not_reused(tmp_path):
    path = tmp_path / "x.page"
    with shared_page.create(path, 4096) as writer, shared_page.open_existing(path, 4096) as reader:
        writer[0:5] = b"hello"
        assert reader[0:5] == b"hello"
        with shared_page.create(path, 4096) as second:
            second[0:5] = b"other"
            assert reader[0:5] == b"hello"
    assert path.stat().st_mode & 0o777 == 0o600


def test_short_page_is_refused(tmp_path):
    (tmp_path / "x.page").write_bytes(b"short")
    with pytest.raises(ValueError, match="shorter"):
        shared_page.open_existing(tmp_path / "x.page", 4096)
