"""A real cluster: daemon, controller, agent and two engines, found by its name; and a client of it."""

from __future__ import annotations

import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

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


@pytest.fixture
def shell(isolated):
    """A user's IPython."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    hook = sys.displayhook
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=config)
    yield shell
    shell.run_line_magic("unload_ext", "clusterd")
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()
    sys.displayhook = hook
