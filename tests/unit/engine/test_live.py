"""What a stock task shows while it runs: order, batches, back-pressure, lost connections, threads and forks."""

# ruff: noqa: T201 - what is printed is the subject

from __future__ import annotations

import os
import sys
import threading

import pytest

from clusterd.core.wire import messages as m
from clusterd.engine.stock import live as live_module
from tests.unit.engine.stock import StockEngine
from tests.waiting import until


@pytest.fixture
def engine(shell, capfd):
    yield StockEngine(shell)
    capfd.readouterr()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "clusterd live output"]


def test_order_is_kept_between_streams_and_displays(engine):
    reply = engine.execute(
        "import sys\nprint('a')\nprint('b', file=sys.stderr)\ndisplay(1)\nprint('c', end='')\nsys.stdout.buffer.write(b'd')\nNone"
    )
    assert [
        (content.get("name"), content["text"]) if kind == "stream" else kind for kind, content in reply.published
    ] == ["execute_input", ("stdout", "a\n"), ("stderr", "b\n"), "display_data", ("stdout", "cd")]


def test_a_line_that_is_complete_goes_at_once_the_next_ones_together(engine):
    def talk():
        print("one")
        sent = len(engine.link.sent)
        for _ in range(100):
            print("more")
        return sent, len(engine.link.sent)

    engine.shell.user_ns["talk"] = talk
    reply = engine.execute("seen = talk()")
    first, then = engine.shell.user_ns["seen"]
    assert first == 2  # execute_input and the line
    # As many as took 0.05 s each, of a hundred; two where this machine stands still for a moment.
    assert then <= 4
    assert reply.text() == "one\n" + 100 * "more\n"
    assert threads() == []


def test_what_waits_goes_by_itself_while_the_task_goes_on(engine):
    def talk():
        print("no end", end="")
        assert threads()
        until(lambda: engine.link.sent, "the text is sent")
        until(lambda: not threads(), "nothing waits, and no thread")
        return True

    engine.shell.user_ns["talk"] = talk
    reply = engine.execute("went = talk()", silent=True)
    assert engine.shell.user_ns.pop("went")
    assert reply.text() == "no end"
    assert reply.unsent == []


def test_flush_sends(engine):
    def talk():
        sys.stdout.write("50%")
        sys.stdout.flush()
        return len(engine.link.sent)

    engine.shell.user_ns["talk"] = talk
    engine.execute("sent = talk()", silent=True)
    assert engine.shell.user_ns["sent"] == 1


def test_a_character_that_is_cut_in_two(engine):
    code = "out = sys.stdout.buffer\nfor byte in 'ä€'.encode(): out.write(bytes([byte])); print(end='', flush=True)"
    assert engine.execute("import sys\n" + code).text() == "ä€"


def test_whoever_prints_faster_than_it_is_taken_waits(engine):
    link = engine.link
    held = []

    def look():
        # The controller takes something at every other look, and never has more than a piece to come.
        link.is_clear = not link.is_clear
        held.append(engine.runner._live._size)

    link.when_asked = look
    reply = engine.execute("for _ in range(200): print('x' * 9_999)", silent=True)
    assert len(reply.text()) == 2_000_000
    assert max(held) <= live_module.PIECE_BYTES + 10_001
    assert max(len(content["text"]) for content in reply.shown("stream")) <= live_module.PIECE_BYTES
    # What is left waits in the loop, and goes before the result.
    assert len(reply.unsent) <= 1


def test_one_large_text_goes_in_pieces(engine):
    reply = engine.execute("print('x' * 1_000_000)", silent=True)
    assert max(len(content["text"]) for content in reply.shown("stream")) <= live_module.PIECE_BYTES
    assert reply.text() == "x" * 1_000_000 + "\n"


def test_without_a_controller_nobody_waits_and_the_end_is_kept(engine):
    engine.link.is_attached = engine.link.is_clear = False
    reply = engine.execute("for n in range(300): print(n, 'x' * 10_000)\ndisplay('seen')", silent=True)
    assert engine.link.sent == []
    assert len(reply.unsent) == len(reply.published)
    text = reply.text()
    assert text.endswith("x\n")
    assert "299 xxx" in text
    assert len(text) <= live_module.KEPT_BYTES
    (note,) = [content["text"] for content in reply.shown("stream") if content["name"] == "stderr"]
    dropped = int(note.split()[1])
    assert dropped + len(text) == sum(len(f"{n} ") + 10_001 for n in range(300))
    assert reply.shown("display_data")
    # And it is over with the task.
    engine.link.is_attached = engine.link.is_clear = True
    assert engine.execute("print('again')", silent=True).published == [
        ("stream", {"name": "stdout", "text": "again\n"})
    ]


def test_a_connection_that_is_lost_meanwhile_is_left_to_the_loop(engine):
    def talk():
        print("before")
        engine.link.lose()
        for n in range(100):
            print(n, "x" * 10_000)

    engine.shell.user_ns["talk"] = talk
    reply = engine.execute("talk()", silent=True)
    assert engine.link.sent[0][0].content == b'{"name":"stdout","text":"before\\n"}'
    assert len(engine.link.sent) == 1
    assert "99 xxx" in reply.text()
    assert [type(event).__name__ for event in engine.runner.take_events()] == ["Down"]
    assert engine.runner.take_events() == []


def test_threads_of_the_task_may_print_too(engine):
    def talk():
        def many(name):
            for n in range(500):
                sys.stdout.write(f"{name}{n}\n")  # print is two writes, as everywhere

        workers = [threading.Thread(target=many, args=(name,)) for name in "abcd"]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    engine.shell.user_ns["talk"] = talk
    reply = engine.execute("talk()", silent=True)
    for name in "abcd":
        assert [line for line in reply.text().split() if line.startswith(name)] == [f"{name}{n}" for n in range(500)]


def test_what_prints_while_we_send_is_sent_later(engine):
    def look():
        engine.link.when_asked = lambda: None
        print("from a signal handler")

    engine.link.when_asked = look
    assert engine.execute("print('x')", silent=True).text() == "x\nfrom a signal handler\n"


def test_a_forked_child_says_nothing_on_our_connection(engine):
    def fork():
        print("parent", end="")  # which starts the thread
        child = os.fork()
        if child == 0:
            status = 1
            try:
                print("child")
                sys.stdout.flush()
                engine.shell.live.publish("display_data", {"data": {}})
                status = len(engine.link.sent)
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    engine.shell.user_ns["fork"] = fork
    # Newer Pythons warn of a fork with threads; engines do so by design, the child never touches what they held.
    reply = engine.execute("import warnings\nwarnings.simplefilter('ignore')\nstatus = fork()", silent=True)
    assert engine.shell.user_ns["status"] == 0
    assert reply.text() == "parent"


def test_nothing_is_shown_for_a_task_that_is_over(engine):
    kept = []
    engine.shell.user_ns["keep"] = lambda: kept.append(engine.shell.live)
    engine.execute("keep()", silent=True)
    engine.link.sent.clear()
    kept[0].publish("display_data", {"data": {}})
    kept[0].write("stdout", b"late\n")
    kept[0].flush()
    assert engine.link.sent == []
    assert not kept[0].is_open
    assert engine.executor.run(m.CLEAR, None, b"\x80\x05N.", ()).stdout == ""
