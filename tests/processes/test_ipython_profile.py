"""`ipyparallel.Client(profile=NAME)` finds a cluster: by `clusterctl connect --ipython`, or by `publish: ipython`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from clusterd.publish import place
from tests.processes.cluster import PROFILE, Cluster

if TYPE_CHECKING:
    from pathlib import Path

SMALL = PROFILE.replace("n: 2", "n: 1").replace("controller: {", "controller: {stock: 'on', ")
FILE = "ipcontroller-client.json"


@pytest.fixture
def start(isolated):
    """Start a cluster with a profile's text; all of them end with the test."""
    clusters = []

    def begin(text=SMALL, name="test"):
        kind = type("Named", (Cluster,), {"name": name})
        cluster = kind(isolated, text)
        clusters.append(cluster)
        cluster.serve()
        cluster.converged()
        return cluster

    yield begin
    for cluster in reversed(clusters):
        cluster.__exit__()


def ports(path: Path) -> dict:
    return json.loads(path.read_bytes())


def test_connect_for_ipython_and_back(start):
    cluster = start()
    target = place("test")
    done = cluster.ctl("connect", "--ipython")
    assert done.stdout.splitlines() == [
        f"{target} is there; a key is in it, for you alone. In Python:",
        "import ipyparallel",
        'client = ipyparallel.Client(profile="test")',
    ]
    assert target.read_bytes() == (cluster.state / "security" / FILE).read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600
    assert "was already there" in cluster.ctl("connect", "--ipython").stdout
    told = cluster.json("connect", "--ipython", "--profile-name", "lab")
    assert told == {
        "version": 1,
        "profile": "test",
        "ipython_profile": "lab",
        "file": str(place("lab")),
        "is_changed": True,
    }
    assert (
        cluster.ctl("connect", "--ipython", "--profile-name", "lab", "--remove").stdout == f"removed {place('lab')}\n"
    )
    assert cluster.ctl("connect", "--ipython", "--remove").stdout == f"removed {target}\n"
    assert cluster.ctl("connect", "--ipython", "--remove").stdout == f"there is no {target}\n"
    assert not target.parents[1].exists()


def test_two_clusters_do_not_take_each_others_place(start):
    one, two = start(name="one"), start(name="two")
    one.ctl("connect", "--ipython", "--profile-name", "default")
    refused = two.ctl("connect", "--ipython", "--profile-name", "default", status=5)
    assert "is the file of the controller of one, process" in refused.stderr
    assert "--force" in refused.stderr
    two.ctl("connect", "--ipython", "--profile-name", "default", "--remove", status=5)
    two.ctl("connect", "--ipython", "--profile-name", "default", "--force")
    assert ports(place("default"))["clusterd"]["cluster"] == "two"
    # What a cluster left that is gone is in nobody's way.
    two.ctl("stop", "--daemon")
    one.ctl("connect", "--ipython", "--profile-name", "default")
    assert ports(place("default"))["clusterd"]["cluster"] == "one"


def test_a_controller_without_stock_sockets_is_not_published(start):
    cluster = start(SMALL.replace("'on'", "off"))
    refused = cluster.ctl("connect", "--ipython", status=5)
    assert "its controller serves no stock clients" in refused.stderr
    assert "stock: on" in refused.stderr
    assert "stock clients are not served" in cluster.ctl("status").stdout
    assert "controller.stock of the profile is off" in cluster.ctl("connect").stdout


@pytest.mark.parametrize("words", [("--remove",), ("--force",), ("--profile-name", "x")])
def test_options_that_mean_nothing_without_ipython(start, words, isolated):
    cluster = Cluster(isolated, SMALL)
    assert "are for --ipython" in cluster.ctl("connect", *words, status=2).stderr


def test_the_daemon_publishes_as_the_profile_says(start):
    cluster = start(f"publish: ipython\n{SMALL}")
    target = place("test")
    security = cluster.state / "security" / FILE
    assert target.read_bytes() == security.read_bytes()
    status = cluster.json("status")
    assert status["stock"] == {"served": "on", "client_file": str(security), "ipython_file": str(target)}
    assert status["warnings"] == []
    assert 'ipyparallel.Client(profile="test")' in cluster.ctl("connect").stdout
    before = ports(target)
    cluster.ctl("restart", "controller")
    after = ports(target)
    assert after["clusterd"]["controller"] != before["clusterd"]["controller"]
    # The copies that people made of it stay valid.
    assert {name: value for name, value in after.items() if name != "clusterd"} == {
        name: value for name, value in before.items() if name != "clusterd"
    }
    cluster.ctl("stop")
    assert not target.exists()
    cluster.ctl("start")
    assert target.read_bytes() == security.read_bytes()
    # A change of the profile is done at once.
    cluster.file.write_text(SMALL)
    cluster.ctl("reload")
    assert not target.exists()


def test_what_is_in_the_way_of_publishing_is_told_and_stays(start):
    one = start(name="one")
    one.ctl("connect", "--ipython", "--profile-name", "two")
    two = start(f"publish: ipython\n{SMALL}", name="two")
    [warning] = two.json("status")["warnings"]
    assert "is the file of the controller of one" in warning
    assert ports(place("two"))["clusterd"]["cluster"] == "one"
    one.ctl("connect", "--ipython", "--profile-name", "two", "--remove")
    two.ctl("reload")
    assert ports(place("two"))["clusterd"]["cluster"] == "two"
    assert two.json("status")["warnings"] == []


def test_a_service_encrypts_by_default(start):
    cluster = start(SMALL.replace("stock: 'on', ", ""))
    served = "curve" if os.geteuid() == 0 else "on"
    assert cluster.json("status")["stock"]["served"] == served
