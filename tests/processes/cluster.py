"""Drives a real cluster from tests: clusterctl and daemons as programs, what runs by pid, everything stopped at the end.

Waiting is always for an answer of the daemon (a long poll) or the end of a process, never for time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from clusterd.control.client import ControlClient
from clusterd.system import paths

PROFILE = """\
version: 1
controller: {launcher: local, start_timeout: 20, stop_timeout: 5}
engine_sets:
  engines:
    launcher: local
    n: 2
    max: 16
    work_dir: /tmp
    stop_timeout: 3
    drain_timeout: 5
"""
CTL = "import sys; from clusterctl.main import main; sys.exit(main())"
PATIENCE = 40


class Cluster:
    """The cluster of one profile in the test's own directories; a context manager that leaves nothing running."""

    name = "test"

    def __init__(self, places, profile=PROFILE):
        self.places = places
        self.file = places.config / "profiles" / f"{self.name}.yaml"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(profile)
        self.runtime = places.runtime / self.name
        self.state = places.state / self.name / paths.host_id()
        self.path = f"/v1/clusters/{self.name}"
        self._daemons = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            if self.runtime.exists():
                if not self.client.is_listening():
                    self.serve()
                self.ctl("stop", "--daemon", "--kill-after", "5", "--timeout", "30")
        finally:
            for daemon in self._daemons:
                if daemon.poll() is None:
                    daemon.kill()
                daemon.wait()
                daemon.stderr.close()

    # --- commands ---

    def ctl(self, *words, status=0, **environment):
        """Run clusterctl and return what it did; its exit status must be `status` (None: any)."""
        done = subprocess.run(
            [sys.executable, "-c", CTL, "-p", self.name, *words],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE + 30,
            check=False,
        )
        assert status is None or done.returncode == status, (
            words,
            done.returncode,
            done.stdout,
            done.stderr,
            self.log(),
        )
        return done

    def json(self, *words, status=0, **environment):
        """Run clusterctl with --json and return the object."""
        return json.loads(self.ctl(*words, "--json", status=status, **environment).stdout)

    def serve(self, *words, is_ready=True, **environment):
        """Start a daemon in the foreground of its own, by default until it is ready."""
        reading, writing = os.pipe()
        # A file, because nobody would read a pipe, and a daemon that logs much would wait for that.
        said = self.places.root / f"daemon-{len(self._daemons)}.err"
        with said.open("w") as stderr:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "clusterd", "serve", "--profile", self.name, "--ready-fd", str(writing), *words],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[writing],
            )
        daemon.stderr = said.open()
        self._daemons.append(daemon)
        os.close(writing)
        try:
            told = os.read(reading, 16)
        finally:
            os.close(reading)
        assert not is_ready or told == b"READY\n", daemon.stderr.read()
        return daemon

    # --- what is there ---

    @property
    def client(self):
        return ControlClient(self.runtime / "control.sock", timeout=PATIENCE)

    def converged(self):
        """Wait until the cluster is as wished and return its status."""
        status = self.client.get(f"{self.path}?wait=converged&timeout={PATIENCE}", timeout=PATIENCE + 5)
        assert status["is_converged"], (status, self.log())
        return status

    def until(self, condition):
        """Wait until `condition(status)` holds, asking whenever something changed; return the status."""
        status = self.client.get(self.path)
        while not condition(status):
            query = f"{self.path}?wait=change&since={status['seq']}&timeout={PATIENCE}"
            before = status["seq"]
            status = self.client.get(query, timeout=PATIENCE + 5)
            assert status["seq"] != before, ("nothing happens any more", status, self.log())
        return status

    def engines(self):
        """Slot -> (wire id, pid)."""
        return {e["slot"]: (e["id"], e["pid"]) for e in self.client.get(f"{self.path}/engines")["engines"]}

    def pids(self):
        """Kind -> pid of controller and agent."""
        status = self.client.get(self.path)
        agents = [launch["pid"] for launch in status["engine_sets"]["engines"]["launches"]]
        return {"controller": status["controller"]["pid"], "agents": agents}

    def running(self):
        """Titles of all processes of ours that have an identity file and live."""
        found = []
        for file in sorted((self.runtime / "units").glob("*.json")):
            content = json.loads(file.read_bytes())
            with contextlib.suppress(OSError, KeyError):
                stat = Path(f"/proc/{content['pid']}/stat").read_text()
                if stat.rpartition(")")[2].split()[0] != "Z":
                    found.append(f"{content['kind']}/{content.get('slot', '')}".rstrip("/"))
        return sorted(found)

    def log(self):
        """Everything that was logged, for the message of a test that fails."""
        files = sorted(self.state.glob("log/*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def kill(pid, number=signal.SIGKILL):
    """Kill a process that is not (or need not be) our child, and wait for its end."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            assert poll.poll(10_000), f"process {pid} does not end"
    finally:
        os.close(descriptor)
