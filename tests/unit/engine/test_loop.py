"""The engine's loop with a link that keeps what it is given: order, batches, recall, functions, outbox, resume."""

from __future__ import annotations

import contextlib
import itertools
import json

import cloudpickle
import numpy as np
import pytest

from clusterd.core.model import page
from clusterd.core.wire import jupyter, payload
from clusterd.core.wire import messages as m
from clusterd.core.wire.frames import find_body, place_body
from clusterd.core.wire.session import payload_digest
from clusterd.engine import loop as loop_module
from clusterd.engine.executor import Executor, Stopped
from clusterd.engine.functions import Functions
from clusterd.engine.loop import Loop
from clusterd.engine.namespace import Namespace
from clusterd.engine.output import Output
from clusterd.engine.page import StatusPage
from clusterd.errors import ClusterdError
from clusterd.link import Down, Received, Refusal, Up

CONTROLLER = b"c" * 16


class FakeLink:
    """What `Link` is to its owner; tests put events into `events` and read `sent`."""

    def __init__(self):
        self.events = []
        self.sent = []
        self.is_attached = self.is_clear = False
        self.has_unacked = False
        self.welcome = None
        self.problem = "nobody is there"
        self.state = "waiting"
        self.is_open = False
        self.goodbye = None
        self.redialled = ""
        # Called when the loop asked for events and there were none.
        self.when_idle = None
        self.is_idle = False
        self.is_sending = False

    def open(self):
        self.is_open = True

    def receive(self):
        events, self.events = self.events, []
        self.is_idle = not events
        return events

    def tick(self):
        if self.is_idle and self.when_idle is not None:
            self.when_idle()
        return []

    def send(self, messages, payload=()):
        assert self.is_clear
        self.sent.append((list(messages), list(payload)))

    def wait(self, timeout):
        assert timeout > 0
        self.state = "attached"
        return [self.up()]

    def redial(self, reason):
        self.redialled = reason
        return []

    def next_deadline(self):
        return 0.0  # never sleep

    def pollables(self):
        return []

    def close(self, goodbye=None):
        self.goodbye = goodbye

    # --- for tests ---

    def up(self, controller=CONTROLLER, wire_id=7):
        self.welcome = m.Welcome(1, b"", b"", controller, "local", m.Limits())
        self.is_attached = self.is_clear = True
        return Up(m.Attached(b"t", wire_id), self.welcome, True)

    def down(self, unacked=()):
        self.is_attached = self.is_clear = False
        return Down("gone", list(unacked))

    def messages(self, kind=None):
        found = [message for messages, _ in self.sent for message in messages]
        return found if kind is None else [message for message in found if isinstance(message, kind)]


class Bench:
    def __init__(self, shell, **settings):
        self.link = FakeLink()
        self.page = StatusPage(None, 3, b"u" * 16)
        self.executor = Executor(Namespace(shell), Output(), "local/engines/3")
        self.functions = Functions()
        self.loop = Loop(
            self.link,
            self.executor,
            self.functions,
            self.page.writer,
            lambda **changing: m.AttachEngine(
                b"u" * 16, engine_set="s", slot=3, agent="a", pid=1, host="h", python="3.11", software="x", **changing
            ),
            **settings,
        )
        self.orders = itertools.count(1)
        self.tasks = itertools.count(1)

    def function(self, function):
        body, frames = payload.pack_function(function, cloudpickle.dumps)
        digest = payload.function_digest("f", "", body, frames)
        body, frames = place_body(body, frames)
        return m.Function(digest, "f", "", body, len(frames)), frames

    def dispatch(self, kind, value, function=b""):
        body, frames = payload.pack(value, cloudpickle.dumps)
        body, frames = place_body(body, frames)
        number = next(self.tasks)
        return m.Dispatch(b"task %d" % number, 0, next(self.orders), kind, function, body, len(frames)), frames

    def stock(self, code):
        header = b'{"msg_id":"m","msg_type":"execute_request"}'
        content = json.dumps({"code": code, "silent": True}).encode()
        body = jupyter.pack_request(jupyter.Request(header, b"{}", b"{}", content))
        return m.Dispatch(b"task %d" % next(self.tasks), 0, next(self.orders), m.STOCK, b"", body, 0), ()

    def receive(self, *pairs, digests=None):
        frames = [memoryview(bytes(frame)) for _, own in pairs for frame in own]
        self.link.events.append(Received([message for message, _ in pairs], frames, digests))

    def run(self):
        """Until there is nothing left to do."""

        def stop():
            self.loop._is_stopping = True

        self.link.when_idle = stop
        self.loop._is_stopping = False
        return self.loop.run()

    def record(self):
        return page.read(self.page.writer._page)[1]

    def values(self):
        found = {}
        for messages, frames in self.link.sent:
            position = 0
            for message in messages:
                if isinstance(message, m.Result):
                    body, rest = find_body(message.body, frames[position : position + message.frames])
                    position += message.frames
                    found[message.task] = payload.unpack(body, rest) if message.status == m.STATUS_OK else body
            assert position == len(frames)
        return found


@pytest.fixture
def bench(shell):
    made = []

    def make(**settings):
        made.append(Bench(shell, **settings))
        return made[-1]

    yield make
    for one in made:
        one.page.close()


def test_what_is_dispatched_is_run_in_order_and_answered(bench):
    here = bench()
    here.link.events.append(here.link.up())
    here.receive(*(here.dispatch(m.EXECUTE, text) for text in ("x = 1", "x += 1", "x")))
    assert here.run() == 0
    assert list(here.values().values()) == [None, None, "2"]
    assert here.link.goodbye == "stopped"
    record = here.record()
    assert (record.state, record.done, record.order, record.wire_id) == ("stopping", 3, 3, 7)
    assert record.epoch == page.epoch_of(CONTROLLER)


def test_a_result_never_waits_behind_another_task(bench):
    here = bench()
    function, frames = here.function(lambda: None)
    link = here.link
    seen = []
    here.executor.namespace.push({"look": lambda: seen.append(len(link.messages(m.Result)))})
    link.events.append(link.up())
    here.receive((function, frames), here.dispatch(m.APPLY, ((), {}), function.digest))
    for _ in range(20):
        here.receive(
            here.dispatch(m.APPLY, ((), {}), function.digest),
            here.dispatch(m.EXECUTE, "look()"),
        )
    here.run()
    # However often it was short before.
    assert seen == list(range(2, 42, 2))


def test_what_had_to_wait_travels_together_up_to_a_bound(bench):
    here = bench()
    link = here.link
    link.up()
    here.loop.attach(b"")
    function, frames = here.function(lambda: "x" * 60_000)
    here.receive((function, frames), *(here.dispatch(m.APPLY, ((), {}), function.digest) for _ in range(30)))
    here.loop._handle(link.receive())
    link.is_clear = False
    for _ in range(30):
        here.loop._run_next()
    assert not link.sent
    link.is_clear = True
    here.run()
    assert [len(messages) for messages, _ in link.sent] == [4] * 7 + [2]
    assert len(here.values()) == 30


def test_large_values_travel_as_frames_and_arguments_may_be_changed(bench):
    here = bench()

    def change(array, text):
        array[0] = 5
        return array, text

    function, frames = here.function(change)
    here.link.events.append(here.link.up())
    large = np.zeros(100_000)
    here.receive((function, frames), here.dispatch(m.APPLY, ((large, "t" * 100_000), {}), function.digest))
    here.run()
    ((array, text),) = here.values().values()
    assert array[0] == 5
    assert len(text) == 100_000


def test_an_unknown_function_is_asked_for_once_and_its_tasks_wait_in_order(bench):
    here = bench()
    function, frames = here.function(lambda x: x)
    link = here.link
    link.events.append(link.up())
    here.receive(
        *(here.dispatch(m.APPLY, ((n,), {}), function.digest) for n in range(3)), here.dispatch(m.EXECUTE, "9")
    )

    def answer():
        assert link.messages(m.NeedFunction) == [m.NeedFunction(function.digest)]
        here.receive((function, frames))
        link.when_idle = lambda: setattr(here.loop, "_is_stopping", True)

    here.loop._is_stopping = False
    link.when_idle = answer
    here.loop.run()
    assert list(here.values().values()) == ["9", 0, 1, 2]


def test_a_recalled_task_is_not_run(bench):
    here = bench()
    link = here.link
    link.events.append(link.up())

    def recall():
        with here.page.writer._page[:] as view:
            page.revoke(view, page.epoch_of(CONTROLLER), 2, 2, fence=lambda: None)

    here.executor.namespace.push({"recall": recall})
    here.receive(*(here.dispatch(m.EXECUTE, text) for text in ("recall()", "ran = 1", "'ran' in dir()")))
    here.run()
    assert link.messages(m.NotRun) == [m.NotRun(b"task 2", 0, "recalled")]
    assert here.values()[b"task 3"] == "False"


def test_what_was_not_acknowledged_is_sent_again_and_listed_as_held(bench):
    here = bench()
    link = here.link
    link.events.append(link.up())
    here.receive(here.dispatch(m.EXECUTE, "1"))

    def lose():
        attach = []
        link.events.append(link.down(link.sent))
        sent, link.sent = link.sent, []
        link.when_idle = lambda: (attach.append(here.loop.attach(b"tok")), link.events.append(link.up()), stop())

        def stop():
            assert attach[0].held == [(b"task 1", 0)]
            assert attach[0].token == b"tok"
            assert attach[0].completed == 1
            link.when_idle = lambda: setattr(here.loop, "_is_stopping", True)
            assert sent

    link.when_idle = lose
    here.loop.run()
    assert here.values() == {b"task 1": "1"}


def test_another_controller_gets_results_but_places_the_rest_anew(bench):
    here = bench()
    link = here.link
    link.up()
    here.loop.attach(b"")
    here.loop._handle([Up(m.Attached(b"t", 7), link.welcome, True)])
    here.receive(*(here.dispatch(m.EXECUTE, f"n = {n}") for n in range(3)))
    here.loop._handle(link.receive())
    link.is_clear = False
    here.loop._run_next()
    assert here.loop.attach(b"").held == [(b"task 2", 0), (b"task 3", 0), (b"task 1", 0)]
    here.loop._handle([link.down()])
    link.up(controller=b"d" * 16)
    assert here.loop.attach(b"").held == [(b"task 1", 0)]
    assert here.loop.attach(b"").controller == b"d" * 16
    here.run()
    assert here.values() == {b"task 1": None}


def test_without_a_connection_it_goes_on_until_its_outbox_is_full(bench, monkeypatch):
    monkeypatch.setattr(loop_module, "OUTBOX_BYTES", 250_000)
    here = bench()
    link = here.link
    link.up()
    here.loop.attach(b"")
    here.receive(*(here.dispatch(m.EXECUTE, "print('x' * 100_000)") for _ in range(10)))
    here.loop._handle(link.receive())
    here.loop._handle([link.down()])
    turns = []

    def idle():
        turns.append(1)
        if len(turns) == 20:
            here.loop._is_stopping = True

    link.when_idle = idle
    monkeypatch.setattr(here.executor.output, "take", lambda: ("x" * 100_000, ""))
    here.executor.output.stdout.is_dirty = True
    here.loop.run()
    assert here.record().done == 3
    assert here.loop._outbox_bytes > 250_000


def test_without_a_window_nothing_is_begun(bench):
    here = bench()
    link = here.link
    link.up()
    link.is_clear = False
    here.receive(here.dispatch(m.EXECUTE, "1"))
    here.run()
    assert here.record().done == 0


def test_payload_that_is_not_what_was_signed_costs_the_connection(bench):
    here = bench()
    link = here.link
    message, frames = here.dispatch(m.APPLY, ((np.zeros(100_000),), {}), b"")
    link.events.append(link.up())
    here.receive((message, frames), digests=[payload_digest(b"other") for _ in frames])
    here.run()
    assert "not what its sender signed" in link.redialled
    assert link.messages(m.Result) == []


def test_a_result_over_the_limit_is_a_failure_that_says_so(bench):
    here = bench()
    link = here.link
    up = link.up()
    link.welcome.limits.max_message = 50_000
    link.events.append(up)
    function, frames = here.function(lambda: bytes(60_000))
    here.receive((function, frames), here.dispatch(m.APPLY, ((), {}), function.digest))
    here.run()
    (body,) = here.values().values()
    assert "a part of 60000 bytes, the controller takes 50000" in payload.unpack_failure(body).message


def test_a_refusal_ends_it_with_the_reason(bench):
    here = bench()
    here.link.events.append(Refusal(ClusterdError("too old", hint="upgrade")))
    assert here.loop.run() == 1
    assert here.loop.problem == "too old\nupgrade"


def test_alone_for_too_long_it_ends(bench):
    here = bench(orphan_timeout=0.0)
    assert here.loop.run() == 0
    assert here.loop.problem == "no controller for 0 s: nobody is there"


def test_an_engine_that_never_joins_fails(bench):
    here = bench(join_timeout=0.0)
    assert here.loop.run() == 1
    assert "nobody is there" in here.loop.problem


def test_told_to_end_it_gives_back_what_it_has_not_begun(bench):
    here = bench()
    link = here.link
    link.events.append(link.up())
    here.executor.namespace.push({"end": lambda: here.loop.on_terminate(15, None)})
    here.receive(*(here.dispatch(m.EXECUTE, text) for text in ("1", "end()", "2")))
    assert here.loop.run() == 0
    assert list(here.values()) == [b"task 1"]
    assert link.messages(m.NotRun) == [m.NotRun(b"task 3", 0, "dropped")]
    assert here.record().state == "stopping"


def test_told_to_end_while_it_attaches_it_says_goodbye_all_the_same(bench):
    here = bench()
    here.link.state = "attaching"
    here.loop.on_terminate(15, None)
    assert here.loop.run() == 0
    assert here.link.state == "attached"
    assert here.link.goodbye == "stopped"


def test_a_stop_passes_through_the_executor(bench):
    here = bench()
    here.executor.namespace.push({"stop": lambda: here.executor.on_stop(15, None)})
    body, _ = payload.pack("try:\n    stop()\nfinally:\n    cleaned = True", cloudpickle.dumps)
    with pytest.raises(Stopped):
        here.executor.run(m.EXECUTE, None, body, ())
    assert here.executor.namespace.pull(["cleaned"]) == [True]
    here.run()  # which closes what a loop holds


# --- tasks of stock clients ---


@pytest.fixture
def installed(bench):
    """A bench whose streams are the process's."""

    @contextlib.contextmanager
    def run(here):
        with contextlib.redirect_stdout(here.executor.output.stdout):
            yield here

    return run


def contents(messages):
    return [json.loads(message.content) for message in messages if isinstance(message, m.Published)]


def test_a_stock_task_shows_its_output_and_answers_with_the_engines_id(bench, installed):
    here = bench()
    here.loop.attach(b"")  # as the link does
    here.link.events.append(here.link.up())
    here.receive(here.stock("print('hello')"), here.stock("1 / 0"), here.dispatch(m.EXECUTE, "2"))
    with installed(here):
        here.run()
    messages = here.link.messages()
    assert [type(message).__name__ for message in messages] == ["Published", "Result", "Published", "Result", "Result"]
    assert contents(messages)[0] == {"name": "stdout", "text": "hello\n"}
    assert (messages[1].status, messages[1].stdout) == (m.STATUS_OK, "")
    info = json.loads(jupyter.unpack_reply(messages[3].body).content)["engine_info"]
    assert info == {"engine_uuid": (b"u" * 16).hex(), "engine_id": 7, "method": "execute"}


def test_output_that_the_link_did_not_take_goes_before_the_result(bench, installed):
    here = bench()
    link = here.link
    link.up()
    here.loop.attach(b"")
    here.receive(here.stock("print('hello')"), here.stock("print('again')"))
    here.loop._handle(link.receive())
    link.is_clear = False
    with installed(here):
        here.loop._run_next()
        here.loop._run_next()
    assert not link.sent
    link.is_clear = True
    here.run()
    assert [type(message).__name__ for message in link.messages()] == ["Published", "Result"] * 2


def test_what_was_shown_on_a_lost_connection_is_not_shown_again(bench):
    here = bench()
    link = here.link
    link.up()
    shown = m.Published(b"task 1", 0, "data_message", b"{}", b"{}", 2)
    result = m.Result(b"task 1", 0, m.STATUS_OK, 0.0, 0.0, "", "", b"", 1)
    here.loop._handle([link.down([([shown, result], [b"1", b"2", b"3"]), ([shown], [b"4", b"5"])])])
    link.events.append(link.up())
    here.run()
    assert link.sent == [([result], [b"3"])]


def test_what_came_while_a_stock_task_used_the_link_is_not_lost(bench, installed):
    here = bench()
    here.link.events.append(here.link.up())
    here.executor.namespace.push({"more": lambda: here.receive(here.stock("None"), here.dispatch(m.EXECUTE, "2"))})
    here.receive(here.stock("more()\nprint('x')"))
    with installed(here):
        here.run()
    assert [message.task for message in here.link.messages(m.Result)] == [b"task 1", b"task 2", b"task 3"]


def test_a_stock_result_over_the_limit_is_a_stock_error(bench, installed):
    here = bench()
    link = here.link
    up = link.up()
    link.welcome.limits.max_message = 50_000
    link.events.append(up)
    here.receive(here.stock("raise ValueError('x' * 60_000)"))
    here.run()
    (result,) = link.messages(m.Result)
    content = json.loads(jupyter.unpack_reply(result.body).content)
    assert (result.status, content["ename"]) == (m.STATUS_ERROR, "TaskNotSendable")
    assert "the controller takes 50000" in content["evalue"]
