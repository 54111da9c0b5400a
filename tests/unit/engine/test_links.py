"""Functions from a client's `__main__` and the namespace of the engine: who sees which name."""

from __future__ import annotations

import dis
import gc
import json.decoder
import pathlib
import types
import weakref

import pytest

from clusterd.engine.links import global_names


def test_a_missing_name_is_looked_up_on_the_engine_at_each_call(engine, client):
    f = client("def f(): return x").f
    with pytest.raises(NameError, match="'x'"):
        engine.apply(f)
    engine.execute("x = 5")
    assert engine.apply(f) == 5
    engine.push(x=6)
    assert engine.apply(f) == 6
    engine.execute("del x")
    with pytest.raises(NameError, match="'x'"):
        engine.apply(f)


def test_what_the_client_has_wins_over_the_engines_name(engine, client):
    f = client("def f(): return x", x="client").f
    engine.push(x="engine")
    assert engine.apply(f) == "client"


def test_builtins_are_not_shadowed_by_the_engine(engine, client):
    engine.push(len="mine")
    assert engine.apply(client("def f(): return len([1])").f) == 1


def test_nested_functions_lambdas_comprehensions_and_classes_see_the_engines_names(engine, client):
    f = client(
        "def f():\n"
        "    def inner(): return a\n"
        "    class C:\n        value = b\n"
        "    return inner(), [c for _ in range(2)], (lambda: d)(), C.value\n"
    ).f
    engine.push(a=1, b=2, c=3, d=4)
    assert engine.apply(f) == (1, [3, 3], 4, 2)


def test_helpers_that_come_along_see_them_too(engine, client):
    f = client("def helper(): return x\ndef f(): return helper()").f
    engine.push(x=1)
    assert engine.apply(f) == 1


def test_functions_among_the_arguments_see_them_too(engine, client):
    f = client("def f(): return x").f
    engine.push(x=1)
    assert engine.apply(lambda g: g(), f) == 1
    assert engine.map(lambda g: g(), [f, f]) == [1, 1]


def test_methods_of_a_clients_class_see_them_too(engine, client):
    kind = client("class C:\n    def method(self): return x\n").C
    engine.push(x=1)
    assert engine.apply(lambda o: o.method(), kind()) == 1


def test_a_pushed_function_sees_them_in_later_cells(engine, client):
    engine.push(f=client("def f(): return x").f)
    engine.execute("x = 1")
    assert engine.execute("f()") == "1"
    engine.execute("x = 2")
    assert engine.execute("f()") == "2"
    assert engine.apply(lambda: f()) == 2  # noqa: F821, PLW0108 - `f` is the engine's


def test_global_assignments_reach_the_engine(engine, client):
    f = client("def f():\n    global made\n    made = 1\n").f
    engine.apply(f)
    assert engine.pull("made") == [1]


def test_a_global_counter_lives_on_the_engine(engine, client):
    f = client("n = 10\ndef f():\n    global n\n    n += 1\n    return n\n").f
    assert [engine.apply(f), engine.apply(f)] == [11, 12]
    engine.push(n=100)
    assert engine.apply(f) == 101
    assert engine.pull("n") == [101]


def test_after_clear_a_global_begins_with_what_the_client_sent(engine, client):
    f = client("n = 10\ndef f():\n    global n\n    n += 1\n    return n\n").f
    assert [engine.apply(f), engine.apply(f)] == [11, 12]
    engine.namespace.clear()
    assert engine.apply(f) == 11


def test_a_deleted_global_is_gone_on_the_engine(engine, client):
    engine.push(x=1)
    engine.apply(client("def f():\n    global x\n    del x\n").f)
    with pytest.raises(NameError):
        engine.pull("x")


def test_a_global_that_is_not_assigned_after_all_does_not_appear(engine, client):
    f = client("n = 1\ndef f(yes):\n    global n\n    if yes: n = 2\n    return n").f
    assert engine.apply(f, False) == 1
    with pytest.raises(NameError):
        engine.pull("n")


def test_global_assignments_survive_an_error(engine, client):
    engine.outcome(0, ((), {}), client("def f():\n    global made\n    made = 1\n    1/0\n").f)
    assert engine.pull("made") == [1]


def test_functions_that_need_nothing_get_no_link(engine, client):
    held = client("import math\ndef f(x): return math.sqrt(x) + len(str(x)) + k", k=1).f
    engine.apply(held, 4)
    assert all(not function.links for function in engine.functions._held.values())
    assert not engine.namespace.kept


def test_a_function_in_the_cache_keeps_none_of_the_engines_values_alive(engine, client):
    engine.execute("class Big: pass\nx = Big()")
    seen = weakref.ref(engine.namespace.names["x"])
    engine.apply(client("def f(): x").f)
    engine.execute("del x")
    assert seen() is None


def test_functions_that_are_gone_leave_no_link_behind(engine, client):
    engine.push(x=1)
    engine.apply(lambda g: g(), client("def f(): return x").f)
    gc.collect()
    assert not engine.namespace.kept


def _names_by_dis(code):
    loads, stores = set(), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            loads.add(instruction.argval)
        elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            stores.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _names_by_dis(constant)
            loads |= inner[0]
            stores |= inner[1]
    return loads, stores


MANY = "def f():\n" + "".join(f"    global g{n}\n    g{n} = h{n}()\n" for n in range(600))


@pytest.mark.parametrize(
    "text",
    [pathlib.Path(dis.__file__).read_text(), pathlib.Path(json.decoder.__file__).read_text(), MANY],
    ids=["dis", "json", "extended-arguments"],
)
def test_names_are_those_that_dis_finds(text):
    code = compile(text, "f", "exec")
    assert global_names(code) == _names_by_dis(code)
