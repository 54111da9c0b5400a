from __future__ import annotations

import json
import re
import stat
import time
from datetime import UTC, datetime

import click
import pytest

from clusterctl import archived
from clusterctl.commands import tasks as command
from clusterctl.main import main
from clusterctl.moments import AGO
from clusterctl.output import tasks as text
from clusterd.control.client import ControlClient
from clusterd.errors import DaemonNotRunning
from clusterd.storage.taskstore.row import Outcome, TaskRow
from clusterd.storage.taskstore.sqlite import SqliteStore
from clusterd.storage.taskstore.told import told


def told_of(number=1, status="ok", state=None, **fields):
    about = {"kind": 0, "name": "fit", "engine_id": 7, "place": "engines/3 4711 node1", **fields}
    row = TaskRow(f"{'ab' * 8}{number:016x}", "c" * 32, "task", 100.0, **about)
    if status:
        row.outcome = Outcome(status, 103.0, 103.5, started=101.0, message="why")
    return {**told(row, state or status, is_full=True), "for": 12.0 if status is None else None}


class Daemon:
    """Answers in the place of a daemon: one page for each entry of `pages`."""

    def __init__(self, monkeypatch):
        self.pages = []
        self.asked = []
        monkeypatch.setattr(ControlClient, "get", self.get)
        monkeypatch.setattr(ControlClient, "post", self.post)

    def get(self, target, *, timeout=None, **query):
        self.asked.append((target, {name: value for name, value in query.items() if value is not None}))
        if not self.pages:
            raise DaemonNotRunning("no daemon listens")
        return self.pages.pop(0)

    def post(self, target, body):
        self.asked.append((target, dict(body)))
        return self.pages.pop(0)


def page(*tasks, rest=None):
    return {"version": 1, "tasks": list(tasks), "next": rest, "source": "controller"}


@pytest.fixture
def daemon(monkeypatch, isolated):
    return Daemon(monkeypatch)


@pytest.fixture
def ctl(capsys):
    def ctl(*words, status=0):
        assert main(["-p", "lab", "tasks", *words]) == status
        done = capsys.readouterr()
        return done.err if status else done.out

    return ctl


# --- words ---


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (0.0, "<1 ms"), (0.004, "4 ms"), (0.25, "0.25 s"), (4.0, "4.00 s"), (12.3, "12 s"), (7200, "2 h")],
)
def test_durations(seconds, words):
    assert text.duration(seconds) == words


def test_what_users_named_does_not_control_the_terminal():
    assert text.harmless("\x1b[31mred\x1b[0m \x1b]0;title\x07a\tb\n\x07\x9b") == "red a\tb\n\ufffd\ufffd"


def test_a_table():
    failed = told_of(2, "timeout", "error", label="run \x1b[1m7")
    lines = text.task_table([failed, told_of(1, None, "running"), told_of(3, None, "waiting", engine_id=-1, place="")])
    assert lines[0].split() == ["TASK", "STATE", "ENGINE", "WHAT", "LABEL", "SUBMITTED", "WAITED", "RAN", "OUTCOME"]
    assert re.split(" {2,}", lines[1])[:5] == ["abababab-2", "error", "engines/3", "fit", "run 7"]
    assert re.split(" {2,}", lines[1])[6:] == ["1.00 s", "2.00 s", "TaskTimeout: why"]
    assert re.split(" {2,}", lines[2])[6:] == ["-", "12 s"]
    assert re.split(" {2,}", lines[3])[6:] == ["12 s", "-"]
    assert "LABEL" not in text.task_table([told_of()])[0]


def test_one_task_in_full():
    task = told_of(2, "engine_lost", "error")
    task |= {"stdout": "".join(f"line {n}\n" for n in range(30)), "traceback": ["Trace", "  back"], "code": "1/0"}
    task |= {"argument_bytes": [4, 1000], "result_bytes": [], "is_delivered": False}
    lines = list(text.task_lines(task))
    found = "\n".join(lines)
    for part in (
        f"task:       {task['id']} (abababab-2)",
        "engine:     engines/3 (id 7, process 4711, on node1)",
        "arguments:  1,004 bytes in 2 buffers",
        "outcome:    EngineLost: why",
        "delivered:  not yet",
        "traceback:\n    Trace\n      back",
        "stdout (the last 20 of 30 lines; all: --json):\n    line 10\n",
    ):
        assert part in found
    assert "stderr" not in found
    assert "why:" not in found


def test_why_a_task_waits():
    task = {**told_of(1, None, "waiting", engine_id=-1), "why": "there is no engine", "depends_on": ["a-1", "a-2"]}
    found = "\n".join(text.task_lines(task))
    for part in ("waiting for 12 s", "there is no engine", "a-1, a-2"):
        assert part in found
    assert "attempts" not in found


@pytest.mark.parametrize(
    ("words", "seconds"), [("90", 90), ("90s", 90), ("1.5h", 5400), ("7d", 604_800), ("2 w", 1_209_600)]
)
def test_so_long_ago(words, seconds):
    assert AGO.convert(words, None, None) == pytest.approx(time.time() - seconds, abs=5)


def test_a_date():
    assert AGO.convert("2026-01-31T12:00:00+00:00", None, None) == datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
    for wrong in ("yesterday", "7 days", "-3d", ""):
        with pytest.raises(click.BadParameter, match="is no time"):
            AGO.convert(wrong, None, None)


# --- commands ---


def test_the_newest_are_listed(daemon, ctl):
    daemon.pages = [page(told_of(2), told_of(1), rest="0:1")]
    lines = ctl("list", "-n", "2", "--state", "ok", "--label", "run*").splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["abababab-2", "abababab-1"]
    assert lines[3] == "there are older ones: -n, --all"
    assert daemon.asked == [("/v1/clusters/lab/tasks", {"limit": 2, "state": "ok", "label": "run*"})]


def test_all_are_listed_page_by_page(daemon, ctl):
    daemon.pages = [page(told_of(2), rest="0:2"), page(rest="0:1"), page(told_of(1))]
    answer = json.loads(ctl("list", "--all", "--json"))
    assert ([task["short"] for task in answer["tasks"]], answer["has_more"]) == (["abababab-2", "abababab-1"], False)
    assert [query.get("cursor") for _, query in daemon.asked] == [None, "0:2", "0:1"]
    daemon.pages = [page()]
    assert ctl() == "no tasks\n"


def test_one_is_shown(daemon, ctl):
    daemon.pages = [{"task": told_of(), "source": "controller"}] * 2
    assert ctl("show", "a/b").startswith("task:")
    assert daemon.asked[0][0] == "/v1/clusters/lab/tasks/a%2Fb"
    assert json.loads(ctl("show", "a", "--json"))["task"]["name"] == "fit"


def test_a_purge_goes_on_until_it_is_done(daemon, ctl):
    daemon.pages = [{"purged": 3, "next": "0:9"}, {"purged": 1, "next": None}]
    assert ctl("purge", "--older-than", "7d", "--state", "error") == "4 records purged\n"
    assert [body.get("cursor") for _, body in daemon.asked] == [None, "0:9"]
    assert daemon.asked[0][1]["ended_before"] == pytest.approx(time.time() - 604_800, abs=60)
    daemon.pages = [{"purged": 1, "next": None}]
    assert json.loads(ctl("purge", "a", "--json")) == {"version": 1, "purged": 1}
    assert daemon.asked[-1][1] == {"tasks": ["a"]}


@pytest.mark.parametrize("words", [(), ("a", "--state", "ok")])
def test_a_purge_says_what_is_meant(daemon, ctl, words):
    ctl("purge", *words, status=2)
    assert daemon.asked == []


def test_an_export_is_a_line_for_each(daemon, ctl):
    daemon.pages = [page(told_of(1), rest="1:9"), page(told_of(2))]
    lines = ctl("export", "--jsonl", "--since", "2026-01-01").splitlines()
    assert [json.loads(line)["short"] for line in lines] == ["abababab-1", "abababab-2"]
    assert (daemon.asked[0][1]["full"], daemon.asked[0][1]["oldest_first"]) == (True, True)


def test_an_exported_file_is_private_and_whole(daemon, ctl, tmp_path):
    file = tmp_path / "tasks.jsonl"
    file.write_text("old")
    daemon.pages = [page(told_of(1), rest="1:9")]
    ctl("export", "-o", str(file), status=3)
    assert ([path.name for path in tmp_path.glob("*.jsonl*")], file.read_text()) == (["tasks.jsonl"], "old")
    daemon.pages = [page(told_of(1), told_of(2))]
    assert json.loads(ctl("export", "-o", str(file), "--json"))["exported"] == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text().splitlines()) == 2
    assert "cannot be written" in ctl("export", "-o", str(tmp_path / "no" / "x"), status=5)


# --- without a daemon ---


@pytest.fixture
def file(isolated, daemon):
    path = archived.paths.state_dir("lab") / "db" / "tasks.db"
    store = SqliteStore(path, ttl=None, max_bytes=2**30)
    for number in range(3):
        row = TaskRow(f"{number:032x}", "c", "task", 100.0 + number, kind=0, name="fit", label=f"l{number}")
        store.put(row)
        if number:
            row.outcome = Outcome("ok", 103.0, 103.5, started=101.0)
            store.update(row)
    store.close()
    return path


def test_what_ran_is_read_from_the_file_when_there_is_no_daemon(file, ctl, monkeypatch):
    monkeypatch.setattr(command, "PAGE", 1)
    out = ctl("list").splitlines()
    assert [line.split()[0] for line in out[1:4]] == ["00000000-2", "00000000-1", "00000000-0"]
    assert out[4].startswith("there is no controller to ask")
    answer = json.loads(ctl("list", "--state", "unfinished", "--json"))
    assert ([task["label"] for task in answer["tasks"]], answer["source"]) == (["l0"], "file")
    assert "state:      ok" in ctl("show", "00000000-2")
    assert [json.loads(line)["label"] for line in ctl("export").splitlines()] == ["l0", "l1", "l2"]
    assert "no record of task 9" in ctl("show", "9", status=5)


def test_without_daemon_and_file_the_daemon_is_missing(daemon, ctl):
    for words in (("list",), ("show", "1"), ("export",)):
        assert "no daemon listens" in ctl(*words, status=3)
