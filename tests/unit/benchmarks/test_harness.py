"""The harness counts what it says it counts: CPU of a tree, verdicts in the right direction, failures that are kept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from benchmarks import harness, processes, report
from benchmarks.peers import measure
from benchmarks.targets import TARGETS, Target

BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"


def results(**figures):
    found = harness.Results({"cores": "2"}, "make bench", "2026-01-01", is_short=False)
    found.peers["ours"] = harness.Series([{"rate_per_s": value} for value in figures.get("ours", ())])
    found.peers["process_pool"] = harness.Series([{"rate_per_s": value} for value in figures.get("pool", ())])
    return found


def verdict(target, **figures):
    return report.verdict(target, results(**figures))


def test_cpu_of_children_counts_once_while_they_live_and_after():
    meter = processes.CpuMeter(os.getpid(), lambda process: "me" if process.pid == os.getpid() else "child")
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    spent = meter.stop()
    # The child has ended and was waited for: its time is in its parent's figure, and there is no other role.
    assert set(spent) == {"me", "total"}
    assert 0.25 <= spent["me"] < 3.0
    with subprocess.Popen([sys.executable, "-c", BUSY + "print(flush=True); input()"], stdin=-1, stdout=-1) as child:
        child.stdout.read(1)
        alive = meter.stop()
        child.stdin.close()
        child.wait()
    assert 0.25 <= alive["child"] < 3.0
    assert alive["me"] == pytest.approx(spent["me"], abs=0.25)


def test_a_reaper_finds_and_ends_a_process_that_left_its_parent():
    program = (
        "import os, subprocess, sys\n"
        "from benchmarks import processes\n"
        "processes.become_reaper()\n"
        "subprocess.run([sys.executable, '-c', 'import subprocess; subprocess.Popen([\"sleep\", \"60\"])'], check=True)\n"
        "print(processes.end_descendants(os.getpid()), processes.end_descendants(os.getpid()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, cwd=harness.ROOT
    )
    assert done.stdout == "['sleep 60'] []\n"


def test_memory_is_in_megabytes():
    assert 1 < processes.pss(os.getpid()) <= processes.rss(os.getpid()) <= processes.peak_rss(os.getpid()) < 4000


def test_verdicts_know_their_direction():
    higher = Target("rate", "peers.ours.rate_per_s", "higher", 100, "/s")
    lower = Target("rate", "peers.ours.rate_per_s", "lower", 100, "/s")
    assert verdict(higher, ours=[90, 120, 110]) == ("at least 100/s", "110/s", "ok")
    assert verdict(higher, ours=[50])[2] == "**missed** by a factor of 2.00"
    assert verdict(lower, ours=[100])[2] == "ok"
    assert verdict(lower, ours=[150])[2] == "**missed** by a factor of 1.50"
    assert verdict(lower) == ("at most 100/s", "-", "not measured")


def test_a_relative_limit_follows_the_peer():
    target = Target("rate", "peers.ours.rate_per_s", "higher", 1.2, "/s", "peers.process_pool.rate_per_s")
    assert verdict(target, ours=[1_300], pool=[1_000]) == ("at least 1,200/s", "1,300/s", "ok")
    assert verdict(target, ours=[1_100], pool=[1_000])[2].startswith("**missed**")
    assert verdict(target, ours=[1_100])[2] == "not measured"


def test_a_sum_with_a_part_missing_is_not_measured():
    target = Target("both", "peers.ours.rate_per_s", "lower", 10, "us", also=("peers.process_pool.rate_per_s",))
    assert verdict(target, ours=[3], pool=[4]) == ("at most 10 us", "7 us", "ok")
    assert verdict(target, ours=[3])[2] == "not measured"


def test_what_this_machine_cannot_measure_says_why():
    found = results(ours=[1.5])
    found.scenarios["durable"] = harness.Series()
    found.scenarios["durable"].add({"fsyncs": "no strace", "trip_ms": 2.0})
    found = harness.Results.from_json(found.to_json())
    target = Target(
        "fsyncs", "scenarios.durable.fsyncs", "lower", 3, "", beside=(("trip", "scenarios.durable.trip_ms", "ms"),)
    )
    assert report.verdict(target, found) == ("at most 3", "- (trip: 2 ms)", "not measured: no strace")
    assert "* durable, fsyncs: no strace" in report.render(found)


def test_results_survive_json():
    found = results(ours=[1.5, 2.5])
    found.peers["loky"] = harness.Series(failures=["did not finish in 3 s: nothing"])
    again = harness.Results.from_json(found.to_json())
    assert again == found
    text = report.render(again)
    assert "* loky: did not finish in 3 s: nothing" in text
    assert text.count("not measured") == len(TARGETS)


def test_what_is_added_takes_the_place_of_what_was_there():
    earlier = results(ours=[1.5], pool=[2.0])
    earlier.command = "make bench"
    later = results(ours=[3.0])
    later.peers.pop("process_pool", None)
    later.command = 'make bench ARGS="--only ours --add"'
    both = later.added_to(earlier)
    assert both.median("peers.ours.rate_per_s") == 3.0
    assert both.median("peers.process_pool.rate_per_s") == 2.0
    assert 'by `make bench` and (ours) `make bench ARGS="--only ours --add"`, which' in report.render(both)


ONE_ROUND = """
import json, pathlib, sys
from benchmarks import harness
harness.ROOT = pathlib.Path(sys.argv[1])
series = harness.Series()
harness.one_round("fails", series, ["fails"], 30)
harness.one_round("hangs", series, ["hangs"], 0.1)
harness.one_round("works", series, ["works"], 30)
print(json.dumps([series.failures, series.rounds]))
"""


def test_a_program_that_fails_or_hangs_is_kept_as_a_failure(tmp_path):
    (tmp_path / "fails.py").write_text("raise ValueError('no such luck')")
    (tmp_path / "hangs.py").write_text("import signal; signal.pause()")
    (tmp_path / "works.py").write_text("import sys, json; json.dump({'a_s': 1.0}, open(sys.argv[2], 'w'))")
    # In a process of its own: the harness ends all that descends from it, here it would be every process of the tests.
    done = subprocess.run(
        [sys.executable, "-c", ONE_ROUND, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=harness.ROOT,
    )
    failures, rounds = json.loads(done.stdout.splitlines()[-1])
    assert failures == ["ended with 1: ValueError: no such luck", "did not finish in 0 s: it said nothing"]
    assert rounds == [{"a_s": 1.0}]


def measured(path):
    """Say whether something produces the figure of that path."""
    kind, name, figure = path.split(".")
    if kind == "scenarios":
        # Some measure several sides, or stores, with the same words.
        sides = "ours|theirs_(nodb|dictdb|sqlitedb|mongodb)|theirs|fleet_[0-9]+|(none|memory|mongodb|sqlite(_process|_disk)?)(_stock)?"
        suffix = re.sub(f"^({sides})_(?=[a-z])", "", figure)
        source = (harness.ROOT / "benchmarks" / "scenarios" / f"{name}.py").read_text()
        return any(words in source for words in (f'"{figure}"', f'"{suffix}"', f'f"{{name}}_{suffix}"'))
    roles = ("client", "controller", "engine")
    return figure in {
        "one_by_one_per_s",
        "round_trip_p50_ms",
        *(f"map_{chunk}_per_s" for chunk in (*measure.CHUNKS, "default")),
        *(f"cpu_us_{role}" for role in roles),
    }


def test_every_target_names_a_figure_that_something_measures():
    paths = {path for target in TARGETS.values() for path in (target.figure, target.of, *target.also) if path}
    paths |= {path for target in TARGETS.values() for _, path, _ in target.beside}
    assert [path for path in sorted(paths) if not measured(path)] == []
