"""One boot of a real systemd for all tests here, and what they ask of a service on it."""

from __future__ import annotations

import contextlib

import pytest

from clusterd.control.client import ControlClient
from tests.rigs import systemd

PROFILE = """\
version: 1
run_as: clusterd
engine_sets:
  engines: {n: 2, work_dir: /tmp, stop_timeout: 3, limits: {memory: 4G, cpus: 2, tasks: 512}}
"""


class Service:
    """`clusterd@NAME.service` of a host, with its profile."""

    def __init__(self, host, name, profile=PROFILE):
        self.host, self.name, self.unit = host, name, f"clusterd@{name}.service"
        host.write(f"/etc/clusterd/profiles/{name}.yaml", profile)

    def systemctl(self, *words, **options):
        return self.host.run("systemctl", *words, self.unit, **options)

    def ctl(self, *words, **options):
        return self.host.run("clusterctl", "-p", self.name, *words, **options)

    def show(self, name):
        return self.systemctl("show", "--property", name, "--value").strip()

    def get(self, path="", **query):
        """Ask over the control socket, from this side: a path leads to it, and root is root."""
        client = ControlClient(self.host.root / f"run/clusterd/{self.name}/control.sock", timeout=40)
        return client.get(f"/v1/clusters/{self.name}{path}", **query)

    def converged(self):
        status = self.get(wait="converged", timeout=40)
        assert status["is_converged"], status
        return status

    def engines(self):
        """Slot -> pid."""
        return {engine["slot"]: engine["pid"] for engine in self.get("/engines")["engines"]}

    def running(self):
        """Everything that must not change while a daemon comes and goes: pids of controller, agents and engines."""
        status = self.converged()
        agents = [launch["pid"] for launch in status["engine_sets"]["engines"]["launches"]]
        return status["controller"]["pid"], agents, self.engines()

    def group(self, pid):
        """The control group of a process."""
        lines = (self.host.root / f"proc/{pid}/cgroup").read_text().splitlines()
        seen = next(line for line in lines if line.startswith("0::")).removeprefix("0::")
        # As it is called inside: our namespace sees one level more.
        return f"/{seen.split('/', 2)[2]}"

    def compute(self, program, *arguments):
        """Run a program of a client, as the cluster's user; its first argument is the connection file."""
        [file] = (self.host.root / f"var/lib/clusterd/{self.name}").glob("*/security/ipcontroller-client.json")
        connection = f"/{file.relative_to(self.host.root)}"
        return self.host.run(self.host.python, "-P", "-c", program, connection, *arguments, user="clusterd")

    def log(self):
        return self.host.run("journalctl", "--unit", self.unit, "--no-pager", "--output", "cat")


@contextlib.contextmanager
def boot(*options):
    """A host with clusterd's users and directories; the test is skipped where there can be none."""
    reason = systemd.why_not()
    if reason:
        pytest.skip(f"a real systemd cannot be booted here: {reason}")
    with systemd.booted(*options) as host:
        host.run("systemd-sysusers")
        host.run("systemd-tmpfiles", "--create", "clusterd.conf")
        yield host


@pytest.fixture(scope="session")
def host():
    # With logind: the user manager is one of the subjects.
    with boot("-L") as host:
        yield host


@pytest.fixture(scope="module")
def service(host):
    """A running service; tests of a module share it, and leave it running."""
    service = Service(host, "local")
    service.systemctl("start")
    service.converged()
    yield service
    service.systemctl("stop")
