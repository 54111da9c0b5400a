"""`clusterd@NAME.socket`: the first command starts the daemon; what is asked before it runs is answered when it does."""

from __future__ import annotations

import pytest

from tests.systemd.conftest import PROFILE, Service


@pytest.fixture(scope="module")
def service(host):
    service = Service(host, "lazy", PROFILE.replace("n: 2", "n: 1"))
    host.run("systemctl", "start", "clusterd@lazy.socket")
    yield service
    host.run("systemctl", "stop", "clusterd@lazy.socket", service.unit)


def test_the_first_command_starts_the_daemon(service):
    assert service.show("ActiveState") == "inactive"
    assert "lazy" in service.ctl("status")
    assert service.show("ActiveState") == "active"
    assert service.converged()["engine_sets"]["engines"]["observed"] == 1


def test_the_socket_is_there_while_no_daemon_is_and_belongs_to_run_as(service):
    before = service.running()
    socket = "/run/clusterd/lazy/control.sock"
    assert service.host.run("stat", "-c", "%U %a", socket).split() == ["clusterd", "600"]
    service.systemctl("kill", "--kill-whom=main", "--signal=TERM")
    service.host.run("systemctl", "is-active", "clusterd@lazy.socket")
    # As the user that the cluster belongs to.
    runtime = ("env", "CLUSTERD_RUNTIME_DIR=/run/clusterd")
    service.host.run(*runtime, "clusterctl", "-p", "lazy", "status", user="clusterd")
    assert service.running() == before


def test_the_service_can_be_stopped_and_asked_for_again(service):
    service.systemctl("stop")
    assert service.host.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "clusterd-lazy-*") == ""
    service.ctl("status")
    service.converged()
