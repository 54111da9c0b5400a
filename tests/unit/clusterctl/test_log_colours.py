from __future__ import annotations

import pytest

from clusterctl.commands import logs


def test_neighbours_have_different_colours_and_each_keeps_its_own():
    names = [f"engines/{number}" for number in range(12)]
    assert len({logs._coloured(name).split("engines")[0] for name in names}) == 12
    assert logs._coloured("controller") == logs._coloured("controller")
    assert "controller" in logs._coloured("controller")


@pytest.mark.parametrize(
    ("is_terminal", "variables", "is_colourful"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals(monkeypatch, is_terminal, variables, is_colourful):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(logs.sys.stdout, "isatty", lambda: is_terminal, raising=False)
    assert logs._is_colourful() is is_colourful
