"""Reasons, one by one, where the other tests did not come to them."""

from clusterd.core.model.engine import EngineView
from clusterd.core.model.ids import CONTROLLER
from clusterd.core.model.profile import EngineSet, Profile
from clusterd.core.supervisor import events
from clusterd.core.supervisor.settings import AGENT_MARGIN, from_profile
from tests.unit.supervisor.bench import Bench, identity, launch


def test_states_of_a_launch_on_its_way_up():
    bench = Bench()
    bench.begin()
    assert bench.view(CONTROLLER).launches[0].state == "requested"
    assert bench.view(CONTROLLER).reason == "the controller is starting"
    assert bench.view("engines").reason == "its agent is starting"
    assert bench.view().state == "starting"
    bench.send(events.Started(launch(0), identity(0)))
    assert bench.view(CONTROLLER).launches[0].state == "starting"
    assert bench.view(CONTROLLER).launches[0].pid == 100
    bench.send(events.ControllerReady(launch(0)))
    assert bench.view(CONTROLLER).launches[0].state == "ready"


def test_unreachable_agent():
    bench = Bench().up()
    bench.send(events.AgentUnreachable(launch(1), "no answer for 3 s"))
    assert bench.view("engines").reason == f"launch {launch(1)} runs but cannot be reached: no answer for 3 s"
    bench.report(1)
    assert bench.view("engines").is_converged


def test_troubled_slots_are_told_the_worst_first():
    bench = Bench().up()
    bench.observe("engines", 0)
    assert bench.view("engines").reason == "3 engines have not registered yet"
    views = (
        events.SlotView(0, "running"),
        events.SlotView(1, "backoff", "exit status 1"),
        events.SlotView(2, "crash-loop", "5 failures within 3 s; the last: no module numpy"),
        events.SlotView(3, "backoff", "exit status 1"),
    )
    bench.send(events.AgentReported(launch(1), 1, views, bench.now))
    reason = bench.view("engines").reason
    assert reason.startswith("engines/2 crash-loop: 5 failures")
    assert reason.endswith("(and 2 more)")


def test_engines_that_have_not_left():
    bench = Bench().up()
    bench.observe("engines", 0, 1, 2, 3, 4)
    assert bench.view("engines").reason == "1 engines have not left yet"


def test_no_controller():
    bench = Bench().up()
    bench.send(events.LaunchExited(launch(1), "SIGKILL"), 1.0)
    bench.send(events.LaunchExited(launch(2), "SIGKILL"), 1.1)
    bench.send(events.LaunchExited(launch(0), "SIGKILL"), 1.2)
    bench.send(events.LaunchExited(launch(3), "SIGKILL"), 1.3)
    bench.supervisor.unit("engines").retry_at = None
    assert bench.view("engines").reason == "there is no controller"
    assert bench.view(CONTROLLER).reason.startswith("restarts in")


def test_age_of_what_was_observed():
    bench = Bench().up()
    bench.send(events.EnginesObserved("engines", (EngineView(0, "x", is_idle=True),), 5.0), 7.5)
    assert bench.view("engines").observed_age == 2.5


def test_settings_from_a_profile():
    profile = Profile(version=1, engine_sets={"gpu": EngineSet(n=2, max=3, stop_timeout=4.0, drain_timeout=None)})
    settings = from_profile(profile)
    gpu = settings.sets["gpu"]
    assert (gpu.n, gpu.max, gpu.stop_timeout, gpu.drain_timeout) == (2, 3, 4.0 + AGENT_MARGIN, None)
    assert gpu.traits.capacity is None
    assert settings.controller.stop_timeout == profile.controller.stop_timeout
