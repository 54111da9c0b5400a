"""What the profile says arrives in what a launch is told."""

from __future__ import annotations

import msgspec
import pytest

from clusterd.core.model.launch import AgentSpec, ControllerSpec
from clusterd.core.model.profile import ControllerSection, EngineSet, Profile
from clusterd.daemon.places import Places
from clusterd.daemon.specs import agent_spec, controller_spec


def names(struct) -> set[str]:
    return {field.name for field in msgspec.structs.fields(struct)}


def profile(section: ControllerSection) -> Profile:
    return Profile(version=1, controller=section, engine_sets={"engines": EngineSet(n=1)})


def test_every_setting_that_a_controller_is_told_is_told(isolated):
    shared = names(ControllerSpec) & names(ControllerSection)
    assert {"stock", "task_scheme", "ping"} <= shared
    # Of no type that a setting has: a struct takes them as they are.
    marked = ControllerSection(**{name: f"<{name}>" for name in shared})
    spec = controller_spec(profile(marked), Places.of("test"), "0123abcd-1")
    assert {name: getattr(spec, name) for name in shared} == {name: f"<{name}>" for name in shared}


def test_every_setting_that_an_agent_is_told_is_told(isolated):
    shared = names(AgentSpec) & names(EngineSet)
    assert {"preload", "env", "restart"} <= shared
    marked = EngineSet(n=1, **{name: f"<{name}>" for name in shared})
    sets = Profile(version=1, engine_sets={"gpu": marked})
    spec = agent_spec(sets, Places.of("test"), "0123abcd-1", "gpu", (0, 1), 3)
    assert {name: getattr(spec, name) for name in shared} == {name: f"<{name}>" for name in shared}


def test_what_leaves_loopback_is_encrypted(isolated):
    places = Places.of("test")._replace(is_service=False)
    for ip, meant in {"127.0.0.1": "on", "localhost": "on", "::1": "on", "10.0.0.1": "curve", "*": "curve"}.items():
        assert controller_spec(profile(ControllerSection(ip=ip)), places, "0123abcd-1").stock == meant, ip


@pytest.mark.parametrize(("said", "is_service", "meant"), [
    (None, False, "on"), (None, True, "curve"), ("on", True, "on"), ("off", False, "off"), ("curve", False, "curve"),
])  # fmt: skip
def test_a_service_encrypts_what_others_of_the_node_could_read(isolated, said, is_service, meant):
    places = Places.of("test")._replace(is_service=is_service)
    assert controller_spec(profile(ControllerSection(stock=said)), places, "0123abcd-1").stock == meant


@pytest.mark.parametrize(("said", "meant"), [(None, True), ("curve", True), ("off", False)])
def test_an_agent_knows_whether_stock_clients_may_come(isolated, said, meant):
    sets = Profile(version=1, controller=ControllerSection(stock=said), engine_sets={"gpu": EngineSet(n=1)})
    assert agent_spec(sets, Places.of("test"), "0123abcd-1", "gpu", (0,), 1).stock is meant
