"""What child processes print during a stock task: found in the engine's log, shown once, in order."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading

import pytest

from clusterd.engine.output import LIMIT_BYTES, Output
from tests.unit.engine.stock import StockEngine


class LoggedEngine(StockEngine):
    """Descriptors 1 and 2 are its log while it runs, as in an engine of a set."""

    def __init__(self, shell, log):
        super().__init__(shell, Output(log=log))
        self.log = log

    @contextlib.contextmanager
    def installed(self):
        kept = [os.dup(1), os.dup(2)]
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        try:
            with super().installed():
                yield
        finally:
            for number, held in enumerate(kept, 1):
                os.dup2(held, number)
                os.close(held)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "engine.log"


@pytest.fixture
def engine(shell, log):
    engine = LoggedEngine(shell, log)
    program = "import os, sys; os.write(1, (sys.argv[1] * int(sys.argv[2])).encode())"
    shell.user_ns["child"] = lambda text, times=1: subprocess.run(
        [sys.executable, "-c", program, text, str(times)], check=True
    )
    yield engine
    engine.runner._live._log.end()


def test_what_a_child_process_prints_is_shown_between_our_own_lines(engine, log):
    reply = engine.execute("print('one')\nchild('two\\n')\nprint('three')\nchild('four\\n')", silent=True)
    assert reply.text() == "one\ntwo\nthree\nfour\n"
    assert log.read_text() == "one\ntwo\nthree\nfour\n"
    # Once.
    assert engine.execute("print('five')", silent=True).text() == "five\n"


def test_what_was_printed_between_tasks_belongs_to_none(engine, log):
    engine.execute("1", silent=True)
    with log.open("ab") as file:
        file.write(b"somebody\n")
    assert engine.execute("2", silent=True).published == []
    assert log.read_text() == "somebody\n"


def test_who_writes_at_the_same_moment_is_never_taken_for_us(engine, log):
    def others():
        for n in range(300):
            os.write(1, b"<%d>\n" % n)

    def both():
        thread = threading.Thread(target=others)
        thread.start()
        for n in range(300):
            sys.stdout.write(f"[{n}]\n")
        thread.join()

    engine.shell.user_ns["both"] = both
    lines = engine.execute("both()", silent=True).text().split()
    assert [line for line in lines if line[0] == "<"] == [f"<{n}>" for n in range(300)]
    assert [line for line in lines if line[0] == "["] == [f"[{n}]" for n in range(300)]
    assert len(log.read_text().split()) == 600


def test_of_a_flood_the_end_is_shown(engine):
    reply = engine.execute("child('x', 2_000_000)", silent=True)
    assert reply.text().endswith("x")
    assert reply.text().startswith(f"... {2_000_000 - LIMIT_BYTES} bytes are in the engine's log only\n")


def test_the_log_may_be_renamed_meanwhile(engine, log):
    engine.shell.user_ns["rename"] = lambda: log.rename(log.with_suffix(".1"))
    engine.executor.output.stdout._look_at = float("inf")
    engine.execute("print('before')", silent=True)
    look = "sys.stdout._look_at = 0.0"
    reply = engine.execute(
        f"import sys\nrename()\n{look}\nprint('after')\nchild('child\\n')\nprint('end')", silent=True
    )
    assert reply.text() == "after\nchild\nend\n"
    assert log.with_suffix(".1").read_text() == "before\n"
    assert log.read_text() == "after\nchild\nend\n"
