"""%px and its family in a real IPython shell, on the engines of a fake controller."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from clusterd.client.magics import arguments, commands, show
from clusterd.client.magics.arguments import Settings, UsageError, read, targets
from clusterd.core.wire import messages as m
from clusterd.errors import ClusterdError
from tests.waiting import until


@pytest.fixture(scope="module")
def _built(tmp_path_factory):
    """The one IPython of this process."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    hook = sys.displayhook
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=config, ipython_dir=str(tmp_path_factory.mktemp("ipython")))
    yield shell
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()
    sys.displayhook = hook


@pytest.fixture
def shell(_built, isolated):
    _built.run_line_magic("load_ext", "clusterd")
    yield _built
    _built.run_line_magic("unload_ext", "clusterd")
    _built.reset(new_session=False)


@pytest.fixture
def px(shell, client, capsys):
    """Run a cell of the user; (stdout, stderr, what it raised)."""
    client.activate()
    capsys.readouterr()

    def run(cell):
        result = shell.run_cell(cell)
        out, err = capsys.readouterr()
        return out, err, result.error_in_exec or result.error_before_exec

    return run


def test_a_line_runs_on_all_engines(px, client):
    assert px("%px x = {'a': 1}") == ("", "", None)
    assert client[:]["x"] == [{"a": 1}] * 2
    assert px("%px print('hello', x['a'])") == ("[stdout:0] hello 1\n[stdout:1] hello 1\n", "", None)


def test_a_cell_runs_where_it_is_told(px, client, shell):
    out, err, error = px("%%px --targets 1\na = 5\nprint('one')\nprint('two')")
    assert (out, err, error) == ("[stdout:1]\none\ntwo\n", "", None)
    assert client[1]["a"] == 5
    for where, expected in (("all", [0, 1]), ("-1", [1]), ("0:1", [0]), ("0,1", [0, 1]), ("[0]", [0]), ("mine", [1])):
        shell.user_ns["mine"] = client[1:]
        out, _, error = px(f"%%px -t {where}\nprint('x')")
        assert error is None
        assert out == "".join(f"[stdout:{engine}] x\n" for engine in expected), where


def test_a_future_instead_of_output(px, shell, client):
    out, _, error = px("%%px --noblock --name job\nprint('later')")
    assert error is None
    assert "AggregateFuture" in out
    assert shell.user_ns["job"].wait(10)
    assert px("%pxresult -o again") == ("[stdout:0] later\n[stdout:1] later\n", "", None)
    assert shell.user_ns["again"] is shell.user_ns["job"]


def test_errors_of_engines_are_told_once(px, client, controller):
    client[:]["n"] = 0
    out, err, error = px("%%px\nprint('before')\n1 / n")
    assert error is not None
    assert type(error) is show.CellFailed
    assert [engine for engine, _ in error.errors] == [0, 1]
    assert isinstance(error.errors[0][1], ZeroDivisionError)
    # IPython shows the error on stdout, and nothing of this process.
    assert "The cell failed on 2 of 2 engines." in out
    assert out.count("ZeroDivisionError: division by zero") == 1
    assert "[0-1]" in out
    assert "commands.py" not in out + err


def test_different_errors_are_told_apart(px, client):
    client[0]["kind"], client[1]["kind"] = ValueError, KeyError
    out, _, error = px("%px raise kind('x')")
    assert [type(each) for _, each in error.errors] == [ValueError, KeyError]
    assert "[0]\n" in out
    assert "[1]\n" in out
    assert "ValueError: x" in out
    failed = show.CellFailed("", [(number, ValueError(number)) for number in range(9)])
    failed.total = 9
    lines = failed._render_traceback_()
    assert lines[-1] == "5 other errors are in `error.errors`."


@pytest.fixture
def later(controller):
    """Have cells end with some rich output, once so many engines have got one."""
    threads = []

    def begin(display, count=2):
        controller.is_holding = True

        def end():
            until(lambda: len(controller.held) == count, "the cell")
            for _, submit, _ in controller.held:
                controller.say(
                    m.Deliver(submit.task, 0, submit.target, 0, 1.0, 2.0, "out\n", "err\n", b"\x80\x05N.", 0, display)
                )

        threads.append(threading.Thread(target=end))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join(30)


PICTURE = {"kind": "display_data", "data": {"image/png": "AAAA", "text/plain": "<Figure>"}, "metadata": {"a": 1}}
TEXT = {"kind": "display_data", "data": {"text/plain": "shown"}, "metadata": {}}
VALUE = {"kind": "execute_result", "data": {"text/plain": "5"}, "metadata": {}}
TABLE = {"kind": "execute_result", "data": {"text/plain": "t", "text/html": "<table>"}, "metadata": {}}


@pytest.mark.parametrize(
    ("group", "order"),
    [
        ("type", "stdout:0 stdout:1 stderr:0 stderr:1 output:0 picture output:1 picture Out[0] Out[1]"),
        ("engine", "stdout:0 stderr:0 Out[0] output:0 picture stdout:1 stderr:1 Out[1] output:1 picture"),
        ("order", "stdout:0 stdout:1 stderr:0 stderr:1 Out[0] Out[1] output:0 picture output:1 picture"),
    ],
)
def test_output_is_grouped(px, shell, later, monkeypatch, group, order):
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    monkeypatch.setattr(shell.display_pub, "publish", lambda **_: sys.stdout.write("picture\n"))
    later([VALUE, PICTURE])
    out, _, error = px(f"%%px -g {group}\nwhatever")
    assert error is None
    words = [line.split()[0] for line in out.splitlines()]
    assert words == [
        word if word == "picture" else f"[{word}]" if ":" in word else f"{word}:" for word in order.split()
    ]


def test_rich_output_is_displayed(px, shell, later, monkeypatch):
    published = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, metadata: published.append((data, metadata)))
    later([TEXT, PICTURE, TABLE], count=1)
    out, err, error = px("%%px -t 1\nwhatever")
    assert error is None
    assert out == "[stdout:1] out\n[output:1] shown\n[output:1]\nOut[1]:\n"
    assert err == "[stderr:1] err\n"
    assert published == [(PICTURE["data"], PICTURE["metadata"]), (TABLE["data"], {})]


def test_local_too(px, shell, client):
    out, _, error = px("%%px --local\nhere = 7\nprint('x')")
    assert error is None
    assert out == "x\n[stdout:0] x\n[stdout:1] x\n"
    assert shell.user_ns["here"] == 7
    assert client[:]["here"] == [7, 7]


def test_every_cell_with_autopx(px, shell, client):
    assert px("%autopx")[0] == "%autopx is on\n"
    assert px("there = 1\nprint('there')")[0] == "[stdout:0] there\n[stdout:1] there\n"
    assert "there" not in shell.user_ns
    assert px("")[2] is None
    assert px("%px print('line')")[0] == "[stdout:0] line\n[stdout:1] line\n"
    assert px("%%px -t 0 --local\nboth = 1")[2] is None
    assert shell.user_ns["both"] == 1
    assert client[0]["both"] == 1
    assert px("%pxresult")[2] is None
    # What is typed is complete or not as it always was.
    assert shell.check_complete("for i in x:")[0] == "incomplete"
    assert shell.check_complete("a = 1")[0] == "complete"
    assert px("# off again\n%autopx")[0] == "%autopx is off\n"
    assert px("local = 1")[2] is None
    assert shell.user_ns["local"] == 1
    assert len(shell.input_transformers_cleanup) == len(InteractiveShell.instance().input_transformers_cleanup)
    assert isinstance(px("%autopx now")[2], UsageError)


def test_settings_hold_until_they_are_changed(px, client):
    assert px("%pxconfig")[0] == "--targets the view's --block --remote --group-outputs type --progress-after 2\n"
    assert px("%pxconfig --targets 1 --group-outputs engine --noblock --progress-after 0.5") == ("", "", None)
    assert px("%pxconfig")[0] == "--targets 1 --noblock --remote --group-outputs engine --progress-after 0.5\n"
    assert "AggregateFuture" in px("%px print(5)")[0]
    assert px("%%px --block\nprint(6)")[0] == "[stdout:1] 6\n"
    assert px("%%px --block -t all\nprint(6)")[0] == "[stdout:0] 6\n[stdout:1] 6\n"


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("%px", "a line of Python is missing"),
        ("%%px\n\n", "the cell is empty"),
        ("%%px --nonsense\n1", "unrecognized arguments: --nonsense"),
        ("%%px --targets nobody\n1", "engines are named as all, 0, -1, 1:3"),
        ("%%px --group-outputs colour\n1", "invalid choice"),
        ("%%px -o 5x\n1", "not the name of a variable"),
        ("%%px --progress-after -1\n1", "a number of seconds from 0"),
        ("%%px -t 'a\n1", "No closing quotation"),
        ("%pxresult", "nothing was run by %px yet"),
        ("%pxresult --targets 0", "nothing was run by %px yet"),
    ],
)
def test_mistakes_are_told_in_a_sentence(px, cell, text):
    out, err, error = px(cell)
    assert isinstance(error, UsageError)
    assert text in str(error)
    assert "UsageError" in out
    assert "commands.py" not in out + err


def test_engines_that_are_not_there(px):
    assert isinstance(px("%%px -t 7\n1")[2], IndexError)


def test_suffixes_make_magics_of_their_own(px, client):
    client.activate([1], suffix="_one")
    client[0].activate(suffix="_zero")
    assert px("%px_one print(1)")[0] == "[stdout:1] 1\n"
    assert px("%%px_zero\nprint(0)")[0] == "[stdout:0] 0\n"
    assert px("%px print(2)")[0] == "[stdout:0] 2\n[stdout:1] 2\n"
    assert px("%autopx_one")[0] == "%autopx_one is on\n"
    assert px("print(1)")[0] == "[stdout:1] 1\n"
    assert px("%autopx_one")[0] == "%autopx_one is off\n"
    with pytest.raises(ValueError, match="cannot be the end of a magic's name"):
        client.activate(suffix="-x")


def test_the_users_client_is_found(shell, client, connect, capsys):
    shell.user_ns["mine"] = shell.user_ns["again"] = client
    shell.run_cell("%px print(1)")
    assert capsys.readouterr().out == "[stdout:0] 1\n[stdout:1] 1\n"
    client.close()
    shell.user_ns["other"], shell.user_ns["third"] = connect(), connect()
    assert "there are several clients" in str(shell.run_cell("%px print(1)").error_in_exec)
    shell.user_ns["third"].close()
    capsys.readouterr()
    shell.run_cell("%px print(1)")
    assert capsys.readouterr().out == "[stdout:0] 1\n[stdout:1] 1\n"


def test_without_a_client_the_running_cluster_is_looked_for(shell, capsys, connect, monkeypatch):
    assert isinstance(shell.run_cell("%px print(1)").error_in_exec, ClusterdError)
    capsys.readouterr()
    monkeypatch.setattr(commands, "find", connect)
    shell.run_cell("%px print(1)")
    assert capsys.readouterr().out == ("%px runs on the engines of 'fake'\n[stdout:0] 1\n[stdout:1] 1\n")


def test_outside_of_ipython(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(ClusterdError, match="magics need IPython or Jupyter"):
        client.activate()


def test_the_extension_comes_and_goes(px, shell, client):
    px("%autopx")
    shell.run_line_magic("unload_ext", "clusterd")
    assert px("x = 1") == ("", "", None)
    assert shell.user_ns["x"] == 1
    assert "was unloaded" in str(px("%px 1")[2])
    shell.run_line_magic("load_ext", "clusterd")
    client.activate()
    assert px("%px print(1)")[0] == "[stdout:0] 1\n[stdout:1] 1\n"


def test_who_was_loaded_last_has_the_names(px, shell, client):
    shell.register_magic_function(lambda _line, _cell=None: sys.stdout.write("another's\n") and None, "line_cell", "px")
    assert px("%px print(1)")[0] == "another's\n"
    client.activate()
    assert px("%px print(1)")[0] == "[stdout:0] 1\n[stdout:1] 1\n"


def test_beside_ipyparallels_magics_the_last_are_in_force(px, shell, client):
    theirs = pytest.importorskip("ipyparallel.client.magics").ParallelMagics
    shell.user_ns["client"] = client
    # What `view.activate()` does there.
    shell.magics_manager.register(theirs(shell, None))
    assert "ipyparallel" in shell.magics_manager.magics["cell"]["px"].__module__
    for load in (lambda: shell.run_line_magic("reload_ext", "clusterd"), client.activate):
        shell.magics_manager.register(theirs(shell, None))
        load()
        assert px("%px print(1)")[0].endswith("[stdout:0] 1\n[stdout:1] 1\n")
        assert px("%autopx")[0] == "%autopx is on\n"
        assert px("%autopx")[0] == "%autopx is off\n"


def test_ctrl_c_interrupts_the_engines_that_run_it(px, shell, client, controller):
    controller.is_holding = True
    stop = []

    def interrupt():
        until(lambda: len(controller.held) == 2, "the cell")
        # One has begun: the abort does not find it.
        running = controller.do(lambda: controller.held.pop(0))
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: [r for r in controller.requests if isinstance(r, m.EngineCommand)], "the interrupt")
        controller.is_holding = False
        controller.say(m.Failed(running[1].task, 0, "aborted", "interrupted"))
        stop.append(True)

    thread = threading.Thread(target=interrupt)
    thread.start()
    out, _, error = px("%px while True: pass")
    thread.join(30)
    assert stop
    assert type(error) is show.CellFailed
    command = next(request for request in controller.requests if isinstance(request, m.EngineCommand))
    assert (command.engines, command.command) == ([0], "interrupt")
    assert "given up before it began" in out


def test_a_long_cell_has_a_bar(px, shell, controller, monkeypatch):
    lines = []
    monkeypatch.setattr(shell, "kernel", "a notebook's", raising=False)
    monkeypatch.setattr(
        shell.display_pub, "publish", lambda data, transient, update: lines.append((data["text/plain"], update))
    )
    controller.is_holding = True

    def end():
        until(lambda: lines and len(controller.held) == 2, "the bar")
        controller.release()

    thread = threading.Thread(target=end)
    thread.start()
    assert px("%%px --progress-after 0\n1")[2] is None
    thread.join(30)
    assert lines[0] == (f"%px: [{'.' * 30}] 0 of 2 engines done", False)
    assert lines[-1] == (f"%px: [{'#' * 30}] 2 of 2 engines done", True)


def test_lines_are_read():
    assert read("%%px", "", Settings(), {}) == Settings()
    assert read("%%px", "-a -o x # a comment", Settings(), {}) == Settings(is_waiting=False, name="x")
    assert read("%%px", "--local --out=y", Settings(is_waiting=False), {}) == Settings(None, False, True, name="y")
    assert read("%pxconfig", "--remote -b", Settings(None, False, True), {}) == Settings()
    with pytest.raises(UsageError, match="unrecognized"):
        read("%pxconfig", "-o x", Settings(), {})
    assert targets("1:", {}) == slice(1, None)
    assert targets("::2", {}) == slice(None, None, 2)
    assert targets("1, 2", {}) == [1, 2]
    assert targets("[3]", {}) == [3]
    assert targets("3", {}) == 3
    assert targets("some", {"some": range(2)}) == range(2)
    assert set(arguments.GROUPS) == {"type", "engine", "order"}
