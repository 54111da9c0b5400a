"""What an administrator asks of a cluster that computes: plans, drains, stories, strays, a report; on one real cluster."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import tarfile

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
    # Logs by time, of whoever says when.
    assert "listening on" in cluster.ctl("logs", "controller", "--since", "1h").stdout
    assert cluster.ctl("logs", "controller", "agent", "--since", "2099-01-01").stdout == ""
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


def forms_of(secret):
    contents = [secret.encode()]
    with contextlib.suppress(ValueError):
        contents.append(bytes.fromhex(secret))
    for content in contents:
        yield content
        yield content.hex().encode()
        yield base64.b64encode(content).rstrip(b"=")
        yield base64.urlsafe_b64encode(content).rstrip(b"=")


def test_a_report_has_what_a_ticket_needs_and_no_secret(cluster):
    keys = json.loads((cluster.state / "security" / "controller-secrets.json").read_bytes())
    secrets = [value for name, value in keys.items() if "key" in name or "secret" in name or "curve" in name]
    for name in ("ipcontroller-client.json", "ipcontroller-engine.json"):
        content = json.loads((cluster.state / "security" / name).read_bytes())
        secrets += [content[name] for name in ("key", "curve_serverkey") if content.get(name)]
        secrets.append(content["clusterd"]["key"])
    secrets = [secret for secret in secrets if isinstance(secret, str) and secret]
    assert len(set(secrets)) >= 6
    # Users print what they should not.
    with (cluster.state / "log" / "engine-engines-0.log").open("a") as log:
        for secret in secrets:
            log.write(f"the key is {secret}, or {base64.b64encode(secret.encode()).decode()}\n")
            with contextlib.suppress(ValueError):
                log.write(f"raw: {bytes.fromhex(secret)!r} {base64.b64encode(bytes.fromhex(secret)).decode()}\n")
        log.write("mongodb://alice:hunter22@db1/x\nlast line\n")
    file = cluster.places.temporary / "report.tar.gz"
    answer = cluster.json("report", "-o", str(file), MY_API_TOKEN="hunter33", CLUSTERD_TOKEN="hunter44")
    assert file.stat().st_mode & 0o777 == 0o600
    assert answer["missing"] == []
    assert "exists" in cluster.ctl("report", "-o", str(file), status=2).stderr
    parts = {}
    with tarfile.open(file) as archive:
        for member in archive.getmembers():
            parts[member.name.partition("/")[2]] = archive.extractfile(member).read()
    whole = gzip.decompress(file.read_bytes())
    for secret in secrets:
        assert not any(form in whole for form in forms_of(secret)), secret
    for password in (b"hunter22", b"hunter33", b"hunter44"):
        assert password not in whole
    for path in (cluster.state / "security").iterdir():
        assert path.read_bytes().strip() == b"" or path.read_bytes() not in whole
    assert b"last line" in parts["log/engine-engines-0.log"]
    assert json.loads(parts["status.json"])["cluster"] == "test"
    assert json.loads(parts["explain/controller.json"])["kind"] == "controller"
    assert json.loads(parts["versions.json"])["packages"]["msgspec"]
    assert b"work_dir: /tmp" in parts["profile.yaml"]
    assert b'"daemon_started"' in parts["events.jsonl"]
    assert b"also set:" in parts["environment.txt"]
    assert {"engines.json", "orphans.json", "host.txt", "systemd.txt", "README.txt"} <= parts.keys()
    # Where there is no daemon, the files tell what they can.
    [daemon] = cluster._daemons
    daemon.kill()
    daemon.wait()
    file.unlink()
    answer = cluster.json("report", "-o", str(file))
    assert any("no daemon" in missing or "daemon" in missing for missing in answer["missing"])
    with tarfile.open(file) as archive:
        events = archive.extractfile(next(name for name in archive.getnames() if name.endswith("events.jsonl")))
        assert b'"daemon_started"' in events.read()
    file.unlink()
