"""Jobs: submissions whose answers get lost, queries that fail or are late, fixed capacity."""

import pytest
from msgspec.structs import replace

from clusterd.core.model.job import Job
from clusterd.core.model.profile import RestartPolicy
from clusterd.core.supervisor import actions, events, records
from clusterd.core.supervisor.settings import Settings
from tests.unit.supervisor.bench import BATCH, ONLY_BATCH, TWO_SETS, Bench, identity, kinds, launch

# In these tests the controller is launch 0, the jobs launch 1 (slots 0 and 1) and 2 (slots 2 and 3).


@pytest.fixture
def bench():
    bench = Bench(ONLY_BATCH)
    bench.begin()
    bench.send(events.Started(launch(0), identity(0)))
    bench.send(events.ControllerReady(launch(0)))
    return bench


@pytest.fixture
def running(bench):
    bench.send(events.Submitted(launch(1), "71"))
    bench.send(events.Submitted(launch(2), "72"))
    seen(bench, ("71", 1, "running"), ("72", 2, "running"))
    bench.report(1)
    bench.report(2)
    bench.observe("batch", 0, 1, 2, 3)
    assert bench.view().is_converged
    return bench


def seen(bench, *jobs, asked_at=None):
    listed = tuple(Job(job, launch(number), state) for job, number, state in jobs)
    return bench.send(events.JobsObserved("batch", bench.now if asked_at is None else asked_at, listed, "squeue"))


def test_each_job_carries_a_share_of_the_slots():
    bench = Bench(ONLY_BATCH)
    assert bench.begin()[2:] == [
        actions.Submit(launch(1), "batch", (0, 1), 1),
        actions.Submit(launch(2), "batch", (2, 3), 1),
    ]


def test_queue_time_is_not_start_time(bench):
    bench.send(events.Submitted(launch(1), "71"))
    seen(bench, ("71", 1, "queued"))
    assert bench.view("batch").launches[0].state == "queued"
    assert bench.view("batch").reason == "job 71 waits: squeue: queued"
    while bench.now < 500.0:
        assert kinds(bench.wait(bench.supervisor.next_deadline())) == ["Query"]
        seen(bench, ("71", 1, "queued"))
    seen(bench, ("71", 1, "running"))
    begin = bench.now
    assert kinds(bench.wait(begin + 19.9)) == ["Query"]
    seen(bench, ("71", 1, "running"))
    assert actions.Stop(launch(1), "batch", "term", None, "71") in bench.wait(begin + 20.0)


def test_job_that_goes_back_to_the_queue_gets_its_time_again(bench):
    bench.send(events.Submitted(launch(1), "71"))
    seen(bench, ("71", 1, "running"))
    seen(bench, ("71", 1, "queued"))
    assert bench.supervisor.launches[launch(1)].running_since is None


def test_unknown_submission_is_decided_by_a_late_enough_query(bench):
    bench.send(events.SubmitUnknown(launch(1), "sbatch: time-out"), 10.0)
    assert bench.view("batch").reason == f"nobody knows whether launch {launch(1)} runs: sbatch: time-out"
    # Asked before it was submitted, while it was, or before it could have arrived: proves nothing.
    for asked_at in (0.0, 10.0, 40.0):
        assert seen(bench, asked_at=asked_at) == []
        assert launch(1) in bench.supervisor.state.launches
    bench.now = 41.0
    done = seen(bench, asked_at=40.1)
    assert done == [actions.Submit(launch(3), "batch", (0, 1), 1)]


def test_unknown_submission_is_asked_for_soon(bench):
    bench.send(events.SubmitUnknown(launch(1), "time-out"), 1.0)
    assert bench.supervisor.next_deadline() == 4.0


def test_unknown_submission_that_a_query_shows_is_ours(bench):
    bench.send(events.SubmitUnknown(launch(1), "time-out"), 10.0)
    seen(bench, ("71", 1, "queued"), asked_at=9.0)
    assert bench.records == [records.LaunchStarted("local", launch(1), None, "71")]
    assert bench.view("batch").launches[0].unknown_for is None


def test_submission_on_its_way_cannot_be_absent(bench):
    bench.now = 1000.0
    seen(bench, asked_at=999.0)
    assert bench.supervisor.state.launches.keys() >= {launch(1), launch(2)}


def test_job_that_a_query_shows_before_the_answer_comes(bench):
    seen(bench, ("71", 1, "running"))
    assert bench.send(events.LaunchRefused(launch(1), "time-out")) == []
    assert bench.send(events.Submitted(launch(1), "71")) == []
    assert bench.records == []
    bench.send(events.SubmitUnknown(launch(1), "time-out"))
    assert bench.view("batch").launches[0].unknown_for is None


def test_failed_queries_change_nothing_and_are_told(running):
    for n in range(1, 6):
        running.send(events.QueryFailed("batch", 15.0 * n, "squeue: exit status 1"), 15.0 * n + 1)
    assert running.supervisor.state.launches.keys() == {launch(0), launch(1), launch(2)}
    assert running.supervisor.unit("batch").failing_since == 15.0
    seen(running, ("71", 1, "running"), ("72", 2, "running"))
    assert running.supervisor.unit("batch").failing_since is None


def test_reason_while_the_batch_system_is_silent(bench):
    bench.send(events.QueryFailed("batch", 10.0, "squeue: exit status 1"), 20.0)
    assert bench.view("batch").reason == "the batch system has not answered for 10 s: squeue: exit status 1"


@pytest.mark.parametrize("listed", [(), (("71", 1, "ended"),)])
def test_job_that_is_gone_is_replaced(running, listed):
    running.now = 100.0
    done = seen(running, ("72", 2, "running"), *listed)
    assert done == [actions.Submit(launch(3), "batch", (0, 1), 1)]
    # The job ended with all its processes: there is nothing to reap.
    assert running.supervisor.state.orphaned == set()


def test_job_that_ends_before_its_submission_is_answered(bench):
    seen(bench, ("71", 1, "ended"))
    assert launch(1) not in bench.supervisor.state.launches
    assert bench.send(events.Submitted(launch(1), "71")) == []


def test_second_job_of_one_launch_is_cancelled(running):
    done = seen(running, ("70", 1, "queued"), ("71", 1, "running"), ("72", 2, "running"))
    assert done == [actions.Cancel("batch", "70")]
    assert running.supervisor.state.launches[launch(1)].job == "71"


def test_strays_are_cancelled_and_strangers_are_not(running):
    jobs = (
        Job("80", launch(99), "running"),
        Job("81", launch(98), "ended"),
        Job("82", "0badcafe-1", "running"),
        Job("83", "my-simulation", "running"),
        Job("71", launch(1), "running"),
        Job("72", launch(2), "running"),
    )
    assert running.send(events.JobsObserved("batch", running.now, jobs)) == [actions.Cancel("batch", "80")]


def test_jobs_of_another_set_are_no_strays():
    bench = Bench(TWO_SETS)
    bench.begin()
    bench.send(events.Submitted(launch(2), "72"))
    jobs = (Job("72", launch(2), "queued"),)
    assert bench.send(events.JobsObserved("engines", bench.now, jobs)) == []


def test_scaling_up_fills_jobs_before_it_submits_another(running):
    assert running.send(events.ScaleRequested(5, "batch", 5))[1:] == [actions.Submit(launch(3), "batch", (4,), 2)]
    running.send(events.Submitted(launch(3), "73"))
    running.report(3)
    assert running.send(events.ScaleRequested(6, "batch", 7))[1:] == [
        actions.SetDesired(launch(3), "batch", 4, (4, 5)),
        actions.Submit(launch(4), "batch", (6,), 4),
    ]


def test_scaling_down_ends_whole_jobs(running):
    running.observe("batch", 0, 1, 2, 3, busy=(2,))
    done = running.send(events.ScaleRequested(5, "batch", 2))
    assert done[1:] == [actions.Drain("batch", (0, 1))]
    done = running.send(events.EnginesDrained("batch", (0, 1)))
    assert done == [actions.Stop(launch(1), "batch", "term", None, "71")]
    # Somebody waits for the end: it is asked for soon.
    assert running.supervisor.next_deadline() == running.now + 3.0


def test_slot_that_a_job_has_not_released_is_not_given_to_another(running):
    running.send(events.ScaleRequested(5, "batch", 3))
    running.send(events.EnginesDrained("batch", (3,)))
    assert running.supervisor.state.launches[launch(2)].lingering == (3,)
    running.send(events.RestartRequested(6, "batch"))
    running.send(events.EnginesObserved("batch", (), running.now))
    assert running.send(events.ScaleRequested(7, "batch", 4))[1:] == []
    running.now = 50.0
    done = seen(running, ("72", 2, "running"))
    assert actions.Submit(launch(3), "batch", (0, 1), 4) in done


def test_job_may_have_back_itself_what_it_has_not_released(running):
    running.send(events.ScaleRequested(5, "batch", 3))
    running.send(events.EnginesDrained("batch", (3,)))
    done = running.send(events.ScaleRequested(6, "batch", 4))
    assert done[1:] == [actions.SetDesired(launch(2), "batch", 5, (2, 3))]
    assert running.supervisor.state.launches[launch(2)].lingering == ()


def test_restarted_daemon_asks_before_it_submits(running):
    bench = running.crashed()
    assert bench.send(events.JournalReplayed())[1:] == [actions.Query("batch")]
    bench.now += 1.0
    done = seen(bench, ("71", 1, "running"))
    # 72 had a job id, so its submission was over: it is gone.
    assert done == [actions.Submit(launch(3), "batch", (2, 3), 1)]


def test_submission_of_a_dead_daemon_may_still_be_under_way():
    bench = Bench(ONLY_BATCH)
    bench.begin()
    bench = bench.crashed()
    bench.send(events.JournalReplayed(), 100.0)
    seen(bench, asked_at=101.0)
    assert launch(1) in bench.supervisor.state.launches
    bench.now = 140.0
    seen(bench, asked_at=131.0)
    assert launch(1) not in bench.supervisor.state.launches


def test_nobody_asks_when_nothing_is_wanted(running):
    running.send(events.StopRequested(5))
    seen(running)
    running.now = 200.0
    seen(running)
    assert running.supervisor.unit("batch").query_at is None


def test_query_on_its_way_is_not_repeated(running):
    assert kinds(running.wait(15.0)) == ["Query"]
    assert running.wait(1000.0) == []
    seen(running, ("71", 1, "running"), ("72", 2, "running"))
    assert running.supervisor.next_deadline() == 1015.0


def test_refused_submission_is_tried_again_with_pauses(bench):
    assert kinds(bench.send(events.LaunchRefused(launch(2), "invalid account"))) == ["Submit"]
    assert bench.send(events.LaunchRefused(launch(3), "invalid account")) == []
    # Another job of the set is under way: its state says more than the pause.
    assert "starting" in bench.view("batch").reason


def test_set_is_halted_once_however_many_jobs_end():
    settings = Settings(ONLY_BATCH.controller, {"batch": replace(BATCH, restart=RestartPolicy(policy="never"))})
    bench = Bench(settings)
    bench.begin()
    bench.send(events.LaunchRefused(launch(1), "invalid account"))
    assert [type(record).__name__ for record in bench.records] == ["LaunchEnded", "UnitHalted"]
    bench.send(events.LaunchRefused(launch(2), "invalid account"))
    assert [type(record).__name__ for record in bench.records] == ["LaunchEnded"]
