"""A thousand engines on one daemon and one controller: connections in place of processes, everything else is real."""

from __future__ import annotations

import pytest

import clusterd
from benchmarks.peers.fleet import wrapper
from tests.processes.cluster import Cluster, kill

ENGINES = 1000
PROFILE = """\
version: 1
controller: {{launcher: local, stock: "off", start_timeout: 30}}
engine_sets:
  engines: {{launcher: local, n: {engines}, max: 2000, work_dir: /tmp, start_timeout: 30, python: {python}}}
"""


@pytest.fixture
def cluster(isolated):
    profile = PROFILE.format(engines=ENGINES, python=wrapper(isolated.root / "python"))
    with Cluster(isolated, profile) as cluster:
        cluster.serve()
        yield cluster


def test_a_thousand_engines(cluster):
    assert cluster.converged()["engine_sets"]["engines"]["observed"] == ENGINES
    assert f"{ENGINES} of {ENGINES}" in cluster.ctl("status").stdout
    before = cluster.engines()
    assert sorted(before) == list(range(ENGINES))
    with clusterd.Client("test", timeout=20.0) as client:
        assert len(client.ids) == ENGINES
        everyone = client[:].apply_async(abs, -1)
        assert everyone.result(30) == [None] * ENGINES
        view = client.load_balanced_view()
        futures = [view.apply_async(abs, number) for number in range(5 * ENGINES)]
        assert {future.result(60) for future in futures} == {None}
        assert len({future.engine_id for future in futures}) > ENGINES // 2
        kill(cluster.pids()["controller"])
        # Another one has them all, by the ids that clients know.
        assert everyone.result(30)
        assert client[:].apply_async(abs, -1).result(60) == [None] * ENGINES
        assert cluster.converged()["engine_sets"]["engines"]["observed"] == ENGINES
        assert cluster.engines() == before
        cluster.ctl("scale", "engines", "10", "--wait")
        assert cluster.converged()["engine_sets"]["engines"]["observed"] == 10
        client.wait_for_engines(10, timeout=20)
        assert len(client.ids) == 10
        assert cluster.engines().items() <= before.items()
