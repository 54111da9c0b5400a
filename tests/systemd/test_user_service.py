"""`systemctl --user start clusterd@lab`: a user's own cluster, its parts in units of the user's manager."""

from __future__ import annotations

import json
import time

import pytest

PROFILE = "version: 1\nengine_sets:\n  engines: {n: 1, work_dir: /tmp, stop_timeout: 3, limits: {tasks: 256}}\n"


class Own:
    """The service of a user who is logged in."""

    def __init__(self, host, user):
        self.host, self.user = host, user

    def run(self, *argv, **options):
        return self.host.run(*argv, user=self.user, **options)

    def engines(self):
        return {
            e["slot"]: e["pid"] for e in json.loads(self.run("clusterctl", "-p", "lab", "engines", "--json"))["engines"]
        }

    def show(self, name):
        return self.run("systemctl", "--user", "show", f"--property={name}", "--value", "clusterd@lab").strip()


@pytest.fixture(scope="module")
def own(host):
    host.run("useradd", "--create-home", "--shell", "/bin/bash", "ada")
    host.run("loginctl", "enable-linger", "ada")
    own = Own(host, "ada")
    deadline = time.monotonic() + 20
    while own.run("systemctl", "--user", "is-system-running", status=None).strip() not in {"running", "degraded"}:
        assert time.monotonic() < deadline
    host.write("/home/ada/.config/clusterd/profiles/lab.yaml", PROFILE)
    host.run("chown", "-R", "ada:", "/home/ada/.config")
    own.run("systemctl", "--user", "start", "clusterd@lab")
    yield own
    own.run("systemctl", "--user", "stop", "clusterd@lab")
    host.run("loginctl", "disable-linger", "ada")


def test_everything_is_the_users(own):
    own.run("clusterctl", "-p", "lab", "start")
    units = own.run("systemctl", "--user", "list-units", "--plain", "--no-legend", "clusterd-lab-*").splitlines()
    assert [line.split()[0].rsplit("-", 2)[0] for line in units] == ["clusterd-lab-controller", "clusterd-lab-engines"]
    pids = own.engines().values()
    assert {own.host.status(pid)["Uid"].split()[0] for pid in pids} == {own.run("id", "-u").strip()}
    assert own.show("StatusText") == "1/1 engines, 0 tasks queued"


def test_a_restart_touches_nothing_and_a_stop_ends_all(own):
    before = own.engines()
    own.run("systemctl", "--user", "restart", "clusterd@lab")
    assert own.engines() == before
    own.run("systemctl", "--user", "stop", "clusterd@lab")
    assert own.run("systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "clusterd-lab-*") == ""
    assert not any((own.host.root / f"proc/{pid}").exists() for pid in before.values())


def test_the_first_command_starts_it(own):
    own.run("systemctl", "--user", "start", "clusterd@lab.socket")
    own.run("clusterctl", "-p", "lab", "start")
    assert own.show("ActiveState") == "active"
    assert len(own.engines()) == 1
    own.run("systemctl", "--user", "stop", "clusterd@lab.socket")
