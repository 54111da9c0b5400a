import fcntl
import json
import os
import subprocess
import sys

import pytest

from clusterd.errors import LockHeld
from clusterd.system import process
from clusterd.system.lock import LockFile, read_lease

HOLDER = """
import sys
from pathlib import Path
from clusterd.system.lock import LockFile
LockFile(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"held\n"
    yield child
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()


def test_lease_names_the_holder_until_released(tmp_path):
    lock = LockFile(tmp_path / "lock")
    with lock:
        assert lock.is_held
        assert read_lease(lock.path) == process.current()
    assert not lock.is_held
    assert read_lease(lock.path) is None


def test_second_process_is_refused_with_the_pid_of_the_first(tmp_path, holder):
    with pytest.raises(LockHeld, match=f"process {holder.pid}") as caught:
        LockFile(tmp_path / "lock").acquire()
    assert caught.value.pid == holder.pid


def test_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    with LockFile(tmp_path / "lock") as lock:
        assert read_lease(lock.path).pid == os.getpid()


def test_lease_of_another_host_is_never_taken_over(tmp_path):
    path = tmp_path / "lock"
    path.write_text(json.dumps(process.current()._replace(host="other-00000000")._asdict()))
    with pytest.raises(LockHeld, match="other-00000000") as caught:
        LockFile(path).acquire()
    assert f"rm {path}" in str(caught.value)


def test_without_flock_the_lease_of_a_living_process_holds(tmp_path, monkeypatch, holder):

    def unsupported(*_args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(LockHeld, match=f"process {holder.pid}"):
        LockFile(tmp_path / "lock").acquire()
    holder.kill()
    holder.wait()
    with LockFile(tmp_path / "lock") as lock:
        assert lock.is_held


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\x00\x01"])
def test_torn_lease_does_not_lock_anybody_out(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    with LockFile(tmp_path / "lock") as lock:
        assert read_lease(lock.path).pid == os.getpid()


def test_removed_file_is_no_lock(tmp_path, monkeypatch):
    # The holder removes the file between a competitor's open and its flock: the competitor must notice.

    path = tmp_path / "lock"
    real = fcntl.flock
    removals = []

    def flock(descriptor, operation):
        if not removals:
            removals.append(path.unlink())
        return real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with LockFile(path):
        assert removals
        assert read_lease(path).pid == os.getpid()


def test_release_removes_on_request_and_may_be_repeated(tmp_path):
    lock = LockFile(tmp_path / "lock")
    lock.acquire()
    lock.release(remove=True)
    lock.release(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_lock_does_not_leak_into_programs(tmp_path):
    with LockFile(tmp_path / "lock") as lock:
        assert not os.get_inheritable(lock._descriptor)
