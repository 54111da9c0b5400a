"""The import table holds, at every level: at the top of a module, in a function, under TYPE_CHECKING, by name."""

from __future__ import annotations

import ast

import pytest

from tests.architecture import rules, sources
from tests.architecture.sources import Module, is_own, is_stdlib, is_within, modules

EVERY_MODULE = sorted(modules())


def violations(module: Module) -> list[str]:
    """Return a line for each import that the table does not allow."""
    package, rule = rules.rule_for(module.name)
    found = []
    for item in module.imports:
        where = f"{module.where}:{item.line}: imports {item.target}"
        if is_own(item.target):
            allowed = {package, "clusterd.errors", *rule.own}
            if item.is_dynamic and any(
                is_within(module.name, a) and is_within(item.target, b) for a, b in rules.WARMED
            ):
                continue
            # The name of a package above: `from clusterd import __version__`. It imports nothing.
            if item.target in {"clusterd", "clusterctl"}:
                continue
            if not any(is_within(item.target, name) for name in allowed):
                found.append(f"{where}; {package} may import {', '.join(sorted(rule.own)) or 'nothing'} of ours")
        elif is_stdlib(item.target):
            if item.target.partition(".")[0] in rule.never:
                found.append(f"{where}; {package} never does")
        elif item.target.partition(".")[0] not in rule.third:
            found.append(f"{where}; {package} may import {', '.join(sorted(rule.third)) or 'no third-party package'}")
    return found


@pytest.mark.parametrize("name", EVERY_MODULE)
def test_a_module_imports_what_the_table_allows(name):
    found = violations(modules()[name])
    assert not found, "\n".join(found)


def test_the_table_finds_a_forbidden_import_at_any_depth():
    text = (
        "import time\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import zmq.asyncio\n"
        "def f():\n    from ..system import files\n    import importlib\n    importlib.import_module('yaml')\n"
        "import msgspec.json\nfrom .model import ids\nfrom clusterd import errors\n"
    )
    path = sources.ROOT / "clusterd" / "core" / "invented.py"
    module = Module("clusterd.core.invented", path, text, ast.parse(text))
    found = [line.split(": imports ")[1].split(";")[0] for line in violations(module)]
    assert found == ["time", "zmq.asyncio", "clusterd.system.files", "yaml"]


def test_every_rule_is_of_a_package_that_exists():
    # A rule for a package that was renamed would allow nothing and hold nothing.
    assert [name for name in rules.RULES if name not in modules()] == []


CORE_MODULES = [name for name in EVERY_MODULE if is_within(name, rules.CORE)]


@pytest.mark.parametrize("name", CORE_MODULES)
def test_core_calls_nothing_that_reads_or_writes(name):
    module = modules()[name]
    calls = [
        f"{module.where}:{node.lineno}: {node.func.id}()"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"open", "print", "input", "exec", "eval"}
    ]
    # datetime.now(), date.today(): the clock by the back door.
    calls += [
        f"{module.where}:{node.lineno}: .{node.attr}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"now", "utcnow", "today"}
        and "date" in ast.unparse(node.value)
    ]
    assert calls == []


def test_core_is_deterministic_about_sets():
    """Iterating a set of strings gives another order in each process: a pure core that does decides by chance."""
    found = []
    for name in CORE_MODULES:
        module = modules()[name]
        for node in ast.walk(module.tree):
            iterated = node.iter if isinstance(node, ast.For | ast.comprehension) else None
            is_set = isinstance(iterated, ast.Set | ast.SetComp) or (
                isinstance(iterated, ast.Call)
                and isinstance(iterated.func, ast.Name)
                and iterated.func.id in {"set", "frozenset"}
            )
            if is_set and isinstance(node, ast.For):
                found.append(f"{module.where}:{node.lineno}: for ... in a set; sort it")
    assert found == []


def test_fork_happens_in_the_zygote_only():
    # And in a daemon that gives root up, as its first act: what stays root is forked before there is a thread or a lock.
    places = ("clusterd.agent.zygote", "clusterd.daemon.warden")
    found = [
        f"{module.where}:{node.lineno}"
        for module in modules().values()
        if not any(is_within(module.name, place) for place in places)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in {"fork", "forkpty"} and ast.unparse(node.value) == "os"
    ]
    assert found == []


@pytest.mark.parametrize("process", ["clusterd.agent", "clusterd.engine"])
def test_agent_and_engine_need_only_what_the_users_environment_has(process):
    """All that they reach is counted, not only what they name themselves: a third-party import two modules away fails there too."""
    todo = [name for name in EVERY_MODULE if is_within(name, process)]
    seen: set[str] = set()
    missing = []
    while todo:
        name = todo.pop()
        if name in seen or name not in modules():
            continue
        seen.add(name)
        # Importing a.b.c runs a and a.b too.
        todo += [name.rpartition(".")[0]] if "." in name else []
        for item in modules()[name].imports:
            # clusterd/__init__.py names the client lazily: an engine's code may use it, where it is installed.
            if item.is_for_types or (name == "clusterd" and item.is_lazy):
                continue
            if is_own(item.target):
                todo.append(item.target)
            elif not is_stdlib(item.target) and item.target.partition(".")[0] not in (
                rules.USERS_ENVIRONMENT | rules.OPTIONAL.get(name, frozenset())
            ):
                missing.append(f"{modules()[name].where}:{item.line}: {item.target}")
    assert missing == []
