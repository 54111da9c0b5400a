"""`access:` of a profile, with real users and groups: who reaches a service that root has set up, and what each may do there."""

from __future__ import annotations

import json

import pytest

from tests.systemd.conftest import Service

PROFILE = """\
version: 1
run_as: clusterd
access:
  admin: {users: [bob]}
  operate: {groups: [helpdesk]}
  connect: {groups: [physics]}
  view: {users: [alice]}
engine_sets:
  engines: {n: 1, work_dir: /tmp, stop_timeout: 3}
"""
CLOSED = PROFILE[: PROFILE.index("access:")] + PROFILE[PROFILE.index("engine_sets:") :]
COMPUTE = """
import sys, os, clusterd
with clusterd.Client(sys.argv[1]) as client:
    print(client[0].apply_sync(os.geteuid), os.geteuid())
"""
DENIED = 4
"""Exit status of clusterctl."""


@pytest.fixture(scope="module")
def shared(host):
    for group in ("physics", "helpdesk"):
        host.run("groupadd", group)
    # bob may everything, alice look, carol compute, dora scale, eve nothing.
    for user, groups in {"bob": [], "alice": [], "carol": ["physics"], "dora": ["helpdesk"], "eve": []}.items():
        host.run("useradd", "--create-home", *(["--groups", ",".join(groups)] if groups else []), user)
    service = Service(host, "shared", PROFILE)
    service.systemctl("start")
    service.converged()
    yield service
    service.systemctl("stop")


def ctl(service, user, *words, status=0):
    return service.host.run(
        "sh", "-c", 'exec clusterctl -p "$@" 2>&1', "sh", service.name, *words, user=user, status=status
    )


def compute(service, user, status=0):
    return service.host.run(
        "sh", "-c", f"exec {service.host.python} -P -c '{COMPUTE}' shared 2>&1", user=user, status=status
    )


def audited(service):
    [file] = (service.host.root / "var/lib/clusterd/shared").glob("*/log/audit.log")
    assert file.stat().st_mode & 0o777 == 0o600
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_may_what_the_profile_says(shared):
    assert "engines" in ctl(shared, "alice", "status")
    refused = ctl(shared, "alice", "scale", "engines", "2", status=DENIED)
    assert "alice has view here; `scale` needs operate" in refused
    assert (
        "ask an admin of this cluster (bob), who can have you added to access: in /etc/clusterd/profiles/shared.yaml"
        in refused
    )
    assert "needs operate or connect" in ctl(shared, "alice", "logs", status=DENIED)
    ctl(shared, "dora", "scale", "engines", "2", "--wait")
    assert "dora has operate here; `reload` needs admin" in ctl(shared, "dora", "reload", status=DENIED)
    assert "dora has operate here; `connection` needs connect" in ctl(shared, "dora", "connect", status=DENIED)
    ctl(shared, "bob", "scale", "engines", "1", "--wait")
    ctl(shared, "bob", "reload")
    assert "carol has connect here; `stop` needs operate" in ctl(shared, "carol", "stop", status=DENIED)
    # Who has nothing does not even get as far as a refusal by the daemon.
    assert "may not use /run/clusterd/shared/control.sock" in ctl(shared, "eve", "status", status=DENIED)


def test_who_may_connect_computes_as_the_service_user(shared):
    uid = {user: shared.host.run("id", "-u", user).strip() for user in ("clusterd", "carol", "bob")}
    assert compute(shared, "carol").split() == [uid["clusterd"], uid["carol"]]
    assert compute(shared, "bob").split() == [uid["clusterd"], uid["bob"]]
    assert "alice has view here; `connection` needs connect" in compute(shared, "alice", status=1)
    compute(shared, "eve", status=1)
    # For ipyparallel: a copy of one's own.
    told = shared.host.run(
        "env", "HOME=/home/carol", "clusterctl", "-p", "shared", "connect", "--ipython", user="carol"
    )
    copy = told.split()[0]
    assert copy.startswith("/home/carol/.ipython/profile_shared/")
    assert shared.host.run("stat", "-c", "%U %a", copy).split() == ["carol", "600"]
    # Also after the controller has made its sockets and its file anew.
    ctl(shared, "bob", "restart", "controller", "--wait")
    assert compute(shared, "carol").split() == [uid["clusterd"], uid["carol"]]


def test_files_are_open_to_those_alone(shared):
    [state] = (shared.host.root / "var/lib/clusterd/shared").iterdir()
    security = f"/{(state / 'security').relative_to(shared.host.root)}"
    opened = {
        user: [
            name
            for name in (
                "ipcontroller-client.json",
                "ipcontroller-engine.json",
                "controller-secrets.json",
                "../log/audit.log",
            )
            if shared.host.run("sh", "-c", f"cat {security}/{name} >/dev/null 2>&1 && echo yes || :", user=user)
        ]
        for user in ("bob", "alice", "carol", "dora", "eve")
    }
    client = ["ipcontroller-client.json"]
    assert opened == {"bob": client, "alice": [], "carol": client, "dora": [], "eve": []}
    assert shared.get()["warnings"] == []


def test_a_reload_gives_and_takes(shared):
    shared.host.write("/etc/clusterd/profiles/shared.yaml", PROFILE.replace("[alice]", "[eve, nosuchuser]"))
    ctl(shared, "bob", "reload")
    assert "engines" in ctl(shared, "eve", "status")
    ctl(shared, "alice", "status", status=DENIED)
    assert shared.get()["warnings"] == ["access: the user directory knows no user nosuchuser"]
    # Without the section everything is as it was before there was one.
    shared.host.write("/etc/clusterd/profiles/shared.yaml", CLOSED)
    ctl(shared, "bob", "reload")
    for user in ("bob", "carol", "eve"):
        ctl(shared, user, "status", status=DENIED)
        compute(shared, user, status=1)
    modes = shared.host.run(
        "sh", "-c", "stat -c %a /run/clusterd/shared /run/clusterd/shared/*.sock /run/clusterd/shared/client-*"
    )
    assert modes.split() == ["700", "600", "600", "600"]
    shared.host.write("/etc/clusterd/profiles/shared.yaml", PROFILE)
    shared.systemctl("reload")
    assert "engines" in ctl(shared, "alice", "status")


def test_the_audit_log_has_commands_and_refusals(shared):
    bob = int(shared.host.run("id", "-u", "bob"))
    seen = [(line["user"], line["verb"], line["outcome"]) for line in audited(shared)]
    assert ("alice", "scale", "denied") in seen
    assert ("dora", "scale", "done") in seen
    assert ("dora", "reload", "denied") in seen
    assert ("carol", "stop", "denied") in seen
    assert not any(verb == "status" and outcome == "done" for _, verb, outcome in seen)
    scaled = next(line for line in audited(shared) if line["user"] == "bob" and line["verb"] == "scale")
    assert scaled["uid"] == bob
    assert scaled["arguments"] == {"set": "engines", "n": 1, "plan": False}


def test_at_a_socket_of_systemd_it_is_the_same(shared):
    shared.systemctl("stop")
    shared.host.run("systemctl", "start", "clusterd@shared.socket")
    try:
        # Until it has run the socket is root's alone: it does not know yet who may.
        ctl(shared, "alice", "status", status=DENIED)
        shared.ctl("status")
        shared.converged()
        assert "engines" in ctl(shared, "alice", "status")
        ctl(shared, "eve", "status", status=DENIED)
        assert len(compute(shared, "carol").split()) == 2
    finally:
        shared.host.run("systemctl", "stop", "clusterd@shared.socket", shared.unit)
