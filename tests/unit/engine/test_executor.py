"""Every kind of task, every way to fail."""

from __future__ import annotations

import signal
import sys
import time
import weakref

import numpy as np
import pytest

from clusterd.core.wire import messages as m
from clusterd.core.wire import payload
from clusterd.errors import TaskError, TaskNotSendable


def test_apply_passes_arguments_and_returns_the_value(engine):
    assert engine.apply(lambda a, b=0: a - b, 5, b=2) == 3


def test_arrays_go_and_come_out_of_band(engine):
    outcome = engine.outcome(m.APPLY, ((np.arange(10_000),), {}), lambda a: a * 2)
    assert len(outcome.frames) == 1
    assert payload.unpack(outcome.body, outcome.frames)[9_999] == 19_998


def test_map_runs_columns_and_makes_one_outcome(engine):
    assert engine.map(lambda x: x * x, range(5)) == [0, 1, 4, 9, 16]
    assert engine.map(lambda x, y: x + y, [1, 2], (10, 20)) == [11, 22]
    assert engine.map(lambda x: x, []) == []


def test_a_failing_item_of_a_map_says_which(engine):
    failure = engine.failure(m.MAP, ([3, 2, 1, 0],), lambda x: 1 // x)
    assert failure.index == 3
    assert "engine local/engines/3, item 3 of the chunk" in failure.traceback
    assert isinstance(failure.to_exception(), ZeroDivisionError)
    assert engine.failure(m.APPLY, ((), {}), lambda: 1 / 0).index == -1


def test_columns_of_different_lengths_are_an_error(engine):
    with pytest.raises(ValueError, match="shorter"):
        engine.map(lambda x, y: x + y, [1, 2], [1])


def test_execute_answers_the_text_of_the_last_expression(engine):
    assert engine.execute("a = 2\na + 1") == "3"
    assert engine.execute("a + 1;") is None
    assert engine.execute("a = 3") is None
    assert engine.execute("_ + 1") == "4"


def test_execute_collects_what_is_displayed(engine):
    outcome = engine.outcome(m.EXECUTE, "display({'text/html': '<b>'}, raw=True)\n7")
    assert outcome.display == [
        {"kind": "display_data", "data": {"text/html": "<b>"}, "metadata": {}},
        {"kind": "execute_result", "data": {"text/plain": "7"}, "metadata": {}},
    ]
    assert engine.outcome(m.EXECUTE, "1;").display is None


def test_applied_functions_may_display_too(engine):
    assert engine.outcome(m.APPLY, ((), {}), lambda: display(5)).display[0]["data"] == {"text/plain": "5"}  # noqa: F821


def test_too_much_rich_output_is_dropped_with_a_note(engine):
    outcome = engine.outcome(m.EXECUTE, "for i in range(3): display({'image/png': 'x' * 4_000_000}, raw=True)")
    assert [list(entry["data"]) for entry in outcome.display] == [["image/png"], ["image/png"], ["text/plain"]]
    assert "bytes of rich output dropped" in outcome.display[2]["data"]["text/plain"]


def test_rich_output_that_no_message_can_carry_is_reduced_to_text(engine):
    outcome = engine.outcome(m.EXECUTE, "display({'text/plain': 'it', 'x/y': object()}, raw=True)")
    assert outcome.display[0]["data"] == {"text/plain": "it"}


def test_ipython_syntax_works(engine, capfd):
    assert engine.execute("%who_ls") == "[]"
    engine.execute("!echo from a shell")
    assert engine.apply(lambda: get_ipython().__class__.__name__) == "EngineShell"  # noqa: F821


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("x = 1\n1/0", ZeroDivisionError, "1/0"),
        ("f(", SyntaxError, "f("),
        ("if True:\nx", IndentationError, "x"),
        ("%no_such_magic", Exception, "no_such_magic"),
        ("await no_such_name", NameError, "await no_such_name"),
    ],
)
def test_errors_of_cells_keep_their_type_and_show_the_line(engine, text, kind, line):
    failure = engine.failure(m.EXECUTE, text)
    assert isinstance(failure.to_exception(), kind)
    assert line in failure.traceback
    assert failure.engine == "local/engines/3"


def test_a_traceback_begins_in_the_users_code(engine, client):
    defined = client("def outer():\n    inner()\ndef inner():\n    raise KeyError('k')\n")
    failure = engine.failure(m.APPLY, ((), {}), defined.outer)
    assert failure.traceback.startswith(
        'On engine local/engines/3:\nTraceback (most recent call last):\n  File "<client>", line 2, in outer\n'
    )
    assert failure.traceback.endswith("KeyError: 'k'\n")


def test_push_and_pull(engine):
    engine.push(a=1, b=[2])
    assert engine.pull("b", "a") == [[2], 1]
    with pytest.raises(NameError, match="name 'c' is not defined"):
        engine.pull("a", "c")


def test_clear_forgets_names_and_runs_the_startup_again(engine_with, tmp_path):
    script = tmp_path / "startup.py"
    script.write_text("import math\nfrom_script = __name__\n")
    engine = engine_with(script=str(script), command="from_command = from_script + '!'")
    engine.push(mine=1)
    engine.value(m.CLEAR, None)
    assert engine.pull("from_script", "from_command") == ["__main__", "__main__!"]
    with pytest.raises(NameError):
        engine.pull("mine")


def test_clear_lets_go_of_the_last_value(engine):
    engine.execute("class Big: pass\nbig = Big(); big")
    seen = weakref.ref(engine.namespace.names["_"])
    engine.value(m.CLEAR, None)
    assert seen() is None


def test_a_failing_startup_fails_the_clear(engine_with, tmp_path):
    script = tmp_path / "startup.py"
    script.write_text("\n\nraise ValueError('from the script')\n")
    failure = engine_with(script=str(script)).failure(m.CLEAR, None)
    assert f'File "{script}", line 3' in failure.traceback
    assert "raise ValueError('from the script')" in failure.traceback


def test_a_missing_startup_script_is_named(engine_with):
    assert "/no/such/file.py" in engine_with(script="/no/such/file.py").failure(m.CLEAR, None).message


def test_what_cannot_be_pickled_is_said_with_its_repr(engine):
    failure = engine.failure(m.APPLY, ((), {}), sys._getframe)
    error = failure.to_exception()
    assert isinstance(error, TaskNotSendable)
    assert "the result cannot be pickled" in error.message
    assert "<frame at" in error.hint


def test_an_exception_that_cannot_be_pickled_is_still_an_error_with_its_text(engine):
    def fail():
        raise ValueError(sys._getframe())

    failure = engine.failure(m.APPLY, ((), {}), fail)
    assert failure.name == "ValueError"
    assert isinstance(failure.to_exception(), TaskError)
    assert "raise ValueError" in failure.traceback


def test_an_exception_whose_text_raises_is_still_an_error(engine):
    class Nasty(Exception):
        def __str__(self):
            raise RuntimeError

        __repr__ = __str__

    def fail():
        raise Nasty

    assert "its text cannot be had" in engine.failure(m.APPLY, ((), {}), fail).message


@pytest.mark.parametrize("code", [None, 0, 3, "bye"])
def test_sys_exit_ends_the_task_and_is_no_system_exit_at_the_client(engine, code):
    for kind, body, function in (
        (m.APPLY, ((code,), {}), sys.exit),
        (m.EXECUTE, f"import sys; sys.exit({code!r})", None),
    ):
        error = engine.failure(kind, body, function).to_exception()
        assert isinstance(error, TaskError)
        assert "sys.exit(" in error.message
    assert engine.execute("1") == "1"


def test_a_missing_module_is_the_tasks_error(engine):
    engine.functions.add(b"d", "f", b"cno_such_module\nf\n.", ())
    body, _ = payload.pack(((), {}), None)
    outcome = engine.executor.run(m.APPLY, engine.functions.get(b"d"), body, ())
    assert isinstance(payload.unpack_failure(outcome.body).to_exception(), ModuleNotFoundError)


def test_a_task_without_its_function_is_an_error(engine):
    with pytest.raises(TaskError, match="names no function"):
        engine.apply(None)


def test_times_are_wall_times_whose_difference_never_is_negative(engine, monkeypatch):
    wall = iter([1000.0, 5.0, 5.0])
    monkeypatch.setattr(time, "time", lambda: next(wall))
    outcome = engine.outcome(m.APPLY, ((), {}), lambda: None)
    assert outcome.started == 1000.0
    assert 1000.0 < outcome.finished < 1010.0


def test_output_belongs_to_its_task(engine, capfd):
    engine.output.install()
    try:
        first = engine.outcome(m.EXECUTE, "print('one'); import sys; print('two', file=sys.stderr)")
        second = engine.outcome(m.APPLY, ((), {}), lambda: print("three"))  # noqa: T201
        third = engine.outcome(m.APPLY, ((), {}), lambda: None)
    finally:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = capfd_streams()
    assert (first.stdout, first.stderr) == ("one\n", "two\n")
    assert (second.stdout, second.stderr) == ("three\n", "")
    assert (third.stdout, third.stderr) == ("", "")
    assert capfd.readouterr() == ("one\nthree\n", "two\n")


def capfd_streams():
    return open(1, "w", closefd=False), open(2, "w", closefd=False)


# --- interrupts ---


@pytest.fixture
def sigint(engine):
    old = signal.signal(signal.SIGINT, engine.executor.on_interrupt)
    yield
    signal.signal(signal.SIGINT, old)


def interrupt_self():
    signal.raise_signal(signal.SIGINT)
    return "not interrupted"


@pytest.mark.usefixtures("sigint")
def test_an_interrupt_ends_the_task_and_not_the_engine(engine):
    failure = engine.failure(m.APPLY, ((), {}), interrupt_self)
    assert isinstance(failure.to_exception(), KeyboardInterrupt)
    assert engine.failure(m.EXECUTE, "import signal; signal.raise_signal(2)").name == "KeyboardInterrupt"
    assert engine.execute("1") == "1"


@pytest.mark.usefixtures("sigint")
def test_an_interrupt_between_tasks_does_nothing(engine):
    signal.raise_signal(signal.SIGINT)
    assert engine.execute("1") == "1"


@pytest.mark.usefixtures("sigint")
def test_a_second_interrupt_does_not_hit_the_handling_of_the_first(engine):
    def twice():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)

    assert engine.failure(m.APPLY, ((), {}), twice).name == "KeyboardInterrupt"


def test_a_task_runs_while_signals_are_held_back(engine):
    """An engine at a terminal ends at an interrupt unless a task runs: also while the output of that task is being sent."""
    executor = engine.executor

    def publish():
        executor.hold()
        is_running = executor.is_running
        executor.release()
        return is_running

    assert executor.call(publish) is True
    assert not executor.is_running


@pytest.mark.usefixtures("sigint")
def test_an_interrupt_reaches_the_pickling_of_a_result(engine):
    class Slow:
        def __reduce__(self):
            interrupt_self()

    assert engine.failure(m.APPLY, ((), {}), Slow).name == "KeyboardInterrupt"


def test_a_failed_task_keeps_nothing_alive(engine):
    engine.execute("import weakref\nclass Big: pass\nwatched = []\n")

    def fail():
        big = Big()  # noqa: F821
        watched.append(weakref.ref(big))  # noqa: F821
        raise ValueError

    assert engine.failure(m.APPLY, ((), {}), fail).name == "ValueError"
    assert engine.execute("import gc; gc.collect(); watched[0]() is None") == "True"
