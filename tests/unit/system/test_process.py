import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clusterd.system import process


@pytest.fixture
def child():
    with subprocess.Popen(["/bin/sleep", "1000"]) as started:
        yield started
        started.kill()


def test_current_is_a_fresh_look_at_ourselves():
    identity = process.current()
    assert identity.pid == os.getpid()
    assert process.is_same_and_alive(identity)


def test_of_nobody_is_none():
    assert process.of(2**22 + 1) is None


@pytest.mark.parametrize("name", ["sl)eep (x) 1", "a b c", ") R 1 1"])
def test_command_names_do_not_confuse_the_parser(tmp_path, name):
    program = tmp_path / name
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as started:
        identity = process.of(started.pid)
        assert identity is not None
        assert identity.start_time >= process.current().start_time
        started.kill()


def test_zombie_is_dead(child):
    identity = process.of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but not reaped
    assert Path(f"/proc/{child.pid}").exists()
    assert process.of(child.pid) is None
    assert process.probe(identity) == "gone"
    assert process.ProcessHandle.open(identity) is None


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, "alive"),
        ({"start_time": 1}, "gone"),
        ({"boot_id": "another"}, "gone"),
        ({"host": "another"}, "unknown"),
        ({"pid_namespace": 1}, "unknown"),
    ],
)
def test_probe_says_what_can_be_known(change, answer):
    identity = process.current()._replace(**change)
    assert process.probe(identity) == answer
    assert process.is_same_and_alive(identity) == (answer == "alive")
    assert process.is_same(identity, process.current()) == (answer == "alive")


def test_reused_pid_is_never_signalled(child):
    stranger = process.of(child.pid)._replace(start_time=1)
    assert process.send_signal(stranger, signal.SIGKILL) is False
    assert child.poll() is None


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_handle_signals_waits_and_becomes_readable(child, monkeypatch, has_pidfd):
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    identity = process.of(child.pid)
    with process.ProcessHandle.open(identity) as handle:
        assert (handle.fileno() >= 0) == has_pidfd
        assert handle.is_alive()
        assert handle.wait(0) is False
        assert handle.send_signal(signal.SIGTERM) is True
        assert handle.wait(10) is True
        assert not handle.is_alive()
        assert child.wait() == -signal.SIGTERM
        assert handle.send_signal(signal.SIGTERM) is False


def test_handle_closes_its_descriptor_when_the_process_is_not_the_one(child):
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    assert process.ProcessHandle.open(process.of(child.pid)._replace(start_time=1)) is None
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def test_forked_child_has_its_own_identity():
    code = (
        "import os\nfrom clusterd.system import process\nparent = process.current()\npid = os.fork()\n"
        "if not pid: os._exit(process.current().pid != os.getpid())\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or parent.pid != os.getpid())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
