"""What an administrator asks of a cluster that computes: plans, drains, stories, strays, a report; on one real cluster."""

from __future__ import annotations

import json

import pytest

import clusterd
from tests.processes.cluster import PROFILE, Cluster, kill


@pytest.fixture
def cluster(isolated):
    with Cluster(isolated, PROFILE.replace("n: 2", "n: 3")) as cluster:
        cluster.serve()
        cluster.converged()
        yield cluster


def wait_for_file(path):
    """A task that tells that it has begun, and ends when the file is gone."""
    import pathlib  # noqa: PLC0415 - runs on an engine
    import time  # noqa: PLC0415

    pathlib.Path(f"{path}.begun").touch()
    while pathlib.Path(path).exists():
        time.sleep(0.01)
    return "done"


def test_plans_and_drains_while_it_computes(cluster):
    gate = cluster.places.temporary / "gate"
    gate.touch()
    with clusterd.Client("test") as client:
        client.wait_for_engines(3, timeout=20)
        slots = {wire_id: slot for slot, (wire_id, _) in cluster.engines().items()}
        wire_id = client.ids[0]
        slot, other = slots[wire_id], slots[client.ids[1]]
        future = client[wire_id].with_options(label="fit").apply_async(wait_for_file, str(gate))
        begun = gate.with_name("gate.begun")
        while not begun.exists():
            cluster.json("status")

        # A plan names engine, task and owner, and changes nothing.
        before = cluster.json("engines")["engines"]
        plan = cluster.json("restart", "engines", "--plan")
        assert plan["touched"] == {
            "controller": None,
            "sets": {"engines": {"ends": [0, 1, 2], "drains": [], "starts": [0, 1, 2], "drain_timeout": None}},
        }
        [task] = [task for engine in plan["engines"] for task in engine["tasks"]]
        assert (task["label"], task["is_running"]) == ("fit", True)
        assert [owner["running"] for owner in plan["owners"]] == [1]
        for words in (("restart",), ("stop",), ("scale", "engines", "1"), ("drain", f"engines/{slot}")):
            text = cluster.ctl(*words, "--plan").stdout
            assert "nothing was changed" in text.splitlines()[0]
            assert ("fit (" in text) is (words[0] != "scale" or "have 5 s" in text), text
        after = cluster.json("engines")["engines"]
        assert [(one["id"], one["pid"]) for one in after] == [(one["id"], one["pid"]) for one in before]
        assert "fit (" in cluster.ctl("explain", f"engines/{slot}").stdout

        # The deed is what the plan said.
        plan = cluster.json("drain", f"engines/{slot}", "--drain-timeout", "60", "--plan")
        deed = cluster.json("drain", f"engines/{slot}", "--drain-timeout", "60", "--no-wait")
        assert deed["touched"] == plan["touched"]
        assert deed["touched"]["sets"]["engines"]["drains"] == [slot]
        # An idle one goes at once, and another comes into its place.
        pid = cluster.engines()[other][1]
        cluster.ctl("drain", f"engines/{other}", "--replace", "--no-wait")
        cluster.until(lambda _: cluster.engines().get(other, (None, pid))[1] not in (None, pid))
        assert not future.done()

        # The drain outlives the daemon, with its deadline.
        [daemon] = cluster._daemons
        daemon.kill()
        daemon.wait()
        cluster.serve()
        status = cluster.until(lambda status: status["controller"]["state"] == "running")
        assert status["engine_sets"]["engines"]["draining"] == 1
        assert status["engine_sets"]["engines"]["desired"] == 2
        gate.unlink()
        begun.unlink()
        assert future.result(timeout=30) == "done"
        assert cluster.converged()["engine_sets"]["engines"]["observed"] == 2
        assert slot not in cluster.engines()


def test_the_story_of_an_engine_outlives_the_daemon(cluster):
    _, pid = cluster.engines()[1]
    kill(pid)
    cluster.until(lambda _: cluster.engines()[1][1] not in (None, pid))
    cluster.converged()
    [daemon] = cluster._daemons
    daemon.kill()
    daemon.wait()
    cluster.serve()
    cluster.converged()
    story = cluster.json("explain", "1")
    assert (story["subject"], story["is_over"]) == ("engines/1", True)
    assert story["first_abnormal"]["event"] == "engine_gone"
    assert "SIGKILL" in story["first_abnormal"]["text"]
    told = [step["event"] for step in story["steps"]]
    assert told.index("engine_gone") < len(told) - 1 - told[::-1].index("daemon_started")
    lines = cluster.ctl("explain", "engines/1").stdout.splitlines()
    assert lines[0].startswith("engines/1 is ")
    assert lines[1].startswith("first abnormal step (it has passed): ")
    # Its neighbours have a story of their own.
    assert cluster.json("explain", "engines/0")["first_abnormal"] is None
    assert cluster.json("explain", "controller")["kind"] == "controller"
    assert cluster.json("explain", "agent")["subject"] == "agent/engines"
    assert "no `engines/x` here" in cluster.ctl("explain", "engines/x", status=5).stderr
    assert "no engine engines/9" in cluster.ctl("explain", "engines/9", status=5).stderr
    # Events by time and by number, of this daemon and the one before.
    events = [json.loads(line) for line in cluster.ctl("events", "--since", "1h", "--json").stdout.splitlines()]
    assert [event["event"] for event in events].count("daemon_started") == 2
    assert cluster.ctl("events", "--since", "2099-01-01").stdout == ""
    assert "14:30" in cluster.ctl("events", "--since", "soon", status=2).stderr


def test_what_a_lost_state_directory_leaves_is_listed_and_ended_on_request(cluster):
    # The journal is lost, the processes are not: another one knows nothing of them.
    [daemon] = cluster._daemons
    daemon.kill()
    daemon.wait()
    (cluster.state / "journal").rename(cluster.places.temporary / "lost")
    assert cluster.running() == ["agent", "controller", "engine/0", "engine/1", "engine/2"]
    cluster.file.write_text(PROFILE.replace("n: 2", "n: 0"))
    cluster.serve()
    listed = cluster.json("status", "--orphans")["orphans"]
    assert {"agent", "controller"} <= {one["kind"] for one in listed}
    text = cluster.ctl("status", "--orphans").stdout
    assert "agent of engines" in text
    assert "is not in the journal" in text
    # Nobody is ended who was not asked about.
    assert "nobody is asked" in json.loads(cluster.ctl("gc", "--json", status=2).stdout)["error"]["message"]
    assert cluster.ctl("gc", status=130).stdout.startswith("PROCESS")
    pids = {one["pid"] for one in listed}
    assert pids <= {one["pid"] for one in cluster.json("status", "--orphans")["orphans"]}
    while found := cluster.json("status", "--orphans")["orphans"]:
        assert cluster.json("gc", "--yes")["failed"].keys() <= {one["name"] for one in found}
    assert cluster.ctl("gc").stdout == "test: nothing runs unclaimed\n"
    # What the new daemon has started itself is not among them.
    cluster.converged()
    assert cluster.running() == ["controller"]
    for file in (cluster.places.temporary / "lost").iterdir():
        file.unlink()
    (cluster.places.temporary / "lost").rmdir()
