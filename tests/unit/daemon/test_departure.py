from __future__ import annotations

import pytest

from clusterd.core.model.profile import ControllerSection, EngineSet, Profile
from clusterd.daemon.departure import drain_seconds


@pytest.mark.parametrize(
    ("drain", "limit", "expected"),
    [
        (30.0, 90, 30.0),
        (None, 90, 60.0),  # all but the 10 and 5 s of engines and agent, the 10 of the controller, and the margin of 5
        (30.0, 40, 10.0),
        (30.0, 20, 0.0),
        (0.0, 90, 0.0),
    ],
)
def test_tasks_may_go_on_for_what_the_rest_leaves(drain, limit, expected):
    sets = {"a": EngineSet(n=1, drain_timeout=drain), "b": EngineSet(n=1, drain_timeout=0.0, stop_timeout=3.0)}
    profile = Profile(version=1, controller=ControllerSection(), engine_sets=sets)
    assert drain_seconds(profile, limit) == expected
