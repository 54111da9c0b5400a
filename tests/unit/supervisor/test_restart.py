import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterd.core.model.profile import CrashLoop, RestartPolicy
from clusterd.core.supervisor.restart import HEALTHY_AFTER, RestartAt, Restarts, StayDown

POLICY = RestartPolicy(initial_backoff=0.5, max_backoff=30.0, crash_loop=CrashLoop(failures=5, within=60.0))
PATIENT = RestartPolicy(initial_backoff=0.5, max_backoff=30.0, crash_loop=CrashLoop(failures=1000, within=60.0))


def test_first_replacement_is_immediate():
    assert Restarts(POLICY, "engines/3").ended("SIGKILL", 100.0) == RestartAt(100.0)


def test_pauses_double_up_to_the_limit_less_a_jitter():
    restarts = Restarts(PATIENT, "engines/3")
    pauses = [restarts.ended("no", 1000.0 * n).at - 1000.0 * n for n in range(12)]
    full = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0]
    for pause, limit in zip(pauses, full, strict=True):
        assert 0.75 * limit <= pause <= limit
    assert len(set(pauses[7:])) > 1


def test_jitter_is_a_function_of_the_seed():
    def second(seed):
        restarts = Restarts(POLICY, seed)
        restarts.ended("no", 0.0)
        return restarts.ended("no", 0.0).at

    assert second("engines/1") == second("engines/1")
    assert len({second(f"engines/{n}") for n in range(20)}) > 15


def test_endless_failures_do_not_overflow():
    restarts = Restarts(PATIENT, "x")
    for n in range(3000):
        outcome = restarts.ended("no", 1e6 * n)
    assert outcome.at - 1e6 * 2999 <= 30.0


def test_crash_loop_stops_with_the_reason_of_the_last_failure():
    restarts = Restarts(POLICY, "x")
    for n in range(4):
        assert isinstance(restarts.ended("no", float(n)), RestartAt)
    outcome = restarts.ended("exit status 3", 4.0)
    assert outcome == StayDown("crash loop: 5 failures within 4 s; the last: exit status 3", is_crash_loop=True)
    # It stays so, until it is resumed.
    assert restarts.ended("no", 4.5).is_crash_loop
    restarts.resume()
    assert restarts.ended("no", 5.0) == RestartAt(5.0)


def test_failures_outside_of_the_window_do_not_count():
    restarts = Restarts(POLICY, "x")
    for n in range(30):
        assert isinstance(restarts.ended("no", 16.0 * n), RestartAt)


def test_health_ends_the_series():
    restarts = Restarts(POLICY, "x")
    for n in range(20):
        assert restarts.ended("SIGKILL", float(n), healthy_for=HEALTHY_AFTER) == RestartAt(float(n))
    assert restarts.failures == 1


def test_a_moment_of_health_does_not():
    restarts = Restarts(POLICY, "x")
    outcomes = [restarts.ended("SIGKILL", float(n), healthy_for=HEALTHY_AFTER - 0.1) for n in range(5)]
    assert isinstance(outcomes[-1], StayDown)


@pytest.mark.parametrize(
    ("policy", "is_failure", "is_restarted"),
    [
        ("always", True, True),
        ("always", False, True),
        ("on-failure", True, True),
        ("on-failure", False, False),
        ("never", True, False),
        ("never", False, False),
    ],
)
def test_policy_decides_which_ends_are_followed_by_a_restart(policy, is_failure, is_restarted):
    outcome = Restarts(RestartPolicy(policy=policy), "x").ended("it left", 0.0, is_failure=is_failure)
    assert isinstance(outcome, RestartAt) == is_restarted
    if not is_restarted:
        assert outcome == StayDown(f"not restarted (restart policy: {policy}): it left", is_crash_loop=False)


def test_one_failure_may_be_a_crash_loop():
    policy = RestartPolicy(crash_loop=CrashLoop(failures=1, within=1.0))
    assert Restarts(policy, "x").ended("no", 0.0).is_crash_loop


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), max_size=40))
def test_a_restart_is_never_before_the_end_nor_beyond_the_limit(ends):
    restarts, now = Restarts(POLICY, "x"), 0.0
    for pause, healthy_for in ends:
        now += pause
        outcome = restarts.ended("no", now, healthy_for=healthy_for)
        if isinstance(outcome, RestartAt):
            assert now <= outcome.at <= now + POLICY.max_backoff
