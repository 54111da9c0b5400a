"""A real cluster: daemon, controller, agent and two engines, found by its name; and a client of it."""

from __future__ import annotations

import pytest

import clusterd
from tests.processes.cluster import Cluster


@pytest.fixture
def cluster(isolated):
    with Cluster(isolated) as cluster:
        cluster.ctl("start", "-n", "2")
        cluster.converged()
        yield cluster


@pytest.fixture
def client(cluster):
    with clusterd.Client(cluster.name) as client:
        client.wait_for_engines(2, timeout=30)
        yield client
