"""The supervisor is killed at every step of simulated runs; it must come to rest as wished, and never do harm meanwhile."""

import random

import pytest

from tests import cells
from tests.simulation.daemon import ALL_RULES, without
from tests.simulation.scenario import SCENARIOS, Run

TABLE = "supervisor: killed at every step"
STEPS = {name: Run(scenario, seed=0).go().steps[0] for name, scenario in SCENARIOS.items()}
CELLS = cells.declare(TABLE, [(name, step) for name, steps in STEPS.items() for step in range(steps)])
# So that no test is longer than a few seconds, and a failure says where.
CHUNK = 50


@pytest.mark.parametrize(
    ("name", "first"), [(name, first) for name in SCENARIOS for first in range(0, STEPS[name], CHUNK)]
)
def test_killed_at_every_step(name, first):
    for step in range(first, min(first + CHUNK, STEPS[name])):
        run(name, 0, [step])
        cells.record_cell(TABLE, (name, step))


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_three_times_in_other_worlds(name):
    for seed in range(1, 40):
        choice = random.Random(seed)
        run(name, seed, [choice.randrange(STEPS[name]), choice.randrange(60), choice.randrange(40)])


def run(name, seed, crashes):
    try:
        Run(SCENARIOS[name], seed, crashes=crashes).go()
    except AssertionError as error:
        error.add_note(f"scenario {name!r}, seed {seed}, killed after {crashes} steps")
        raise


@pytest.mark.parametrize(
    "rule",
    ["adopts", "minds_when_asked", "takes_unknown_for_unknown", "takes_errors_for_errors", "journals_first"],
)
def test_every_rule_matters(rule):
    """With one rule of the design switched off, the sweep finds harm; with all of them the very same run has none."""
    for seed in range(20):
        for name in SCENARIOS:
            for step in range(5, 200, 40):
                try:
                    Run(SCENARIOS[name], seed, crashes=[step], rules=without(rule)).go()
                except AssertionError:
                    Run(SCENARIOS[name], seed, crashes=[step], rules=ALL_RULES).go()
                    return
    pytest.fail(f"nothing went wrong without {rule!r}: the sweep does not test it")
