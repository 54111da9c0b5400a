"""The example's own functions, and its main with a client that computes in this process."""

from __future__ import annotations

import importlib.util
import random
import sysconfig
from pathlib import Path

import pytest

import clusterd

SCRIPT = Path(__file__).parents[3] / "examples" / "stdlib_census.py"


@pytest.fixture(scope="module")
def census():
    spec = importlib.util.spec_from_file_location("stdlib_census", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of three files, of which one is wrong on purpose."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    (tmp_path / "one.py").write_text(
        "import os, os.path\nfrom sys import path\nfrom . import two\n"
        "class A:\n    def f(self):\n        return 1\n    async def g(self):\n        pass\n"
    )
    (tmp_path / "two.py").write_text("import os\ndef h(x):\n    def inner():\n        return 1\n    return inner\n")
    (tmp_path / "bad.py").write_text("print 'Python 2'\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "foreign.py").write_text("import foreign\n")
    return tmp_path


class LocalClient:
    """As much of clusterd.Client as the example uses, computing here."""

    ids = (0, 1)
    change = staticmethod(lambda result: result)

    def __init__(self, profile):
        self.profile = profile

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        return None

    def wait_for_engines(self, n, timeout):
        assert n == 1

    def load_balanced_view(self):
        return self

    def map(self, function, items, *, ordered):
        assert ordered is False
        results = [self.change(function(item)) for item in items]
        random.Random(1).shuffle(results)
        return iter(results)


def test_one_file_is_counted(census, library):
    assert census.census_of("one.py") == {
        "lines": 8,
        "functions": 2,
        "classes": 1,
        "longest": (2, "g in one.py:7"),
        "imports": {"os", "sys"},
    }


def test_nested_functions_count_each(census, library):
    assert census.census_of("two.py")["functions"] == 2
    assert census.census_of("two.py")["longest"] == (4, "h in two.py:2")


def test_a_file_that_does_not_parse_is_counted_apart(census, library):
    assert census.census_of("bad.py") == {"unparsable": "bad.py"}


@pytest.mark.parametrize("content", [b"x = '\0'\n", b"# coding: nonsense\n", b"\xff\xfe\n", b"(" * 500 + b")" * 500])
def test_whatever_cannot_be_parsed_is_no_error(census, library, content):
    (library / "bad.py").write_bytes(content)
    assert census.census_of("bad.py") == {"unparsable": "bad.py"}


def test_the_total_does_not_depend_on_the_order(census, library):
    names = census.standard_library()
    assert names == ["one.py", "two.py", "bad.py"]
    result = census.total(map(census.census_of, names))
    assert result == census.total(map(census.census_of, reversed(names)))
    assert (result["files"], result["lines"], result["functions"], result["classes"]) == (2, 13, 4, 1)
    assert result["longest"] == (4, "h in two.py:2")
    assert result["imports"] == {"os": 2, "sys": 1}
    assert result["unparsable"] == ["bad.py"]


def test_progress_off_a_terminal_is_a_few_lines(census, capsys):
    items = [{"n": n} for n in range(95)]
    assert list(census.with_progress(items, 95)) == items
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[-1].split() == ["95", "of", "95", "files"]


def test_main_prints_the_table_and_compares(census, library, monkeypatch, capsys):
    monkeypatch.setitem(clusterd.__dict__, "Client", LocalClient)
    assert census.main(["local"]) == 0
    out = capsys.readouterr().out
    for words in (
        "classes                    1",
        "os (2), sys (1)",
        "s on 2 engines",
        "one process takes",
        "counted the same",
    ):
        assert words in out


def test_main_says_so_when_the_results_differ(census, library, monkeypatch, capsys):
    class Wrong(LocalClient):
        change = staticmethod(lambda result: {**result, "lines": 0} if "lines" in result else result)

    monkeypatch.setitem(clusterd.__dict__, "Client", Wrong)
    assert census.main(["local"]) == 1
    assert "something else than this process: lines" in capsys.readouterr().err
