"""A pytest plugin that runs ipyparallel's own tests, as its wheel ships them, against another controller or engine.

    PYTHONPATH=tests/compat/suite/plugin COMPAT_CONTROLLER="..." COMPAT_ENGINE="..." \
        python -m pytest -p foreign --pyargs ipyparallel.tests.test_client

Without COMPAT_CONTROLLER (or COMPAT_ENGINE) that half stays ipyparallel's own. `--compat-class wire,shell` runs only tests of these
classes (classes.tsv), `--compat-only FILE` only those whose names stand in the file. Nothing of ipyparallel is changed but the
commands that it starts.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
SHIM = HERE / "shim.py"
CLASSES = HERE.parent / "classes.tsv"

commands = pytest.StashKey[dict[str, list[str]]]()


def redirect(argv: list[str], base: type, trait: str, kind: str) -> list[str]:
    """Make every launcher of a kind start the shim; return the shim's argv."""
    from ipyparallel.cluster import launcher  # noqa: PLC0415 - not at the import of a plugin: it is slow

    command = [sys.executable, str(SHIM), kind]
    # The list itself is used by ipyparallel.tests.setup() and add_engines(), the default of the trait by every Cluster().
    argv[:] = command
    for found in vars(launcher).values():
        if isinstance(found, type) and issubclass(found, base) and trait in found.class_traits():
            found.class_traits()[trait].default_args = (list(command),)
    return command


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our two options."""
    parser.addoption("--compat-class", default="", help="comma list of wire, shell, cli, client, white, env")
    parser.addoption("--compat-only", default="", help="file with the names of the tests to run, one a line")


def pytest_configure(config: pytest.Config) -> None:
    """Put the shim into the place of the programs that are to be foreign."""
    from ipyparallel.cluster import launcher  # noqa: PLC0415

    found: dict[str, list[str]] = {}
    if os.environ.get("COMPAT_CONTROLLER"):
        found["ControllerLauncher.controller_cmd"] = redirect(
            launcher.ipcontroller_cmd_argv, launcher.ControllerLauncher, "controller_cmd", "controller"
        )
    if os.environ.get("COMPAT_ENGINE"):
        found["EngineLauncher.engine_cmd"] = redirect(
            launcher.ipengine_cmd_argv, launcher.EngineLauncher, "engine_cmd", "engine"
        )
    config.stash[commands] = found


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is foreign."""
    return [f"foreign: {name} = {command}" for name, command in config.stash[commands].items()] or ["foreign: nothing"]


def rules() -> list[tuple[str, str]]:
    """Return (pattern, class) of classes.tsv."""
    lines = (line.split("#")[0].split() for line in CLASSES.read_text().splitlines())
    return [(words[0], words[1]) for words in lines if words]


def name_of(item: pytest.Item) -> str:
    """Return test_x.py::Class::test[param], whatever the root directory is."""
    return "::".join([item.path.name, *item.nodeid.split("::")[1:]])


def class_of(name: str, known: list[tuple[str, str]]) -> str:
    """Return the class of a test; the last rule that matches wins."""
    plain = name.replace("[", "(").replace("]", ")")  # fnmatch would take [..] for a set of characters
    return next((found for pattern, found in reversed(known) if fnmatch.fnmatchcase(plain, pattern)), "wire")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note each test's name and class in the report, and leave out what was not asked for."""
    known = rules()
    classes = {word for word in config.getoption("--compat-class").split(",") if word}
    only = config.getoption("--compat-only")
    names = set(Path(only).read_text().split("\n")) if only else set()
    keep: list[pytest.Item] = []
    drop: list[pytest.Item] = []
    for item in items:
        name = name_of(item)
        found = class_of(name, known)
        item.user_properties += [("compat_name", name), ("compat_class", found)]
        wanted = (not classes or found in classes) and (not names or name in names)
        (keep if wanted else drop).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep


@pytest.fixture(autouse=True, scope="module")
def _compat_profile(request: Any) -> Iterator[None]:
    """`python -m ipyparallel.cluster start` runs in another process: it is told by a configuration file."""
    try:
        directory = request.getfixturevalue("ipython_dir")
    except pytest.FixtureLookupError:
        yield
        return
    lines = [f"c.{name} = {command!r}" for name, command in request.config.stash[commands].items()]
    Path(directory, "profile_default", "ipcluster_config.py").write_text("\n".join(["c = get_config()", *lines]) + "\n")
    yield
