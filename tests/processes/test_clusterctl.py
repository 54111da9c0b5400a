"""clusterctl against real daemons: what is meant, what is answered, in which shape, with which exit status."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

import clusterd
from tests.processes.cluster import CTL, PROFILE, Cluster
from tests.waiting import until

LOUD = PROFILE.replace(
    "work_dir: /tmp", "work_dir: /tmp\n    startup: {command: \"print('hello from start-up', flush=True)\"}"
)


@pytest.fixture
def cluster(isolated):
    with Cluster(isolated, LOUD) as cluster:
        yield cluster


@pytest.fixture
def served(cluster):
    cluster.serve()
    cluster.converged()
    return cluster


class Other(Cluster):
    name = "other"


def run(*words, **environment):
    """Run clusterctl without -p."""
    return subprocess.run(
        [sys.executable, "-c", CTL, *words],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def begin(cluster, *words, **options):
    """Start clusterctl and return the process."""
    return subprocess.Popen(
        [sys.executable, "-c", CTL, "-p", cluster.name, *words], stdin=subprocess.DEVNULL, **options
    )


# --- which daemon is meant ---


def test_nothing_runs(isolated):
    done = run("status")
    assert done.returncode == 3
    assert done.stderr == "clusterctl: no daemon runs\n  start one: clusterctl -p PROFILE start\n"
    done = run("-p", "nobody", "stop", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "no_daemon"


@pytest.mark.parametrize("name", ["../x", "a b", "", "-x", ".x", "x" * 65, "ä"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(isolated, name):
    done = run(f"--profile={name}", "start")
    assert done.returncode == 2
    assert "cannot be the name of a profile" in done.stderr
    assert list(isolated.runtime.iterdir()) == list(isolated.state.iterdir()) == []


def test_the_only_daemon_is_meant_and_of_several_one_must_be_named(isolated):
    idle = PROFILE.replace("n: 2", "n: 0")
    with Cluster(isolated, idle) as one:
        daemon = one.serve()
        assert run("status").stdout.startswith("test: ")
        with Other(isolated, idle) as two:
            two.serve()
            done = run("status")
            assert done.returncode == 2
            assert (
                f"several daemons run: other (process {two.client.get('/v1/version')['pid']}), test (process {daemon.pid})"
                in done.stderr
            )
            assert run("status", CLUSTERD_PROFILE="other").stdout.startswith("other: ")
            assert run("-p", "test", "status", CLUSTERD_PROFILE="other").stdout.startswith("test: ")


def test_no_spawn_refuses(cluster):
    done = cluster.ctl("start", "--no-spawn", status=3)
    assert "--no-spawn forbids" in done.stderr
    assert not cluster.runtime.exists()


def test_two_starts_at_once_make_one_daemon(cluster):
    both = [begin(cluster, "start", "--json", stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert sorted(answer["spawned"] is None for answer in answers) == [False, True]
    assert answers[0]["daemon"]["pid"] == answers[1]["daemon"]["pid"]
    assert cluster.running() == ["agent", "controller", "engine/0", "engine/1"]


def test_a_frozen_daemon_is_told_apart_from_none(cluster):
    daemon = cluster.serve()
    cluster.converged()
    daemon.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = cluster.ctl("status", "--timeout", "0.5", status=8)
        assert time.monotonic() - began < 5
        assert f"the daemon (process {daemon.pid}) did not answer within 0.5 s: it is stopped" in done.stderr
        assert f"kill -CONT {daemon.pid}" in done.stderr
    finally:
        daemon.send_signal(signal.SIGCONT)
    assert cluster.json("status")["is_converged"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_denied(served):
    program = (
        "import difflib, os, pwd, sys, json, urllib.parse\n"
        "from clusterctl.main import main, VERBS\n"
        "from clusterctl.commands import scale\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(['-p', 'test', 'scale', 'engines', '5']))\n"
    )
    for place in (served.places.root, served.places.runtime):
        place.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4, done.stderr
    assert "uid 65534" in done.stderr
    assert served.json("status")["engine_sets"]["engines"]["desired"] == 2


# --- verbs ---


def test_status_tells_wish_observation_and_age(served):
    lines = served.ctl("status").stdout.splitlines()
    assert lines[0] == "test: running"
    assert [line.split()[0] for line in lines[1:]] == ["daemon", "controller", "engines", "tasks", "ipython"]
    assert "2 of 2" in lines[3]
    assert "seen 0." in lines[3]
    status = served.json("status")
    assert (status["version"], status["cluster"], status["desired"]) == (1, "test", "running")
    assert status["controller"]["uptime"] > 0
    assert status["engine_sets"]["engines"]["age"] < 5
    assert status["tasks"]["queued"] == 0


def test_scale_up_and_down(served):
    assert served.ctl("scale", "engines", "4").stdout.startswith("engines: 4 of 4; seen")
    assert len(served.engines()) == 4
    answer = served.json("scale", "engines", "1", "--drain-timeout", "1")
    assert answer["engine_sets"]["engines"]["observed"] == 1
    assert served.json("scale", "engines", "0", "--no-wait")["sets"]["engines"]["n"] == 0
    served.converged()
    assert served.running() == ["controller"]


REFUSED = [
    (("scale", "engines", "17"), 5, ["max: 16"]),
    (("scale", "enginse", "1"), 5, ["no engine set 'enginse'", "it has: engines"]),
    (("scale", "engines", "-1"), 2, []),
    (("scale", "engines"), 2, ["Missing argument 'N'"]),
    (("restart", "gpu"), 5, ["there is no 'gpu'"]),
    (("engines", "kill", "engines/9"), 5, ["there is no engine engines/9"]),
    (("engines", "kill", "x y"), 5, ["is no engine"]),
    (("scale", "a b\r\nX: y", "1"), 5, ["there is no engine set"]),
    (("scale", "a/../b?n=1", "1"), 5, []),
    (("logs", "engines/x"), 5, ["no log of `engines/x`", "controller, daemon, agent, engines"]),
    (("sclae", "engines", "1"), 2, ["did you mean `scale`?"]),
    (("status", "--jsn"), 2, ["--json"]),
]


def test_refusals_change_nothing_and_say_why(served):
    for words, status, parts in REFUSED:
        done = served.ctl(*words, status=status)
        for part in parts:
            assert part in done.stderr, words
        answer = json.loads(served.ctl(*words, "--json", status=status).stdout)
        assert answer["version"] == 1
        assert answer["error"]["message"]
    assert served.json("status")["engine_sets"]["engines"]["desired"] == 2


def test_what_does_not_come_true_in_time_is_told(served):
    done = served.ctl("scale", "engines", "16", "--timeout", "0", status=6)
    assert "test is not as wished after 0 s" in done.stderr
    assert "of 16" in done.stderr
    assert served.converged()["engine_sets"]["engines"]["observed"] == 16


def test_engines_are_listed_and_commanded(served):
    table = served.ctl("engines").stdout.splitlines()
    assert table[0].split() == ["ENGINE", "ID", "STATE", "FOR", "PROCESS", "HOST"]
    assert [line.split()[0] for line in table[1:]] == ["engines/0", "engines/1"]
    before = served.engines()
    assert served.json("engines", "interrupt", "engines")["done"] == ["engines/0", "engines/1"]
    assert served.engines() == before
    assert served.json("engines", "kill", "0")["done"] == ["engines/0"]
    served.until(lambda _: served.engines()[0][0] not in (None, before[0][0]))
    assert served.json("engines", "restart", f"id:{before[1][0]}")["done"] == ["engines/1"]
    served.until(lambda _: served.engines()[1][0] not in (None, before[1][0]))
    served.converged()


def test_restart_of_the_controller_keeps_engines(served):
    engines, before = served.engines(), served.pids()
    served.ctl("restart", "controller")
    after = served.pids()
    assert after["controller"] != before["controller"]
    assert after["agents"] == before["agents"]
    assert {pid for _, pid in served.engines().values()} == {pid for _, pid in engines.values()}


def test_restart_of_all_makes_everything_new(served):
    engines, before = served.engines(), served.pids()
    assert "engines     2 of 2" in served.ctl("restart").stdout
    after = served.pids()
    assert after["controller"] != before["controller"]
    assert after["agents"] != before["agents"]
    assert {pid for _, pid in served.engines().values()}.isdisjoint(pid for _, pid in engines.values())


def test_logs_of_one_and_of_all(served):
    assert served.ctl("logs", "engine/1").stdout == "hello from start-up\n"
    assert served.ctl("logs", "engines").stdout == "engines/0: hello from start-up\nengines/1: hello from start-up\n"
    assert "listening on" in served.ctl("logs", "controller").stdout
    assert served.ctl("logs", "controller", "--tail", "0").stdout == ""
    assert len(served.ctl("logs", "controller", "--tail", "1").stdout.splitlines()) == 1
    sources = {json.loads(line)["source"] for line in served.ctl("logs", "--json").stdout.splitlines()}
    assert sources == {"agent/engines", "controller", "engines/0", "engines/1"}
    # This daemon logs to a pipe, so it tells its lines from memory.
    assert "connected to the controller" in served.ctl("logs", "daemon").stdout


def test_logs_are_followed_over_rotation(served):
    file = served.state / "log" / "engine-engines-0.log"
    follower = begin(served, "logs", "-f", "engines/0", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert follower.stdout.readline() == "hello from start-up\n"
    with file.open("a") as log:
        log.write("half a ")
        log.flush()
        log.write("line\nand one more\n")
    assert follower.stdout.readline() == "half a line\n"
    assert follower.stdout.readline() == "and one more\n"
    file.rename(file.with_suffix(".log.1"))
    file.write_text("the next file\n")
    assert follower.stdout.readline() == "the next file\n"
    follower.send_signal(signal.SIGINT)
    assert follower.communicate(timeout=10) == ("", "\ninterrupted\n")
    assert follower.returncode == 130


def test_a_reader_that_has_enough_is_no_error(served):
    follower = begin(served, "logs", "-f", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert follower.stdout.readline()
    follower.stdout.close()
    with (served.state / "log" / "engine-engines-0.log").open("a") as log:
        for number in range(5000):
            log.write(f"line {number}\n")
    assert follower.wait(10) == 0
    assert follower.stderr.read() == ""
    follower.stderr.close()


def test_events_tell_who_asked(served):
    served.ctl("scale", "engines", "1")
    events = [json.loads(line) for line in served.ctl("events", "--json").stdout.splitlines()]
    [command] = [event for event in events if event["event"] == "command"]
    assert command["uid"] == os.geteuid()
    assert command["text"].startswith("scale engines to 1, asked for by uid")
    later = [
        json.loads(line) for line in served.ctl("events", "--since", str(command["seq"]), "--json").stdout.splitlines()
    ]
    assert all(event["seq"] > command["seq"] for event in later)
    assert served.ctl("events").stdout.splitlines()[0].endswith(f"process {served.client.get('/v1/version')['pid']}")


def test_watch_prints_a_line_for_each_change_off_a_terminal(served):
    watcher = begin(served, "watch", stdout=subprocess.PIPE, text=True)
    assert watcher.stdout.readline().endswith("test: running; controller running; engines 2/2\n")
    served.ctl("scale", "engines", "3")
    lines = iter(watcher.stdout.readline, "")
    assert any(line.endswith("test: running; controller running; engines 3/3\n") for line in lines)
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(10) == 130
    watcher.stdout.close()


def on_a_terminal(cluster, *words, until=b""):
    """Run clusterctl on a terminal; return its exit status and all that it wrote. `until`: then Ctrl-C."""
    leader, follower = pty.openpty()
    process = begin(
        cluster, *words, stdout=follower, stderr=follower, start_new_session=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(follower)
    written = b""
    try:
        while select.select([leader], [], [], 30)[0]:
            try:
                written += os.read(leader, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if until and until in written:
                process.send_signal(signal.SIGINT)
                until = b""
    finally:
        os.close(leader)
    return process.wait(30), written


def test_a_terminal_gets_a_bar_and_then_the_same_words(cluster):
    status, written = on_a_terminal(cluster, "start", "-n", "1")
    assert status == 0, written
    assert b"\x1b[" in written
    assert b"engines     1 of 1" in written


def test_watch_moves_on_a_terminal(served):
    status, written = on_a_terminal(served, "watch", until=b"2 of 2")
    assert status == 130, written
    assert b"\x1b[" in written


def test_reload_without_a_change(served):
    assert served.ctl("reload").stdout == "nothing has changed\n"
    assert served.json("reload")["changes"] == []


def test_resume_ends_a_crash_loop(isolated):
    flag = isolated.temporary / "broken"
    flag.touch()
    profile = PROFILE.replace(
        "work_dir: /tmp",
        f"work_dir: /tmp\n    startup: {{command: \"import os; os.path.exists('{flag}') and os._exit(3)\"}}\n"
        "    restart: {initial_backoff: 0.05, max_backoff: 0.05, crash_loop: {failures: 3}}",
    )
    with Cluster(isolated, profile) as cluster:
        cluster.serve()
        done = cluster.ctl("start", status=6)
        assert "cannot become as wished without help" in done.stderr
        assert "crash" in done.stderr
        assert cluster.json("status")["is_stuck"]
        assert {engine["state"] for engine in cluster.json("engines")["engines"]} == {"crash-loop"}
        flag.unlink()
        assert cluster.json("resume", "engines")["is_converged"]


def test_connect_prints_what_works(served):
    printed = served.ctl("connect").stdout
    assert printed.startswith('import clusterd\nclient = clusterd.Client("test")\n')
    use = "client.wait_for_engines(2, timeout=10)\nprint(sorted(client.ids), client[0].apply_sync(pow, 2, 5))\nclient.close()\n"
    program = f"{printed}\n{use}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "[0, 1] 32\n"), done.stderr


def test_every_json_answer_is_one_versioned_object(served):
    for words in (("status",), ("engines",), ("connect",), ("reload",), ("resume", "engines"), ("start",)):
        assert served.json(*words)["version"] == 1


# --- what ran ---


def test_what_ran_is_told_while_it_runs_and_when_all_of_it_has_ended(isolated, tmp_path):
    recording = PROFILE.replace("{launcher: local,", "{launcher: local, database: sqlite,", 1)
    with Cluster(isolated, recording) as cluster:
        cluster.ctl("start")
        pids = {pid for _, pid in cluster.engines().values()}
        with clusterd.Client(cluster.name) as client:
            view = client.load_balanced_view()
            view.with_options(label="the sum").apply_async(sum, [1, 2]).result()
            failed = view.apply_async(divmod, 1, 0)
            assert failed.exception() is not None
            running = [view.apply_async(time.sleep, 600) for _ in range(2)]
            waiting = view.with_options(after=running).apply_async(abs, -1)
            expected = ["abs waiting", "sleep running", "sleep running", "divmod error", "sum ok"]
            found = []

            def are_there():
                found[:] = cluster.json("tasks", "list")["tasks"]
                return [f"{task['name']} {task['state']}" for task in found] == expected

            # What the client says travels on another connection than what the daemon asks.
            until(are_there, "all tasks are on record", about=lambda: found)
            assert {task["pid"] for task in found[1:3]} == pids
            (error,) = cluster.json("tasks", "list", "--state", "error")["tasks"]
            assert (error["id"], error["error"]) == (failed.task_id, "ZeroDivisionError")
            assert [t["name"] for t in cluster.json("tasks", "list", "--label", "the*")["tasks"]] == ["sum"]
            shown = cluster.ctl("tasks", "show", cluster.json("tasks", "show", waiting.task_id)["task"]["short"]).stdout
            assert "it depends on 2 other tasks" in shown
            assert "has not ended: it is running" in cluster.ctl("tasks", "purge", found[1]["short"], status=5).stderr
            assert cluster.json("tasks", "purge", "--older-than", "0s", "--name", "divmod")["purged"] == 1
            assert "no record of task" in cluster.ctl("tasks", "show", failed.task_id, status=5).stderr
            for future in (waiting, *running):
                future.cancel()
        cluster.ctl("stop")
        file = tmp_path / "tasks.jsonl"
        assert cluster.json("tasks", "export", "--jsonl", "-o", str(file))["exported"] == 4
        (first, *_) = map(json.loads, file.read_text().splitlines())
        assert (first["name"], first["label"], first["state"]) == ("sum", "the sum", "ok")
        told = cluster.ctl("tasks").stdout
        assert "there is no controller to ask" in told
        assert "the sum" in told
