from __future__ import annotations

import resource
import subprocess

import pytest

from clusterd.core.model.profile import Limits
from clusterd.launchers import limits
from clusterd.launchers.limits import hold, not_held, without_units

ALL = Limits(memory=2**30, cpus=2, tasks=100)


@pytest.fixture
def sleeper():
    child = subprocess.Popen(["sleep", "60"])
    yield child.pid
    child.kill()
    child.wait()


def test_memory_is_bounded_for_a_process_and_what_it_starts(sleeper):
    hold(sleeper, Limits())
    before = resource.prlimit(sleeper, resource.RLIMIT_DATA)
    hold(sleeper, ALL)
    assert before != resource.prlimit(sleeper, resource.RLIMIT_DATA) == (2**30, 2**30)


def test_a_process_that_is_gone_is_no_error():
    child = subprocess.Popen(["true"])
    child.wait()
    hold(child.pid, ALL)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Limits(), ""),
        (Limits(memory=2**30), "memory is bounded for each process by itself, not for all together"),
        (Limits(tasks=100), "tasks is not held"),
        (Limits(cpus=1, tasks=100), "cpus and tasks are not held"),
    ],
)
def test_what_is_not_held_without_systemd(wanted, told):
    assert without_units(wanted) == (f"limits: {told}, because systemd has not started it" if told else "")


class Groups:
    """A tree of control groups, and a process in it."""

    def __init__(self, tmp_path, monkeypatch):
        self.root = tmp_path
        monkeypatch.setattr(limits, "_GROUPS", tmp_path)
        self.of = {}
        monkeypatch.setattr(limits, "_groups_of", lambda _pid: self.of)

    def file(self, path, text):
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@pytest.fixture
def groups(tmp_path, monkeypatch):
    return Groups(tmp_path, monkeypatch)


def test_control_groups_of_version_2(groups):
    groups.of = {"": "/clusterd.slice/a.service"}
    assert not_held(ALL, 1).startswith("limits: memory, cpus, tasks not held")
    groups.file("clusterd.slice/a.service/memory.max", "1073741824\n")
    groups.file("clusterd.slice/a.service/cpu.max", "200000 100000\n")
    groups.file("clusterd.slice/a.service/pids.max", "max\n")
    assert not_held(ALL, 1).startswith("limits: tasks not held")
    groups.file("clusterd.slice/a.service/pids.max", "100\n")
    assert not_held(ALL, 1) == ""


def test_control_groups_of_version_1(groups):
    unit = "/clusterd.slice/a.service"
    groups.of = {"name=systemd": unit, "memory": unit, "pids": unit, "cpu": "/"}
    groups.file("memory/clusterd.slice/a.service/memory.limit_in_bytes", "9223372036854771712\n")
    groups.file("pids/clusterd.slice/a.service/pids.max", "100\n")
    # Of the machine, not of the unit.
    groups.file("cpu/cpu.cfs_quota_us", "200000\n")
    assert not_held(ALL, 1).startswith("limits: memory, cpus not held")
    groups.file("memory/clusterd.slice/a.service/memory.limit_in_bytes", "1073741824\n")
    assert not_held(Limits(memory=2**30, tasks=100), 1) == ""


def test_nothing_is_said_of_a_process_that_is_gone(groups):
    assert not_held(ALL, 1) == ""
