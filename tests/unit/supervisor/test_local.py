"""One host: the controller and an elastic agent."""

import pytest
from msgspec.structs import replace

from clusterd.core.model.profile import RestartPolicy
from clusterd.core.supervisor import actions, events, records
from clusterd.core.supervisor.settings import Settings, UnitSettings
from tests.unit.supervisor.bench import LOCAL, ONE_SET, Bench, identity, kinds, launch


def test_nothing_happens_before_somebody_wants_it():
    bench = Bench()
    assert bench.send(events.JournalReplayed()) == []
    assert bench.records == [records.ClusterCreated("local", bench.supervisor.state.cluster)]
    assert bench.supervisor.next_deadline() is None
    assert bench.view().state == "stopped"


def test_events_before_the_replay_decide_nothing():
    bench = Bench()
    with pytest.raises(ValueError, match="StartRequested before JournalReplayed"):
        bench.send(events.StartRequested(7))
    assert bench.supervisor.next_deadline() is None


def test_start_journals_the_intents_then_starts_controller_and_agent_at_once():
    bench = Bench()
    assert bench.begin() == [
        actions.Answer(0, {"is_wanted": True, "sets": {"engines": {"n": 4, "generation": 1}}}),
        actions.Start(launch(0), "controller", (), 0),
        actions.Start(launch(1), "engines", (0, 1, 2, 3), 1),
    ]
    assert [type(record).__name__ for record in bench.records] == [
        "RunChanged", "DesiredChanged", "LaunchIntended", "LaunchIntended",
    ]  # fmt: skip


def test_converged():
    bench = Bench().up()
    assert bench.view().state == "running"
    assert bench.supervisor.next_deadline() is None


def test_dead_agent_is_replaced_at_once_with_the_same_slots():
    bench = Bench().up()
    done = bench.send(events.LaunchExited(launch(1), "killed by SIGKILL"), 50.0)
    assert done == [actions.Start(launch(2), "engines", (0, 1, 2, 3), 1)]
    # Its engines go on; somebody has to see to them.
    assert bench.supervisor.state.orphaned == {"engines"}


def test_dead_controller_is_replaced_and_the_agent_left_alone():
    bench = Bench().up()
    done = bench.send(events.LaunchExited(launch(0), "killed by SIGKILL"), 50.0)
    assert done == [actions.Start(launch(2), "controller", (), 0)]
    assert bench.supervisor.state.launches[launch(1)].is_stopping is False
    assert bench.view("engines").observed_age is None


def test_failing_again_and_again_ends_in_a_crash_loop_that_resume_ends():
    bench = Bench().up()
    bench.send(events.LaunchExited(launch(1), "import error"), 50.0)
    number = 2
    while "engines" not in bench.supervisor.state.halted:
        if "retry" not in str(bench.view("engines").retry_in):
            bench.wait(bench.now + 10.0)
        bench.send(events.LaunchExited(launch(number), "import error"))
        number += 1
    assert number == 6
    view = bench.view("engines")
    assert "crash loop" in view.reason
    assert "import error" in view.reason
    assert view.hint
    assert bench.view().state == "degraded"
    assert bench.wait(10_000.0) == []
    # The reason outlives the daemon.
    again = bench.crashed()
    again.send(events.JournalReplayed())
    again.send(events.AdoptionResult(launch(0), "found", identity(0)))
    assert "crash loop" in again.view("engines").reason
    assert kinds(again.send(events.ResumeRequested(5, "engines"))) == ["Answer", "Start"]


def test_backoff_is_told():
    bench = Bench().up()
    bench.send(events.LaunchExited(launch(1), "import error"), 50.0)
    bench.send(events.LaunchExited(launch(2), "import error"), 50.1)
    view = bench.view("engines")
    assert 0.3 < view.retry_in <= 0.5
    assert view.reason.startswith("restarts in 0.")
    assert "import error" in view.reason
    assert kinds(bench.wait(51.0)) == ["Start"]


def test_refused_start_is_a_failure_without_engines():
    bench = Bench()
    bench.begin()
    done = bench.send(events.LaunchRefused(launch(1), "python: no such file"))
    assert kinds(done) == ["Start"]
    assert bench.supervisor.state.orphaned == set()


def test_clean_exit_of_an_agent_leaves_no_engines():
    bench = Bench().up()
    bench.send(events.LaunchExited(launch(1), "orphan_timeout", is_clean=True))
    assert bench.supervisor.state.orphaned == set()


@pytest.mark.parametrize("policy", ["never", "on-failure"])
def test_policy_may_want_no_restart(policy):
    settings = Settings(UnitSettings(), {"engines": replace(LOCAL, restart=RestartPolicy(policy=policy))})
    bench = Bench(settings).up()
    assert bench.send(events.LaunchExited(launch(1), "status 0", is_clean=True)) == []
    assert policy in bench.view("engines").reason


def test_agent_that_never_reports_is_stopped_and_counts_as_failed():
    bench = Bench()
    bench.begin()
    bench.send(events.Started(launch(1), identity(1)), 1.0)
    # Without a controller it cannot report: that is not its fault.
    assert bench.wait(15.0) == []
    bench.send(events.Started(launch(0), identity(0)), 15.0)
    bench.send(events.ControllerReady(launch(0)), 16.0)
    assert bench.supervisor.next_deadline() == 36.0
    done = bench.wait(36.0)
    assert done == [actions.Stop(launch(1), "engines", "term", identity(1))]
    assert bench.view("engines").reason == f"launch {launch(1)} is being stopped: not ready within 20 s"
    done = bench.wait(46.0)
    assert done == [actions.Stop(launch(1), "engines", "kill", identity(1))]
    # What does not end, because it hangs in the kernel, is killed again.
    assert bench.wait(51.0) == [actions.Stop(launch(1), "engines", "kill", identity(1))]
    bench.send(events.LaunchExited(launch(1), "SIGKILL"), 52.0)
    assert bench.supervisor.unit("engines").restarts.failures == 1
    assert bench.supervisor.unit("engines").last_end == "not ready within 20 s"


def test_start_deadline_stands_still_while_the_controller_cannot_be_reached():
    bench = Bench()
    bench.begin()
    bench.send(events.Started(launch(0), identity(0)))
    bench.send(events.ControllerReady(launch(0)))
    bench.send(events.Started(launch(1), identity(1)), 1.0)
    bench.send(events.ControllerUnreachable(launch(0), "connection closed"), 2.0)
    assert bench.wait(1000.0) == []
    assert bench.view("controller").reason == f"launch {launch(0)} runs but cannot be reached: connection closed"
    bench.send(events.ControllerReady(launch(0)), 1000.0)
    assert bench.supervisor.next_deadline() == 1020.0


def test_confirmed_controller_has_no_start_deadline_after_a_restart_of_the_daemon():
    bench = Bench().up().crashed()
    bench.send(events.JournalReplayed())
    bench.send(events.AdoptionResult(launch(0), "found", identity(0)))
    bench.send(events.AdoptionResult(launch(1), "found", identity(1)))
    assert bench.wait(10_000.0) == []
    assert bench.view("controller").reason == "the controller is starting"


# --- scaling ---------------------------------------------------------------------------------------------------------


def test_scaling_up_is_a_message_to_the_agent():
    bench = Bench().up()
    done = bench.send(events.ScaleRequested(5, "engines", 6))
    assert kinds(done) == ["Answer", "SetDesired"]
    assert done[1] == actions.SetDesired(launch(1), "engines", 3, (0, 1, 2, 3, 4, 5))
    assert bench.view("engines").reason == "2 engines have not registered yet"


def test_lost_order_is_sent_again_when_the_report_shows_an_old_generation():
    bench = Bench().up()
    bench.send(events.ScaleRequested(5, "engines", 6))
    assert kinds(bench.report(1, 0, 1, 2, 3, generation=1)) == ["SetDesired"]
    assert bench.report(1) == []


def test_agent_that_has_not_reported_is_told_when_it_does():
    bench = Bench()
    bench.begin()
    assert kinds(bench.send(events.ScaleRequested(5, "engines", 6))) == ["Answer"]
    bench.send(events.Started(launch(1), identity(1)))
    assert kinds(bench.report(1, generation=1)) == ["SetDesired"]


def test_scaling_down_drains_idle_and_youngest_first_and_waits_for_the_busy():
    bench = Bench().up()
    bench.observe("engines", 0, 1, 2, 3, busy=(3,))
    done = bench.send(events.ScaleRequested(5, "engines", 1))
    assert done[1:] == [actions.Drain("engines", (0, 1, 2))]
    assert bench.view("engines").draining == (0, 1, 2)
    assert bench.view("engines").reason == "3 engines finish their tasks before they go"
    done = bench.send(events.EnginesDrained("engines", (1, 2)), 1.0)
    assert done == [actions.SetDesired(launch(1), "engines", 3, (0, 3))]
    done = bench.wait(30.0)
    assert done == [actions.SetDesired(launch(1), "engines", 4, (3,))]
    bench.observe("engines", 3)
    bench.report(1)
    assert bench.view().is_converged


def test_engine_that_dies_while_it_is_drained_is_given_up():
    bench = Bench().up()
    bench.send(events.ScaleRequested(5, "engines", 3), 1.0)
    # A look from before the drain would say nothing; this one is from after it.
    assert bench.send(events.EnginesObserved("engines", (), 1.0)) == []
    assert kinds(bench.send(events.EnginesObserved("engines", (), 1.5))) == ["SetDesired"]


def test_infinite_patience():
    settings = Settings(UnitSettings(), {"engines": replace(LOCAL, drain_timeout=None)})
    bench = Bench(settings).up()
    bench.send(events.ScaleRequested(5, "engines", 3))
    assert bench.supervisor.next_deadline() is None
    assert bench.slots(1) == (0, 1, 2, 3)


def test_a_command_may_bring_its_own_patience():
    bench = Bench().up()
    bench.send(events.ScaleRequested(5, "engines", 3, drain_timeout=2.0), 10.0)
    assert bench.wait(11.9) == []
    assert kinds(bench.wait(12.0)) == ["SetDesired"]
    bench.observe("engines", 0, 1, 2)
    bench.report(1)
    # The next one without it goes by the profile again.
    bench.send(events.ScaleRequested(6, "engines", 2), 20.0)
    assert bench.wait(49.9) == []
    assert kinds(bench.wait(50.0)) == ["SetDesired"]


def test_wanted_again_before_it_was_drained():
    bench = Bench().up()
    bench.send(events.ScaleRequested(5, "engines", 3))
    done = bench.send(events.ScaleRequested(6, "engines", 4))
    assert done[1:] == [actions.Drain("engines", (3,), is_draining=False)]
    assert bench.wait(1000.0) == []
    assert bench.view().is_converged


def test_drain_is_asked_for_again_when_the_controller_comes_back():
    bench = Bench().up()
    bench.send(events.ScaleRequested(5, "engines", 2))
    bench.send(events.EnginesDrained("batch", (2,)))  # another set's: without effect
    bench.send(events.ControllerUnreachable(launch(0), "closed"))
    assert bench.send(events.ControllerReady(launch(0))) == [actions.Drain("engines", (2, 3))]


def test_slots_that_an_agent_still_holds_are_released_by_its_report():
    bench = Bench().up()
    bench.send(events.ScaleRequested(5, "engines", 3))
    bench.send(events.EnginesDrained("engines", (3,)))
    assert bench.supervisor.state.launches[launch(1)].lingering == (3,)
    bench.report(1, 0, 1, 2, 3)
    assert bench.supervisor.state.launches[launch(1)].lingering == (3,)
    bench.report(1, 0, 1, 2)
    assert bench.supervisor.state.launches[launch(1)].lingering == ()
    assert bench.records == [records.SlotsReleased("local", launch(1), (3,))]


def test_scale_to_zero_ends_the_agent_and_back_starts_another():
    bench = Bench().up()
    bench.send(events.ScaleRequested(5, "engines", 0))
    done = bench.send(events.EnginesDrained("engines", (0, 1, 2, 3)))
    assert done == [actions.Stop(launch(1), "engines", "term", identity(1))]
    assert kinds(bench.send(events.ScaleRequested(6, "engines", 2))) == ["Answer"]
    done = bench.send(events.LaunchExited(launch(1), "status 0", is_clean=True))
    assert done == [actions.Start(launch(2), "engines", (0, 1), 3)]


def test_scale_to_zero_reaps_what_no_agent_will_come_for():
    bench = Bench().up()
    bench.send(events.ScaleRequested(5, "engines", 0))
    assert bench.send(events.LaunchExited(launch(1), "SIGKILL")) == [actions.Reap("engines")]


@pytest.mark.parametrize(
    ("event", "message", "hint"),
    [
        (events.ScaleRequested(5, "engines", 9), "9 engines are more", "raise `max`"),
        (events.ScaleRequested(5, "engines", -1), "-1 engines cannot be", ""),
        (events.ScaleRequested(5, "nonsense", 1), "no engine set 'nonsense'", "it has: engines"),
        (events.StartRequested(5, {"engines": 9}), "9 engines are more", "raise `max`"),
        (events.RestartRequested(5, "nonsense"), "there is no 'nonsense'", "it has: controller, engines"),
        (events.ResumeRequested(5, "nonsense"), "there is no 'nonsense'", "it has: controller, engines"),
    ],
)
def test_impossible_wishes_are_refused_and_change_nothing(event, message, hint):
    bench = Bench().up()
    (refusal,) = bench.send(event)
    assert isinstance(refusal, actions.Refuse)
    assert refusal.request == 5
    assert message in refusal.message
    assert hint in refusal.hint
    assert bench.records == []


@pytest.mark.parametrize("event", [events.ScaleRequested(5, "engines", 2), events.RestartRequested(5)])
def test_wishes_that_need_a_running_cluster(event):
    bench = Bench()
    bench.send(events.JournalReplayed())
    (refusal,) = bench.send(event)
    assert refusal.message == "cluster local is stopped"
    assert refusal.hint


def test_the_same_wish_again_is_answered_and_changes_nothing():
    bench = Bench().up()
    assert kinds(bench.send(events.ScaleRequested(5, "engines", 4))) == ["Answer"]
    assert bench.records == []
    assert kinds(bench.send(events.StartRequested(6))) == ["Answer"]
    assert bench.records == []
    assert kinds(bench.send(events.StartRequested(6, {"engines": 5}))) == ["Answer", "SetDesired"]


# --- stopping and restarting -------------------------------------------------------------------------------------------


def test_stop_ends_engines_then_the_controller():
    bench = Bench().up()
    assert kinds(bench.send(events.StopRequested(5))) == ["Answer", "Stop"]
    assert kinds(bench.send(events.StopRequested(6))) == ["Answer"]
    assert bench.view().state == "stopping"
    done = bench.send(events.LaunchExited(launch(1), "status 0", is_clean=True))
    assert done == [actions.Stop(launch(0), "controller", "term", identity(0))]
    assert bench.send(events.LaunchExited(launch(0), "status 0", is_clean=True)) == []
    assert bench.view().state == "stopped"
    assert bench.supervisor.next_deadline() is None


def test_a_pause_is_a_stop_that_the_next_start_ends():
    bench = Bench().up()
    assert kinds(bench.send(events.StopRequested(5, is_pause=True))) == ["Answer", "Stop"]
    assert bench.supervisor.state.is_paused
    assert records.RunChanged("local", is_wanted=False, is_pause=True) in bench.supervisor.snapshot()
    bench.send(events.StartRequested(6))
    assert not bench.supervisor.state.is_paused


def test_a_cluster_that_was_stopped_is_not_paused_and_a_stop_ends_a_pause():
    bench = Bench().up()
    bench.send(events.StopRequested(5))
    bench.send(events.StopRequested(6, is_pause=True))
    assert not bench.supervisor.state.is_paused
    paused = Bench().up()
    paused.send(events.StopRequested(5, is_pause=True))
    paused.send(events.StopRequested(6))
    assert not paused.supervisor.state.is_paused


def test_stop_reaps_the_engines_of_a_dead_agent_before_the_controller_goes():
    bench = Bench().up()
    bench.send(events.StopRequested(5))
    assert bench.send(events.LaunchExited(launch(1), "SIGKILL")) == [actions.Reap("engines")]
    assert bench.view("engines").reason == "engines without an agent are being ended"
    assert bench.send(events.ReapFinished("engines", "engine 4711 does not end"), 10.0) == []
    assert bench.view("engines").reason == "engines without an agent are being ended: engine 4711 does not end"
    assert bench.wait(15.0) == [actions.Reap("engines")]
    assert kinds(bench.send(events.ReapFinished("engines"))) == ["Stop"]


def test_start_while_stopping_waits_for_the_end():
    bench = Bench().up()
    bench.send(events.StopRequested(5))
    assert kinds(bench.send(events.StartRequested(6, {"engines": 2}))) == ["Answer"]
    done = bench.send(events.LaunchExited(launch(1), "status 0", is_clean=True))
    assert done == [actions.Start(launch(2), "engines", (0, 1), 2)]


def test_nothing_is_started_for_a_controller_that_is_stopping():
    bench = Bench().up()
    bench.send(events.StopRequested(5))
    bench.send(events.LaunchExited(launch(1), "status 0", is_clean=True))
    assert kinds(bench.send(events.StartRequested(6))) == ["Answer"]
    assert bench.view("engines").reason == "the controller must end before engines are started"
    assert kinds(bench.send(events.LaunchExited(launch(0), "status 0", is_clean=True))) == ["Start", "Start"]


def test_stop_of_what_is_just_being_started():
    bench = Bench()
    bench.begin()
    assert kinds(bench.send(events.StopRequested(5))) == ["Answer"]
    assert bench.send(events.Started(launch(1), identity(1))) == [
        actions.Stop(launch(1), "engines", "term", identity(1))
    ]


def test_launch_that_speaks_before_its_start_was_answered_can_be_stopped():
    bench = Bench()
    bench.begin()
    bench.send(events.Started(launch(0), identity(0)))
    bench.report(1)
    assert bench.send(events.StopRequested(5))[1:] == [actions.Dismiss(launch(1))]
    bench.send(events.Started(launch(1), identity(1)))
    assert bench.wait(10.0) == [actions.Stop(launch(1), "engines", "kill", identity(1))]


def test_restart_of_the_controller_leaves_the_agents_alone():
    bench = Bench().up()
    done = bench.send(events.RestartRequested(5, "controller"))
    assert done[1:] == [actions.Stop(launch(0), "controller", "term", identity(0))]
    assert bench.send(events.LaunchExited(launch(0), "status 0", is_clean=True)) == [
        actions.Start(launch(2), "controller", (), 0)
    ]
    assert bench.supervisor.unit("controller").restarts.failures == 0


def test_restart_of_everything():
    bench = Bench().up()
    assert kinds(bench.send(events.RestartRequested(5))) == ["Answer", "Stop", "Stop"]


def test_one_agent_at_a_time_also_when_more_slots_are_wanted_meanwhile():
    bench = Bench().up()
    bench.send(events.RestartRequested(5, "engines"))
    assert kinds(bench.send(events.ScaleRequested(6, "engines", 6))) == ["Answer"]
    done = bench.send(events.LaunchExited(launch(1), "status 0", is_clean=True))
    assert done == [actions.Start(launch(2), "engines", (0, 1, 2, 3, 4, 5), 2)]


def test_resume_reaches_the_slots():
    bench = Bench().up()
    assert kinds(bench.send(events.ResumeRequested(5))) == ["Answer", "ResumeSlots"]


# --- the profile -----------------------------------------------------------------------------------------------------


def test_reload_takes_new_numbers_sets_and_policies():
    bench = Bench().up()
    policy = RestartPolicy(policy="never")
    settings = Settings(UnitSettings(), {"engines": replace(LOCAL, n=5, restart=policy), "more": replace(LOCAL, n=1)})
    assert kinds(bench.send(events.ProfileChanged(settings))) == ["SetDesired", "Start"]
    assert bench.supervisor.unit("engines").restarts.policy == policy


def test_reload_that_changes_nothing_keeps_what_was_scaled():
    bench = Bench().up()
    bench.send(events.ScaleRequested(5, "engines", 6))
    assert bench.send(events.ProfileChanged(ONE_SET)) == []
    assert bench.view("engines").desired == 6


def test_reload_with_a_smaller_max_scales_down():
    bench = Bench().up()
    settings = Settings(UnitSettings(), {"engines": replace(LOCAL, max=3)})
    assert bench.send(events.ProfileChanged(settings)) == [actions.Drain("engines", (3,))]


def test_set_that_is_gone_from_the_profile_is_drained_and_stopped():
    bench = Bench().up()
    assert kinds(bench.send(events.ProfileChanged(Settings(UnitSettings(), {})))) == ["Drain"]
    assert kinds(bench.send(events.EnginesDrained("engines", (0, 1, 2, 3)))) == ["Stop"]
    assert bench.view("engines").desired == 0
    bench.send(events.LaunchExited(launch(1), "status 0", is_clean=True))
    assert bench.view().sets == ()


def test_reload_while_stopped_changes_settings_only():
    bench = Bench()
    bench.send(events.JournalReplayed())
    assert bench.send(events.ProfileChanged(Settings(UnitSettings(), {"other": LOCAL}))) == []
    assert bench.records == []


# --- adoption ----------------------------------------------------------------------------------------------------------


def test_restarted_daemon_adopts_before_it_starts_anything():
    bench = Bench().up().crashed()
    assert bench.send(events.JournalReplayed()) == [
        actions.Adopt(launch(0), "controller", identity(0)),
        actions.Adopt(launch(1), "engines", identity(1)),
    ]
    assert bench.view("engines").reason == f"nobody knows whether launch {launch(1)} runs: the daemon was restarted"
    assert bench.send(events.AdoptionResult(launch(0), "found", identity(0))) == []
    assert bench.send(events.AdoptionResult(launch(1), "found", identity(1))) == []
    assert bench.records == []
    bench.send(events.ControllerReady(launch(0)))
    bench.report(1)
    bench.observe("engines", 0, 1, 2, 3)
    assert bench.view().is_converged


def test_adoption_finds_the_identity_that_a_crash_kept_from_the_journal():
    bench = Bench()
    bench.begin()
    bench = bench.crashed()
    assert bench.send(events.JournalReplayed())[1] == actions.Adopt(launch(1), "engines", None)
    bench.send(events.AdoptionResult(launch(1), "found", identity(7)))
    assert bench.records == [records.LaunchStarted("local", launch(1), identity(7))]


def test_absent_launch_is_replaced():
    bench = Bench().up().crashed()
    bench.send(events.JournalReplayed())
    bench.send(events.AdoptionResult(launch(0), "found", identity(0)))
    assert kinds(bench.send(events.AdoptionResult(launch(1), "absent", identity(1), "pid is another's"))) == ["Start"]
    assert bench.supervisor.state.orphaned == {"engines"}


@pytest.mark.parametrize("identity_found", [None, identity(7)])
def test_absent_launch_left_engines_only_if_it_lived(identity_found):
    bench = Bench()
    bench.begin()
    bench = bench.crashed()
    bench.send(events.JournalReplayed())
    bench.send(events.AdoptionResult(launch(1), "absent", identity_found, "claimed"))
    assert bench.supervisor.state.orphaned == (set() if identity_found is None else {"engines"})


def test_unknown_launch_holds_its_place_and_is_asked_for_again():
    bench = Bench().up().crashed()
    bench.send(events.JournalReplayed())
    bench.send(events.AdoptionResult(launch(1), "unknown", None, "permission denied"), 10.0)
    view = bench.view("engines")
    assert view.launches[0].unknown_for is not None
    assert "permission denied" in view.reason
    assert bench.wait(15.0) == [actions.Adopt(launch(1), "engines", identity(1))]
    bench.send(events.AdoptionResult(launch(1), "found", identity(1)))
    assert bench.view("engines").launches[0].unknown_for is None


def test_launch_that_was_stopping_is_stopped_on():
    bench = Bench().up()
    bench.send(events.StopRequested(5))
    bench = bench.crashed()
    bench.send(events.JournalReplayed())
    done = bench.send(events.AdoptionResult(launch(1), "found", identity(1)))
    assert done == [actions.Stop(launch(1), "engines", "term", identity(1))]


def test_agent_of_a_launch_that_is_over_is_dismissed():
    bench = Bench().up()
    assert bench.send(events.AgentReported("1f3c9a20-99", 1, (), 0.0)) == [actions.Dismiss("1f3c9a20-99")]
    for stranger in ("0badcafe-1", "nonsense"):
        assert bench.send(events.AgentReported(stranger, 1, (), 0.0)) == []


def test_late_news_of_a_launch_that_ended_change_nothing():
    bench = Bench().up()
    bench.send(events.LaunchExited(launch(1), "SIGKILL"))
    for event in (
        events.LaunchExited(launch(1), "SIGKILL"),
        events.Started(launch(1), identity(1)),
        events.Submitted(launch(1), "4711"),
        events.SubmitUnknown(launch(1), "time-out"),
        events.AdoptionResult(launch(1), "found", identity(1)),
        events.ControllerReady(launch(1)),
        events.AgentUnreachable(launch(1), "closed"),
    ):
        assert bench.send(event) == []
        assert bench.records == []


def test_stale_look_at_the_engines_is_ignored():
    bench = Bench().up()
    bench.now = 10.0
    bench.observe("engines", 0, 1)
    bench.send(events.EnginesObserved("engines", (), 5.0))
    assert bench.view("engines").observed == 2


def test_time_never_goes_back():
    bench = Bench().up()
    bench.supervisor.handle(events.TimePassed(), 100.0)
    bench.supervisor.handle(events.TimePassed(), 50.0)
    assert bench.supervisor.now == 100.0


def test_story_tells_the_last_events_and_decisions_in_short():
    bench = Bench().up()
    story = [what for _, what in bench.supervisor.story]
    assert any(what.startswith("StartRequested") for what in story)
    assert any(what.startswith("LaunchIntended") for what in story)
    assert "EnginesObserved(engine_set='engines', 4 engines)" in story
    bench.send(events.ProfileChanged(ONE_SET))
    for _ in range(1000):
        bench.send(events.TimePassed())
    assert len(bench.supervisor.story) == 256
