"""Placement, causes of ends, logs, the kernel's counters."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from clusterd.agent import causes, logs, memory_events
from clusterd.agent.placement import Placement, gpus_here, static_environment
from clusterd.core.model.launch import AgentSpec


def spec(**changes):
    return AgentSpec(
        launch="l",
        cluster="c",
        engine_set="s",
        profile_dir="/p",
        runtime_dir="/r",
        log_dir="/l",
        connection_file="/f",
        **changes,
    )


# --- placement ---


def test_ranks_are_the_lowest_free_and_never_shared():
    placement = Placement(spec(), [], [])
    assert [placement.rank(slot) for slot in (5, 9, 5)] == [0, 1, 0]
    placement.keep_only([9])
    assert [placement.rank(slot) for slot in (7, 9, 8)] == [0, 1, 2]


def test_the_environment_has_its_placeholders_expanded():
    placement = Placement(spec(env={"A": "{local_rank}-{slot}-{set}-{n}", "B": "{{x}}"}), [], [])
    assert placement.environment(4, 8) == {"A": "0-4-s-8", "B": "{x}"}


def test_the_zygotes_environment_is_what_all_engines_share():
    assert static_environment(spec(env={"OMP_NUM_THREADS": "1", "R": "{slot}"})) == {"OMP_NUM_THREADS": "1"}


def test_cores_are_given_in_turn_and_shared_when_there_are_too_few():
    placement = Placement(spec(bind=True, cpus_per_engine=2), [0, 1, 2, 3, 8], [])
    assert [placement.cpus(slot) for slot in range(3)] == [[0, 1], [2, 3], [0, 8]]
    assert placement.warnings(3) == ["3 engines with 2 cores each share 5 cores on this node"]
    assert placement.warnings(2) == []


def test_without_bind_nothing_is_pinned():
    assert Placement(spec(), [0, 1], []).cpus(0) == []


def test_gpus_are_given_unless_the_profile_says_otherwise():
    placement = Placement(spec(gpus_per_engine=1), [], ["0", "1"])
    assert [placement.environment(slot, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0", "1", "0"]
    assert "share 2 GPUs" in placement.warnings(3)[0]
    own = Placement(spec(gpus_per_engine=1, env={"CUDA_VISIBLE_DEVICES": "7"}), [], ["0"])
    assert own.environment(0, 1) == {"CUDA_VISIBLE_DEVICES": "7"}


def test_the_gpus_that_a_batch_system_gave_are_respected(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
    assert gpus_here() == ["3", "GPU-abc"]


# --- causes ---


def exited(code):
    return code << 8


@pytest.mark.parametrize(
    ("status", "asked", "oom", "expected"),
    [
        (exited(0), "", "", causes.End(0, -1, False, False, False, "ended with exit status 0")),
        (exited(3), "", "", causes.End(3, -1, False, False, True, "ended with exit status 3")),
        (exited(0), "surplus", "", causes.End(0, -1, False, True, False, "stopped: its set was made smaller")),
        (
            exited(0),
            "had not registered 60 s after its start",
            "",
            causes.End(0, -1, False, True, False, "had not registered 60 s after its start"),
        ),
        (signal.SIGSEGV, "", "", causes.End(-1, 11, False, False, True, "crashed with SIGSEGV")),
        (signal.SIGTERM, "", "", causes.End(-1, 15, False, False, True, "killed by SIGTERM")),
        (signal.SIGKILL, "kill", "", causes.End(-1, 9, False, True, False, "killed by command")),
        (
            signal.SIGKILL,
            "",
            "the machine ran out of memory",
            causes.End(
                -1,
                9,
                True,
                False,
                True,
                "killed by the kernel because the machine ran out of memory (its peak was 100 MiB)",
            ),
        ),
        (64, "", "", causes.End(-1, 64, False, False, True, "killed by SIGRTMAX")),
    ],
)
def test_an_end_in_words(status, asked, oom, expected):
    assert causes.of_status(status, asked, oom, 100 * 2**20) == expected


def test_sigkill_without_any_trace_names_the_suspects():
    end = causes.of_status(signal.SIGKILL, "", "", 2**20)
    assert "a person, a batch system's limit or the kernel" in end.cause
    assert not end.is_oom


def test_the_end_of_an_orphan_is_not_guessed():
    end = causes.unknown("", "", "an earlier agent")
    assert (end.exit_code, end.signal, end.is_failure) == (-1, -1, True)
    assert "how is not known" in end.cause
    assert causes.unknown("stop", "", "x") == causes.End(-1, -1, False, True, False, "stopped by command")


# --- logs ---


def test_the_tail_begins_where_this_engine_began(tmp_path):
    path = tmp_path / "log"
    path.write_text("old 1\nold 2\n")
    begin = logs.size(path)
    with path.open("a") as file:
        file.write("new 1\nnew 2\n")
    assert logs.tail(path, begin) == "new 1\nnew 2"
    assert logs.tail(path, logs.size(path)) == ""


def test_the_tail_is_bounded_and_begins_with_a_whole_line(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {n:04}\n" for n in range(10_000)))
    lines = logs.tail(path).splitlines()
    assert lines == [f"line {n:04}" for n in range(9_980, 10_000)]
    path.write_text("x" * 100_000)
    assert len(logs.tail(path)) <= 8192


def test_the_tail_of_a_rotated_log_is_all_of_it(tmp_path):
    path = tmp_path / "log"
    path.write_text("short\n")
    assert logs.tail(path, begin=10_000) == "short"


def test_the_tail_of_nothing_is_nothing(tmp_path):
    assert logs.tail(tmp_path / "none") == ""


def test_of_a_crash_the_innermost_frames_are_shown(tmp_path):
    path = tmp_path / "log"
    frames = "".join(f'  File "x.py", line {n} in f{n}\n' for n in range(40))
    path.write_text(
        f"before\nFatal Python error: Segmentation fault\n\nCurrent thread 0x1:\n{frames}\nExtension modules: a\n"
    )
    tail = logs.tail(path).splitlines()
    assert tail[:3] == ["Fatal Python error: Segmentation fault", "Current thread 0x1:", '  File "x.py", line 0 in f0']
    assert len(tail) < 15


def test_rotation_renames_what_is_long_and_replaces_the_one_before(tmp_path):
    long, short = tmp_path / "long.log", tmp_path / "short.log"
    long.write_text("x" * 101)
    short.write_text("x" * 100)
    (tmp_path / "long.log.1").write_text("older")
    assert logs.rotate([long, short, tmp_path / "missing"], 100) == [long]
    assert (tmp_path / "long.log.1").read_text() == "x" * 101
    assert not long.exists()
    # The engine has not moved on: nothing is overwritten.
    assert logs.rotate([long], 100) == []
    assert (tmp_path / "long.log.1").read_text() == "x" * 101


# --- out of memory ---


def test_a_kill_for_memory_is_told_once_and_the_own_limit_first(tmp_path, monkeypatch):
    counts = {"group": 3, "older": 7, "machine": 10}
    group, older = tmp_path / "memory.events", tmp_path / "older" / "memory.events"
    names = {group: "group", older: "older"}
    monkeypatch.setattr(memory_events, "_counter_file", lambda pid: group if pid == "self" else older)
    monkeypatch.setattr(memory_events, "_read", lambda path, name: counts[names.get(path, "machine")])
    watch = memory_events.OomWatch()
    assert watch.look() == ""
    counts["machine"] += 1
    assert watch.look() == "the machine ran out of memory"
    counts["machine"] += 1
    counts["group"] += 1
    assert watch.look() == "the memory limit of its cgroup was reached"
    assert watch.look() == ""
    # An engine that an earlier agent left in a group of its own.
    watch.follow(4711)
    assert watch.look() == ""
    counts["older"] += 1
    assert watch.look() == "the memory limit of its cgroup was reached"
    assert watch.look() == ""


def test_the_counters_of_this_kernel_can_be_read(tmp_path):
    assert memory_events.OomWatch().look() == ""
    events = tmp_path / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 5\noom 1\noom_kill 2\n")
    assert memory_events._read(events, "oom_kill") == 2
    assert memory_events._read(tmp_path / "none", "oom_kill") == 0
    assert memory_events._read(Path("/proc/vmstat"), "pgfault") > 0
