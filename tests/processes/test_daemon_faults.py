"""kill -9 of the daemon at each of its fault points, in each command: what was acknowledged holds, what runs is found again.

Every cell: the daemon is killed at the point while the command is under way, another one is started, the cluster converges, and
there are exactly the processes that the wish asks for: none lost, none twice.
"""

from __future__ import annotations

import itertools
import json

import pytest

from tests import cells
from tests.processes.cluster import PROFILE, Cluster

POINTS = (
    "journal.append.before_write",
    "journal.append.before_fsync",
    "journal.append.after_fsync",
    "daemon.handle.after_actions",
    "daemon.start.before_spawn",
    "daemon.start.after_spawn",
)
# Command -> the words of clusterctl, engines before, engines after.
COMMANDS = {
    "start": (("start", "-n", "2"), 0, 2),
    "scale up": (("scale", "engines", "3"), 1, 3),
    "scale down": (("scale", "engines", "1"), 3, 1),
    "restart": (("restart", "engines"), 1, 1),
    "stop": (("stop", "--no-daemon"), 1, 0),
}
# Only these start a process.
STARTING = ("start", "restart")
TABLE = "kill -9 daemon"

CELLS = cells.declare(
    TABLE,
    [
        (point, command)
        for point, command in itertools.product(POINTS, COMMANDS)
        if command in STARTING or not point.startswith("daemon.start.")
    ],
)


@pytest.mark.parametrize("cell", CELLS, ids=" / ".join)
def test_a_killed_daemon_is_succeeded(cell, isolated):
    point, command = cell
    words, before, after = COMMANDS[command]
    with Cluster(isolated) as cluster:
        engines = _prepare(cluster, before)
        marker = isolated.temporary / "once"
        marker.mkdir()
        # Armed in a daemon that has adopted everything, and asked for one command: the first pass is the command's.
        armed = cluster.serve(CLUSTERD_FAULT=f"{point}=kill", CLUSTERD_FAULT_ONCE=str(marker))
        done = cluster.ctl(*words, "--no-wait", "--json", status=None)
        assert done.returncode in (0, 5, 8), (
            done.stdout,
            "the daemon was killed before the command came",
            cluster.log(),
        )
        is_acknowledged = done.returncode == 0
        assert armed.wait(30) == -9, (done.stdout, done.stderr)
        assert (marker / point).exists()
        cluster.serve()
        status = cluster.converged()
        found = status["engine_sets"]["engines"]["desired"]
        assert found in ({after} if is_acknowledged else {before, after}), (done.stdout, cluster.log())
        is_running = status["state"] == "running"
        expected = ["agent", "controller", *(f"engine/{slot}" for slot in cluster.engines())] if is_running else []
        assert cluster.running() == expected
        assert len(cluster.engines()) == found
        if command in ("scale up", "scale down"):
            # Those that stay are the same ones, not new ones in their places.
            kept = engines.items() & cluster.engines().items()
            assert len(kept) == min(before, found)
        marker.joinpath(point).unlink()
        marker.rmdir()
    cells.record_cell(TABLE, cell)


def _prepare(cluster, count):
    """Bring the cluster to `count` engines (0: stopped) and end its daemon; return the engines.

    By the profile, not by a command: afterwards nothing is left to be noted, and the next daemon's first record is its command's.
    """
    cluster.file.write_text(PROFILE.replace("n: 2", f"n: {count}"))
    daemon = cluster.serve()
    cluster.converged()
    if not count:
        cluster.ctl("stop", "--no-daemon")
    engines = cluster.engines()
    _end(daemon)
    return engines


def _end(daemon):
    daemon.terminate()
    assert daemon.wait(10) == 0


def test_the_command_is_acknowledged_only_when_it_is_durable(isolated):
    with Cluster(isolated) as cluster:
        _prepare(cluster, 1)
        armed = cluster.serve(CLUSTERD_FAULT="journal.append.after_fsync=kill")
        done = cluster.ctl("scale", "engines", "2", "--no-wait", "--json", status=8)
        assert armed.wait(10) == -9
        assert json.loads(done.stdout)["error"]["code"] == "cut_short"
        cluster.serve()
        assert cluster.converged()["engine_sets"]["engines"]["observed"] == 2
