"""A cached pickle is used only while it is true; functions travel once."""

from __future__ import annotations

import functools
import importlib
import math
import sys
import textwrap

import cloudpickle
import numpy as np
import pytest

from clusterd.client.functions import FunctionBook, sources_of
from clusterd.client.guard import reference, watch
from clusterd.core.wire import messages as m
from clusterd.core.wire import payload
from clusterd.core.wire.frames import find_body
from clusterd.errors import TaskNotSendable
from tests.waiting import until


@pytest.fixture
def main(monkeypatch):
    """Make functions as `__main__` has them: by value, with globals of their own."""

    def make(text, **names):
        namespace = {"__name__": "__main__", "__builtins__": __builtins__, **names}
        exec(textwrap.dedent(text), namespace)  # noqa: S102
        return namespace

    return make


def call(packed, *args):
    function, _sources = payload.unpack(*find_body(packed.message.body, packed.frames))
    return function(*args)


def test_importable_functions_go_by_reference():
    book = FunctionBook()
    for function in (len, math.sqrt, textwrap.dedent, dict, functools.reduce):
        packed = book.pack(function)
        assert packed.message.python == ""
        assert len(packed.message.body) < 200
        assert book.pack(function) is packed


def test_functions_of_main_go_by_value(main):
    function = main("def double(x): return 2 * x")["double"]
    packed = FunctionBook().pack(function)
    assert packed.message.python == "{}.{}".format(*sys.version_info)
    assert call(packed, 21) == 42


def test_a_constant_function_is_pickled_once(main, monkeypatch):
    names = main(
        """
        import math
        FACTOR = 3
        def helper(x): return x * FACTOR
        def make(cell, default=(1, "a", None)):
            def work(x, more=default, *, flag=True): return math.floor(helper(x)) + cell
            return work
        """
    )
    work = names["make"](7)
    book = FunctionBook()
    first = book.pack(work)
    monkeypatch.setattr(cloudpickle, "dumps", None)
    assert book.pack(work) is first
    assert call(first, 1) == 10


CHANGES = {
    "a global": ("X = 1\ndef f(): return X", lambda names: names.update(X=2), 2),
    "a global of a helper": ("X = 1\ndef g(): return X\ndef f(): return g()", lambda names: names.update(X=2), 2),
    "a helper": (
        "def g(): return 1\ndef f(): return g()",
        lambda names: exec("def g(): return 2", names),  # noqa: S102
        2,
    ),
    "code in place": (
        "def f(): return 1\ndef other(): return 2",
        lambda names: setattr(names["f"], "__code__", names["other"].__code__),
        2,
    ),
    "the code of a helper": (
        "def g(): return 1\ndef f(): return g()\ndef other(): return 2",
        lambda names: setattr(names["g"], "__code__", names["other"].__code__),
        2,
    ),
    "a default": ("def f(x=1): return x", lambda names: setattr(names["f"], "__defaults__", (2,)), 2),
    "a keyword default in place": (
        "def f(*, x=1): return x",
        lambda names: names["f"].__kwdefaults__.update(x=2),
        2,
    ),
    "a cell": (
        "def make():\n x = 1\n def f(): return x\n def set(value):\n  nonlocal x\n  x = value\n return f, set\nf, set_x = make()",
        lambda names: names["set_x"](2),
        2,
    ),
    "a list inside": ("X = [1]\ndef f(): return X[0]", lambda names: names["X"].__setitem__(0, 2), 2),
    "a list in a tuple": ("X = ([1],)\ndef f(): return X[0][0]", lambda names: names["X"][0].__setitem__(0, 2), 2),
    "an array": ("def f(): return int(X[0])", lambda names: names["X"].__setitem__(0, 2), 2),
    "a class": ("class C:\n x = 1\ndef f(): return C.x", lambda names: setattr(names["C"], "x", 2), 2),
    "an instance": (
        "class C: pass\nc = C(); c.x = 1\ndef f(): return c.x",
        lambda names: setattr(names["c"], "x", 2),
        2,
    ),
    "an attribute of the function": (
        "def f(): return f.x\nf.x = 1",
        lambda names: setattr(names["f"], "x", 2),
        2,
    ),
    "a mutable default": ("def f(x=[1]): return x[0]", lambda names: names["f"].__defaults__[0].__setitem__(0, 2), 2),
    "a global in a nested function": (
        "X = 1\ndef f(): return (lambda: X)()",
        lambda names: names.update(X=2),
        2,
    ),
    "a global in a comprehension": (
        "X = 1\ndef f(): return sum([X for _ in range(1)])",
        lambda names: names.update(X=2),
        2,
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_stale_pickle_is_never_served(main, what):
    text, change, expected = CHANGES[what]
    names = main(text, X=np.array([1]))
    book = FunctionBook()
    packed = [book.pack(names["f"]), book.pack(names["f"])]
    assert [call(one) for one in packed] == [1, 1]
    change(names)
    assert names["f"]() == expected
    assert call(book.pack(names["f"])) == expected


def test_a_global_that_appears_later(main):
    names = main("def f(): return X")
    book = FunctionBook()
    book.pack(names["f"])
    names["X"] = 5
    assert call(book.pack(names["f"])) == 5


def test_a_reloaded_module(isolated, monkeypatch):
    path = isolated.temporary / "reloaded_module.py"
    path.write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(str(isolated.temporary))
    module = importlib.import_module("reloaded_module")
    old, book = module.f, FunctionBook()
    assert book.pack(old).message.python == ""
    path.write_text("def f(): return 2 + 0\n")
    importlib.invalidate_caches()
    importlib.reload(module)
    # The old function cannot be reached by its name any more: by reference it would be the new one.
    assert book.pack(old).message.python != ""
    assert call(book.pack(old)) == 1
    assert call(book.pack(module.f)) == 2
    del sys.modules["reloaded_module"]


def test_a_module_registered_by_value_goes_by_value(monkeypatch):
    assert reference(textwrap.dedent) is not None
    cloudpickle.register_pickle_by_value(textwrap)
    try:
        assert reference(textwrap.dedent) is None
        assert FunctionBook().pack(textwrap.dedent).message.python != ""
    finally:
        cloudpickle.unregister_pickle_by_value(textwrap)


def test_what_is_watched_and_what_not(main):
    names = main(
        """
        def recursive(n): return recursive(n - 1) if n else 0
        def uses_slice(x, s=slice(1, 2)): return x[s]
        """
    )
    assert watch(names["recursive"]).holds()
    assert watch(names["uses_slice"]).holds()
    assert watch(lambda: 0).holds()
    assert watch(functools.partial(len)) is None
    assert watch("abc".upper) is None


def test_other_callables(main):
    class Adder:
        def __init__(self, number):
            self.number = number

        def __call__(self, x):
            return x + self.number

    book = FunctionBook()
    adder = Adder(1)
    assert call(book.pack(adder), 1) == 2
    adder.number = 10
    assert call(book.pack(adder), 1) == 11
    assert call(book.pack(functools.partial(pow, 2)), 5) == 32
    assert call(book.pack("abc".upper)) == "ABC"


def test_arrays_in_closures_travel_out_of_band_as_they_were(main):
    names = main("def f(): return float(DATA.sum())", DATA=np.ones(100_000))
    packed = FunctionBook().pack(names["f"])
    assert sum(map(len, packed.frames)) >= 800_000
    names["DATA"][:] = 2
    assert call(packed) == 100_000


def test_bad_functions():
    book = FunctionBook()
    with pytest.raises(TypeError, match="a function is needed, not 5"):
        book.pack(5)
    lock = __import__("threading").Lock()
    with pytest.raises(TaskNotSendable, match=r"the function .* cannot be pickled"):
        book.pack(lambda: lock)


def test_sources_of_cells_and_files(main):
    assert next(iter(sources_of(test_bad_functions).values()))[1].startswith(("def test_bad_functions", '"""A cached'))
    assert sources_of(len) == {}
    assert sources_of(main("def f(): pass")["f"]) == {}


def test_the_cache_is_bounded(main, monkeypatch):
    monkeypatch.setattr("clusterd.client.functions.MAX_CACHED", 10)
    book = FunctionBook()
    functions = [main(f"def f(): return {number}")["f"] for number in range(50)]
    for function in functions:
        book.pack(function)
    assert len(book._entries) == 10
    assert [call(book.pack(function)) for function in functions] == list(range(50))


# --- on the wire ---


def test_a_function_travels_once(view, controller):
    def work(x):
        return x

    assert [view.apply_sync(work, number) for number in range(5)] == list(range(5))
    assert len(controller.functions) == 1
    controller.drop_connections()
    assert view.apply_sync(work, 1) == 1
    assert len(controller.functions) == 2


def test_a_function_that_the_controller_lost_is_sent_again(view, controller):
    assert view.apply_sync(abs, -1) == 1
    controller.do(controller.known.clear)
    assert view.apply_async(abs, -2).result(10) == 2
    assert controller.functions[0] == controller.functions[1]


def test_a_function_nobody_refers_to_any_more_is_not_asked_for_in_vain(view, controller):
    controller.say(m.NeedFunction(b"x" * 16))
    assert view.apply_sync(abs, -1) == 1


def test_changed_data_reaches_the_engine(view):
    data = [1, 2, 3]

    def total():
        return sum(data)

    assert view.apply_sync(total) == 6
    data.append(4)
    assert view.apply_sync(total) == 10


def test_many_functions_in_one_batch(view, controller):
    controller.is_holding = True
    futures = [view.apply_async(eval(f"lambda: {number}")) for number in range(300)]  # noqa: S307
    until(lambda: len(controller.held) == 300, "the tasks at the controller")
    controller.release()
    assert [future.result(10) for future in futures] == list(range(300))
