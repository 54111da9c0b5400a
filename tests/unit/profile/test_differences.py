"""What a reload has to do for each changed setting."""

from __future__ import annotations

import msgspec
import pytest

from clusterd.profile import diff, parse
from clusterd.profile.settings import all_settings

OLD = "version: 1\nengine_sets: {engines: {n: 4}, gpu: {n: 1}}"


def changes(new: str) -> list[tuple]:
    return [tuple(change) for change in diff(parse(OLD.encode(), "old"), parse(new.encode(), "new"))]


def test_nothing():
    assert changes("# other text\nengine_sets: {gpu: {n: 1, max: 512}, engines: {n: 4}}\nversion: 1") == []


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("n: 8", ("n", 4, 8, "live")),
        ("max: 8", ("max", 512, 8, "live")),
        ("drain_timeout: null", ("drain_timeout", 30.0, None, "live")),
        ("restart: {crash_loop: {failures: 9}}", ("restart.crash_loop.failures", 5, 9, "live")),
        ("preload: [numpy]", ("preload", [], ["numpy"], "set")),
        ("startup: {command: x}", ("startup.command", None, "x", "set")),
        ("env: {A: b}", ("env", {}, {"A": "b"}, "set")),
    ],
)
def test_a_setting_of_a_set(setting, change):
    n = "" if setting.startswith("n:") else "n: 4, "
    path, old, new, applies = change
    assert changes(f"version: 1\nengine_sets: {{engines: {{{n}{setting}}}, gpu: {{n: 1}}}}") == [
        (f"engine_sets.engines.{path}", old, new, applies, "engines")
    ]


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("log_level: debug", ("log_level", "info", "debug", "live", None)),
        ("run_as: lab", ("run_as", None, "lab", "daemon", None)),
        ("controller: {ip: 10.0.0.1}", ("controller.ip", "127.0.0.1", "10.0.0.1", "controller", None)),
        ("controller: {restart: {policy: never}}", ("controller.restart.policy", "always", "never", "live", None)),
    ],
)
def test_a_setting_of_the_rest(line, change):
    assert changes(f"{OLD}\n{line}") == [change]


def test_a_set_that_was_added_and_one_that_was_removed():
    (removed, added) = changes("version: 1\nengine_sets: {engines: {n: 4}, new: {n: 2}}")
    assert (removed[0], removed[2], removed[3]) == ("engine_sets.gpu", None, "live")
    assert (added[0], added[1], added[2].n) == ("engine_sets.new", None, 2)


def test_several_at_once_in_the_order_of_the_model():
    found = changes(f"{OLD.replace('n: 4', 'n: 5, bind: true')}\nlog_level: error\ncontroller: {{reuse: false}}")
    assert [change[0] for change in found] == [
        "log_level",
        "controller.reuse",
        "engine_sets.engines.n",
        "engine_sets.engines.bind",
    ]


def test_every_setting_that_changes_is_seen():
    """Each setting is changed alone, to a value made from its default."""
    old = parse(OLD.encode(), "old")
    tried = 0
    for path, setting in all_settings():
        if setting.section is not None or setting.named_sections is not None:
            continue
        new = _replaced(old, path.replace("NAME", "engines").split("."))
        (change,) = diff(old, new)
        assert change.path == path.replace("NAME", "engines")
        assert change.applies == setting.applies
        tried += 1
    assert tried > 40


def _replaced(value, steps):
    step, *rest = steps
    if isinstance(value, dict):
        return {**value, step: _replaced(value[step], rest)}
    # diff does not look at what a value is, just whether it differs.
    new = _replaced(getattr(value, step), rest) if rest else ("changed", getattr(value, step))
    return msgspec.structs.replace(value, **{step: new})
