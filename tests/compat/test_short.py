"""Some 200 of ipyparallel's own tests with our controller and our engines: each feature at least once, in three minutes.

They are run by module, when the first test of a module is reached. `make test-compat` runs all of them, with ipengine too.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.compat.suite.pairs import PAIRS
from tests.compat.suite.run import HERE, PYTHON, ModuleRun, run_module

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = (HERE / "short.txt").read_text().split("\n")[:-1]
MODULES = {module: list(names) for module, names in itertools.groupby(NAMES, lambda name: name.partition(".py::")[0])}
LIMIT = 120.0


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Callable[[str], ModuleRun]:
    """Run a stock module once."""
    found: dict[str, ModuleRun] = {}
    out = tmp_path_factory.mktemp("stock")

    def run(module: str) -> ModuleRun:
        if module not in found:
            assert PYTHON.exists(), "`make test` makes .venv-compat, which has what ipyparallel's own tests need"
            found[module] = run_module(module, PAIRS["ours"], out, only=MODULES[module], limit=LIMIT)
        return found[module]

    return run


@pytest.mark.timeout(3 * LIMIT)
@pytest.mark.parametrize("name", NAMES)
def test_stock(ran, name):
    module = ran(name.partition(".py::")[0])
    test = module.tests.get(name)
    assert test is not None, (
        f"it did not run; {'the module was ended at its limit' if module.is_timed_out else 'is it in the wheel?'}"
    )
    assert test.final in {"passed", "flaky", "xfailed", "skipped"}, test.message


@pytest.mark.timeout(3 * LIMIT)
@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_left_behind_by(ran, module):
    assert ran(module).left == []
