"""The cache of functions: bounded, in order of use, keeping state."""

from __future__ import annotations

import linecache
import sys
import types

import cloudpickle
import pytest

from clusterd.core.wire import payload
from clusterd.engine import sources
from clusterd.engine.functions import Functions


def add(functions, digest, size=100):
    functions.add(digest, "f", bytes(size))


def test_the_least_recently_used_goes_first():
    functions = Functions(max_entries=2)
    add(functions, b"a")
    add(functions, b"b")
    functions.get(b"a")
    add(functions, b"c")
    assert functions.get(b"b") is None
    assert functions.get(b"a") is not None
    assert functions.get(b"c") is not None


def test_the_sum_of_sizes_is_bounded_but_one_always_fits():
    functions = Functions(max_bytes=1000)
    add(functions, b"a", 600)
    add(functions, b"b", 500)
    assert functions.get(b"a") is None
    add(functions, b"c", 5000)
    assert len(functions) == 1
    assert functions.get(b"c") is not None
    add(functions, b"d", 900)
    assert functions.get(b"c") is None
    assert functions._bytes == 900


def test_a_function_that_comes_again_keeps_its_state():
    def counter(seen=[]):  # noqa: B006
        seen.append(1)
        return len(seen)

    body, frames = payload.pack_function(counter, cloudpickle.dumps)
    functions = Functions()
    functions.add(b"d", "counter", body, frames)
    assert functions.get(b"d").load()() == 1
    functions.add(b"d", "counter", body, frames)
    assert functions.get(b"d").load()() == 2
    assert functions._bytes == len(body)


def test_a_failed_load_is_tried_again(monkeypatch):
    functions = Functions()
    functions.add(b"d", "f", b"\x80\x05cappears_later\nF\n.")
    with pytest.raises(ModuleNotFoundError):
        functions.get(b"d").load()
    module = types.ModuleType("appears_later")
    module.F = (len, {})
    monkeypatch.setitem(sys.modules, "appears_later", module)
    assert functions.get(b"d").load() is len


def test_sources_that_come_along_are_shown_in_tracebacks():
    namespace = {}
    exec(compile("\n\n\ndef fail():\n    raise ValueError(1)\n", "<the cell>", "exec"), namespace)  # noqa: S102
    body, frames = payload.pack_function(
        namespace["fail"], cloudpickle.dumps, {"<the cell>": (4, "def fail():\n    raise ValueError(1)\n")}
    )
    functions = Functions()
    functions.add(b"d", "fail", body, frames)
    with pytest.raises(ValueError) as caught:
        functions.get(b"d").load()()
    assert "    raise ValueError(1)\n" in sources.format_traceback(caught.value, "here")


def test_a_file_that_is_here_is_read_from_here():
    sources.register_sources({__file__: (1, "something else\n")})
    assert linecache.getline(__file__, 1) != "something else\n"


def test_two_functions_of_one_cell_share_its_lines():
    sources.register_sources({"<shared>": (5, "def b(): pass\n")})
    sources.register_sources({"<shared>": (2, "def a(): pass\n")})
    assert linecache.getline("<shared>", 2) == "def a(): pass\n"
    assert linecache.getline("<shared>", 5) == "def b(): pass\n"


def test_the_number_of_sources_is_bounded():
    for n in range(sources.MAX_SOURCES + 10):
        sources.register_source(f"<bounded {n}>", 1, "x\n")
    assert linecache.getline("<bounded 0>", 1) == ""
    assert len(sources._registered) == sources.MAX_SOURCES
    last = f"<bounded {sources.MAX_SOURCES + 9}>"
    assert linecache.getline(last, 1) == "x\n"


def test_a_very_long_traceback_is_cut_in_the_middle():
    text = sources.format_traceback(ValueError("x" * 10**6), "here")
    assert len(text) < sources.MAX_TEXT + 200
    assert "characters dropped" in text
    assert text.startswith("On here:\n")


def test_causes_are_shown():
    try:
        try:
            {}["first"]
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        text = sources.format_traceback(error, "here")
    assert text.index("KeyError: 'first'") < text.index("direct cause") < text.index("ValueError: second")
